"""The posteriors of a run's datapoints by draws that pass their test."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from aevb import inference
from aevb.cli.files import destination, names_of_rows, write_json
from aevb.cli.runs import PAGE, SavedRun, Split, check
from aevb.cli.telling import Told, counted, next_steps, of_run, rows

__all__ = ["posterior"]


def posterior(
    saved: SavedRun,
    split: Split = "test",
    limit: int | None = None,
    num_samples: int = 4000,
    num_draws: int = 1000,
    num_chains: int = 16,
    out: Path | None = None,
) -> dict[str, Any]:
    """Draw from the posterior of each datapoint, by the cheapest means that pass their test.

    The guide's draws as they are, where these are good enough; else with importance weights; else
    draws of a proposal fitted to the datapoint; else Hamiltonian Monte Carlo from there.

    Args:
        saved: The run.
        split: train, validation, test or all.
        limit: Only the first so many datapoints.
        num_samples: Weighted draws of each posterior.
        num_draws: Draws that count alike, resampled from them, that are written.
        num_chains: Of each posterior that needs chains.
        out: File to write: .nc for ArviZ, or .npz. By default in the run.

    Returns:
        How many posteriors passed and by which means, and the file.
    """
    from aevb import evaluation

    check(limit=limit, num_samples=num_samples, num_draws=num_draws, num_chains=num_chains)
    rows, seed = saved.datapoints(split, limit), saved.seed
    x = rows.values
    name = f"posterior-{split}-{len(x)}-seed{seed}"
    path = destination(out or saved.folder / f"{name}.nc", ".nc", ".npz")
    began = time.perf_counter()
    found = inference.posterior(
        saved.at_means, x, num_samples=num_samples, num_chains=num_chains, seed=seed
    )
    if path.suffix == ".nc":
        tree = evaluation.posterior_to_arviz(found, num_draws=num_draws)
        for key, values in names_of_rows(rows).items():
            tree["constant_data"][key] = ("datapoint", values)
        tree.to_netcdf(str(path))
    else:
        arrays: dict[str, Any] = {
            **found.resampled(num_draws, seed),
            "log_evidence": found.log_evidence, "source": found.source, "ess": found.ess,
            "is_passed": found.is_passed, "khat_pooled": found.khat_pooled, "rhat": found.rhat,
        }  # fmt: skip
        arrays = {name: value.numpy() for name, value in arrays.items()}
        np.savez_compressed(path, **arrays, **names_of_rows(rows))
    result = {
        **found.summary(),
        "split": split,
        "data": saved.dataset.name,
        **saved.weights,
        "epoch": saved.epoch,
        "run": str(saved.folder),
        "seconds": round(time.perf_counter() - began, 1),
        "draws": str(path),
    }
    write_json(saved.folder / f"{name}.json", result)
    return Told(result, _told(result, saved))


def _told(result: dict[str, Any], saved: SavedRun) -> str:
    by = ", ".join(f"{num:,} by {name}" for name, num in result["sources"].items() if num)
    total = counted(result["num_posteriors"], "posterior")
    shown = {
        "passed": f"{result['num_passed']:,} of {total} of {saved.dataset.name}: {by}",
        "unproved": result["unproved"],
        "draws": result["draws"],
        "page": str(saved.folder / PAGE),
    }
    known = of_run(saved.folder)
    return "\n".join([rows(shown), "", next_steps([known["compare"], known["evaluate"]])])
