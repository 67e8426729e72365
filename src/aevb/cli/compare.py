"""The trial of a run's posterior, with its report."""

import platform
import time
from importlib import metadata
from typing import Any

import torch

from aevb.cli.files import names_of_rows, refuse_read_only, replace_whole, write_json, write_text
from aevb.cli.runs import PAGE, REPORT, SavedRun, Split, check
from aevb.cli.telling import Told, next_steps, of_run, rows

__all__ = ["compare"]


def compare(
    saved: SavedRun,
    datapoints: int = 64,
    split: Split = "test",
    num_chains: int = 16,
    num_samples: int = 500,
    num_warmup: int = 500,
    num_importance_samples: int = 2000,
    num_temperatures: int = 200,
    max_steps: int = 5000,
    num_simulations: int = 1000,
    num_replications: int = 1000,
    population: int | None = 1000,
    chain_batch_size: int | None = None,
) -> dict[str, Any]:
    """Put a posterior on trial; report.html, report.json and draws.nc go into the run's folder.

    Args:
        saved: The run.
        datapoints: The first so many of the split.
        split: train, validation, test or all.
        num_chains: Chains of each datapoint.
        num_samples: Draws that each chain keeps.
        num_warmup: Iterations before.
        num_importance_samples: Of each importance estimate.
        num_temperatures: Of annealing from the refined posterior; 0 for none.
        max_steps: Of refinement.
        num_simulations: Datapoints simulated from the model for calibration; 0 for none.
        num_replications: Of each datapoint for predictive checks; 0 for none.
        population: The first so many of the split for active units and KL; null for all.
        chain_batch_size: Chains evaluated at once, to bound the memory.

    Returns:
        The verdict and the figures behind it.
    """
    from aevb import evaluation

    check(datapoints=datapoints, population=population)
    refuse_read_only(saved.folder)
    found, many = saved.datapoints(split, datapoints), saved.values(split, population)
    x = found.values
    settings: dict[str, Any] = {
        "num_chains": num_chains, "num_samples": num_samples, "num_warmup": num_warmup,
        "num_importance_samples": num_importance_samples, "num_temperatures": num_temperatures,
        "max_steps": max_steps, "num_simulations": num_simulations,
        "num_replications": num_replications, "chain_batch_size": chain_batch_size,
    }  # fmt: skip
    began = time.perf_counter()
    trial = evaluation.compare(saved.at_means, x, population=many, seed=saved.seed, **settings)
    record = {
        "run": str(saved.folder),
        "model": " ".join(repr(saved.model).split()),
        **saved.weights,
        "data": saved.dataset.name,
        "binarize": saved.dataset.train.binarize,
        "split": split,
        "datapoints": len(x),
        "population": len(many),
        "epoch": saved.epoch,
        "seed": saved.seed,
        **settings,
        "seconds": round(time.perf_counter() - began, 1),
        "device": str(saved.device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("aevb", "torch", "pyro-ppl", "arviz")},
    }
    page, figures, draws = (saved.folder / name for name in REPORT)
    write_text(page, evaluation.trial_page(trial, record))
    own = ("judged", "differs", "rhat", "ess_bulk", "ess_tail", "khat")
    errors = ("mean_error", "log_scale_ratio", "energy_distance", "p_value")
    each: dict[str, Any] = {k: names.tolist() for k, names in names_of_rows(found).items()}
    each |= {name: getattr(trial, name).tolist() for name in own}
    each |= {name: getattr(trial.errors, name).tolist() for name in errors}
    if trial.gaps is not None:
        each |= {
            "log_evidence": trial.gaps.log_evidence.tolist(),
            "log_evidence_trusted": trial.gaps.trusted.tolist(),
            "refined": trial.gaps.refinement.is_converged.tolist(),
            "approximation_gap": trial.gaps.approximation.tolist(),
            "amortization_gap": trial.gaps.amortization.tolist(),
        }
    if trial.predictive_checks is not None:
        p = trial.predictive_checks.p_values
        each["predictive_p"] = {name: values.tolist() for name, values in p.items()}
    result = {"verdict": trial.verdict(), **trial.summary(), "settings": record}
    write_json(figures, {**result, "each": each})
    replace_whole(draws, lambda path: trial.to_arviz().to_netcdf(str(path), engine="h5netcdf"))
    lines = [*trial.verdict(), "", trial.table(), "", f"report: {page}", f"draws:  {draws}"]
    told = {**result, "table": "\n".join(lines), "report": str(page), "draws": str(draws)}
    known = of_run(saved.folder)
    where = {"report": str(page), "draws": str(draws), "page": str(saved.folder / PAGE)}
    steps = next_steps([known["posterior"], known["evaluate"]])
    return Told(told, "\n".join([*trial.verdict(), "", rows(where), "", steps]))
