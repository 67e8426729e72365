"""The trial of a run's posterior, with its report."""

import platform
import time
from importlib import metadata
from typing import Any

import torch

from aevb import evaluation
from aevb.cli.evaluate import check, plain, weights_record
from aevb.cli.runs import REPORT, SavedRun, refuse_read_only, replace_whole, write_json, write_text

__all__ = ["try_posterior"]


def try_posterior(
    saved: SavedRun,
    split: str,
    datapoints: int,
    population: int | None,
    seed: int,
    device: torch.device,
    **settings: Any,
) -> dict[str, Any]:
    """Compare, and write ``report.html``, ``report.json`` and ``draws.nc`` into the run folder.

    Args:
        saved: The run.
        split: Of its data.
        datapoints: The first so many.
        population: The first so many for active units and KL; None for all.
        seed: Of everything random.
        device: Where to compute.
        settings: Others of :func:`aevb.evaluation.compare`.

    Returns:
        What is printed: the table and the verdict.
    """
    check(datapoints=datapoints, population=population)
    refuse_read_only(saved.folder)
    data = getattr(saved.dataset, split)
    x, many = (data.evaluation(count).to(device) for count in (datapoints, population))
    began = time.perf_counter()
    trial = evaluation.compare(plain(saved.model), x, population=many, seed=seed, **settings)
    record = {
        "run": str(saved.folder),
        "model": " ".join(repr(saved.model).split()),
        **weights_record(saved),
        "data": saved.dataset.name,
        "binarize": saved.dataset.train.binarize,
        "split": split,
        "datapoints": len(x),
        "population": len(many),
        "epoch": saved.epoch,
        "seed": seed,
        **settings,
        "seconds": round(time.perf_counter() - began, 1),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("aevb", "torch", "pyro-ppl", "arviz")},
    }
    page, figures, draws = (saved.folder / name for name in REPORT)
    write_text(page, evaluation.trial_page(trial, record))
    each: dict[str, Any] = {
        "judged": trial.judged.tolist(),
        "differs": trial.differs.tolist(),
        "rhat": trial.rhat.tolist(),
        "ess_bulk": trial.ess_bulk.tolist(),
        "ess_tail": trial.ess_tail.tolist(),
        "khat": trial.khat.tolist(),
        "mean_error": trial.errors.mean_error.tolist(),
        "log_scale_ratio": trial.errors.log_scale_ratio.tolist(),
        "energy_distance": trial.errors.energy_distance.tolist(),
        "p_value": trial.errors.p_value.tolist(),
    }
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
    return {**result, "table": "\n".join(lines), "report": str(page), "draws": str(draws)}
