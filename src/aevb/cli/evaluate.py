"""The evidence of a run by any estimator, with the record that goes with it."""

import math
import time
from typing import Any, Literal

from aevb import inference
from aevb.cli.files import refuse_read_only, write_json, write_rows
from aevb.cli.runs import PAGE, SavedRun, Split, check
from aevb.cli.telling import Told, evidence_lines, in_short, next_steps, of_run, rows
from aevb.models import LatentVariableModel, Likelihood
from aevb.models.likelihoods import Grid

__all__ = ["evaluate"]

_SCHEDULES = {
    "sigmoid": inference.sigmoid_schedule,
    "linear": inference.linear_schedule,
    "adaptive": inference.adaptive_schedule,
}
_SHOWN = {
    "importance": "importance sampling",
    "bounds": "annealed importance sampling, forward and from draws of the posterior",
    "ais": "annealed importance sampling",
    "bdmc": "bidirectional Monte Carlo, on data simulated from the model",
    "hmc": "posterior draws and a density of them (AEVB, appendix D)",
}
_CURVE_DATAPOINTS = 100
# What is written of each datapoint, of any estimator that has it.
_EACH = ("log_evidence", "standard_error", "is_trusted", "elbo", "khat")


def evaluate(
    saved: SavedRun,
    num_samples: int | None = None,
    split: Split = "test",
    limit: int | None = None,
    estimator: Literal["importance", "ais", "bounds", "bdmc", "hmc"] = "importance",
    proposal: Literal["guide", "refined"] = "guide",
    num_chains: int = 16,
    num_temperatures: int = 1000,
    schedule: Literal["sigmoid", "linear", "adaptive"] = "sigmoid",
    start: Literal["prior", "guide"] = "guide",
    chain_batch_size: int | None = None,
    curve: bool = False,
) -> dict[str, Any]:
    """Estimate the evidence of a trained model.

    Args:
        saved: The run.
        num_samples: Importance samples for each datapoint, 5,000 by default; for hmc draws of each
            chain, 500 by default.
        split: train, validation, test or all; of bdmc only the number of datapoints is taken.
        limit: Only the first so many datapoints.
        estimator: importance; ais, annealing; bounds, from both sides given draws of the
            posterior; bdmc, the same on simulated data; or hmc, posterior draws (AEVB, appendix
            D).
        proposal: Of importance: guide, or refined, which is fitted to each datapoint.
        num_chains: Chains of each datapoint, for all but importance.
        num_temperatures: Steps of annealing.
        schedule: How temperatures lie: sigmoid, linear or adaptive.
        start: Where annealing starts: prior or guide.
        chain_batch_size: Chains evaluated at once, to bound the memory.
        curve: Also the importance bound against its number of samples, with a picture.

    Returns:
        Means in nats per datapoint, with their errors and settings.
    """
    if num_samples is None:
        num_samples = 500 if estimator == "hmc" else 5000
    check(
        num_samples=num_samples, limit=limit, num_chains=num_chains,
        num_temperatures=num_temperatures,
    )  # fmt: skip
    refuse_read_only(saved.folder)
    found = saved.datapoints(split, limit)
    x, seed, model = found.values, saved.seed, saved.at_means
    began = time.perf_counter()
    evidence: inference.Evidence
    if estimator == "importance":
        evidence = inference.importance_evidence(
            model.model, model.guide, x, num_samples=num_samples, seed=seed, proposal=proposal
        )
    elif estimator == "bounds":
        evidence = inference.bounded_evidence(
            model, x, num_chains=num_chains, num_temperatures=num_temperatures,
            schedule=_SCHEDULES[schedule], seed=seed, chain_batch_size=chain_batch_size,
        )  # fmt: skip
    elif estimator in ("ais", "bdmc"):
        anneal = inference.ais_evidence if estimator == "ais" else inference.bdmc_evidence
        try:
            evidence = anneal(
                model.model, x, num_chains=num_chains, num_temperatures=num_temperatures,
                schedule=_SCHEDULES[schedule], guide=model.guide if start == "guide" else None,
                seed=seed, chain_batch_size=chain_batch_size,
            )  # fmt: skip
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
        **_better(summary, saved, estimator, proposal),
        **_per_dimension(model, summary.get("log_evidence")),
        "estimator": _SHOWN[estimator],
        "unit": "nats per datapoint",
        "split": split,
        "data": saved.dataset.name,
        "binarize": saved.dataset.train.binarize,
        "model": " ".join(repr(saved.model).split()),
        **saved.weights,
        "epoch": saved.epoch,
        "run": str(saved.folder),
        "evaluation_seconds": round(time.perf_counter() - began, 1),
    }
    amount = num_samples if estimator in ("importance", "hmc") else num_temperatures
    kinds = {"importance": "" if proposal == "guide" else "refined-"}
    kind = kinds.get(estimator, f"{estimator}-")
    name = f"evidence-{kind}{split}-{len(x)}x{amount}-seed{seed}"
    if curve:
        from aevb import evaluation

        figures["curve"] = evaluation.importance_curve(
            model.model, model.guide, x[:_CURVE_DATAPOINTS], num_samples=num_samples, seed=seed
        )
        picture = saved.folder / f"{name}-curve.png"
        evaluation.evidence_curve(figures["curve"], picture)
        figures["picture"] = str(picture)
    if estimator != "bdmc":  # whose datapoints are simulated
        columns = {key: getattr(evidence, key, None) for key in _EACH}
        write_rows(
            saved.folder / f"{name}.csv",
            found,
            {key: value.tolist() for key, value in columns.items() if value is not None},
        )
    write_json(saved.folder / f"{name}.json", figures)
    return Told(figures, _told(figures, saved))


def _told(figures: dict[str, Any], saved: SavedRun) -> str:
    on = f"{in_short(saved.model)} on {saved.dataset.name}, after {saved.epoch:,} epochs"
    known = of_run(saved.folder)
    steps = [known["compare"], known["posterior"]]
    if better := figures.get("better"):
        steps.insert(0, (better, "a better estimate"))
    shown = {
        **evidence_lines(figures),
        "curve": figures.get("picture"),
        "page": str(saved.folder / PAGE),
    }
    return "\n".join([on, "", rows(shown), "", next_steps(steps)])


def _better(
    summary: dict[str, Any], saved: SavedRun, estimator: str, proposal: str
) -> dict[str, str]:
    """The command by which an estimate that is not to be trusted would be made better."""
    if summary["verdict"].startswith("trusted"):
        return {}
    flags = {
        ("importance", "guide"): "--proposal refined",
        ("importance", "refined"): "--estimator ais",
    }.get((estimator, proposal), "--num_temperatures 10000 --estimator ais")
    return {"better": f"aevb evaluate {saved.folder} {flags}"}


def _per_dimension(model: LatentVariableModel, log_evidence: float | None) -> dict[str, float]:
    """Bits for each number of a datapoint, where these are grey levels: a density has none."""
    found = [part for part in getattr(model, "parts", ()) if isinstance(part, Likelihood)]
    if log_evidence is None or not found or not isinstance(found[0].support, Grid):
        return {}
    return {"bits_per_dimension": -log_evidence / (math.prod(model.shape) * math.log(2))}
