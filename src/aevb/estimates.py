"""The evidence of a run by any estimator, with the record that goes with it."""

import math
import time
from typing import Any, Literal

import torch

from aevb import evaluation, inference
from aevb.models import LatentVariableModel, Likelihood
from aevb.models.composed import ComposedModel
from aevb.models.likelihoods import Grid
from aevb.runs import SavedRun, refuse_read_only, write_json

__all__ = ["Estimator", "Schedule", "check", "estimate", "plain", "weights_record"]

Estimator = Literal["importance", "ais", "bdmc", "hmc"]
Schedule = Literal["sigmoid", "linear", "adaptive"]

_SCHEDULES = {
    "sigmoid": inference.sigmoid_schedule,
    "linear": inference.linear_schedule,
    "adaptive": inference.adaptive_schedule,
}
_SHOWN = {
    "importance": "importance sampling, guide as proposal",
    "ais": "annealed importance sampling",
    "bdmc": "bidirectional Monte Carlo, on data simulated from the model",
    "hmc": "posterior draws and a density of them (AEVB, appendix D)",
}
_CURVE_DATAPOINTS = 100


def check(**numbers: int | None) -> None:
    """Refuse numbers below 1, by name."""
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}: must be at least 1; got {value}")


def plain(model: LatentVariableModel) -> LatentVariableModel:
    """With the means of the weights' posterior, where weights are latent."""
    return model.at_mean_weights() if isinstance(model, ComposedModel) else model


def weights_record(saved: SavedRun) -> dict[str, str]:
    """What :func:`plain` made of the weights of a run, for its records."""
    changed = plain(saved.model) is not saved.model
    return {"weights": "means of their posterior"} if changed else {}


def estimate(
    saved: SavedRun,
    split: str,
    num_samples: int,
    limit: int | None,
    seed: int,
    device: torch.device,
    estimator: Estimator = "importance",
    num_chains: int = 16,
    num_temperatures: int = 1000,
    schedule: Schedule = "sigmoid",
    start: Literal["prior", "guide"] = "guide",
    chain_batch_size: int | None = None,
    curve: bool = False,
) -> dict[str, Any]:
    """Evidence of one split; also written into the run folder.

    Args:
        saved: The run.
        split: Of its data.
        num_samples: For each datapoint: draws of the guide, or of each chain.
        limit: Only the first so many datapoints.
        seed: Of everything random.
        device: Where to compute.
        estimator: Which.
        num_chains: Of annealing and of posterior draws.
        num_temperatures: Of annealing.
        schedule: Of its temperatures.
        start: Of annealing.
        chain_batch_size: Chains evaluated at once.
        curve: Also the bound against the number of samples, and its picture.

    Returns:
        What is printed.
    """
    check(
        num_samples=num_samples, limit=limit, num_chains=num_chains,
        num_temperatures=num_temperatures,
    )  # fmt: skip
    refuse_read_only(saved.folder)
    x = getattr(saved.dataset, split).evaluation(limit).to(device)
    began = time.perf_counter()
    model = plain(saved.model)
    guide = model.guide if start == "guide" else None
    annealing: dict[str, Any] = {
        "num_chains": num_chains, "num_temperatures": num_temperatures,
        "schedule": _SCHEDULES[schedule],
        "guide": guide, "seed": seed, "chain_batch_size": chain_batch_size,
    }  # fmt: skip
    evidence: inference.Evidence
    if estimator == "importance":
        evidence = inference.importance_evidence(
            model.model, model.guide, x, num_samples=num_samples, seed=seed
        )
    elif estimator in ("ais", "bdmc"):
        anneal = inference.ais_evidence if estimator == "ais" else inference.bdmc_evidence
        try:
            evidence = anneal(model.model, x, **annealing)
        except inference.NoDensityError as error:
            raise ValueError(f"{error}; --start prior anneals from the prior") from error
    else:
        evidence = inference.hmc_evidence(
            model.model, x, num_chains=num_chains, num_samples=num_samples, seed=seed,
            guide=model.guide, chain_batch_size=chain_batch_size,
        )  # fmt: skip
    summary = evidence.summary()
    figures = {
        **summary,
        **_per_dimension(model, summary.get("log_evidence")),
        "estimator": _SHOWN[estimator],
        "unit": "nats per datapoint",
        "split": split,
        "data": saved.dataset.name,
        "binarize": saved.dataset.train.binarize,
        "model": " ".join(repr(saved.model).split()),
        **weights_record(saved),
        "epoch": saved.epoch,
        "run": str(saved.folder),
        "evaluation_seconds": round(time.perf_counter() - began, 1),
    }
    amount = num_samples if estimator in ("importance", "hmc") else num_temperatures
    kind = "" if estimator == "importance" else f"{estimator}-"
    name = f"evidence-{kind}{split}-{len(x)}x{amount}-seed{seed}"
    if curve:
        figures["curve"] = evaluation.importance_curve(
            model.model, model.guide, x[:_CURVE_DATAPOINTS], num_samples=num_samples, seed=seed
        )
        picture = saved.folder / f"{name}-curve.png"
        evaluation.evidence_curve(figures["curve"], picture)
        figures["picture"] = str(picture)
    write_json(saved.folder / f"{name}.json", figures)
    return figures


def _per_dimension(model: LatentVariableModel, log_evidence: float | None) -> dict[str, float]:
    """Bits for each number of a datapoint, where these are grey levels: a density has none."""
    found = [part for part in getattr(model, "parts", ()) if isinstance(part, Likelihood)]
    if log_evidence is None or not found or not isinstance(found[0].support, Grid):
        return {}
    return {"bits_per_dimension": -log_evidence / (math.prod(model.shape) * math.log(2))}
