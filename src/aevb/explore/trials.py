"""What is computed on demand: evidence of all datapoints, and one posterior put on trial."""

import math
import warnings
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aevb import evaluation, inference
from aevb.data.seeds import stream_seed
from aevb.evaluation import Trial
from aevb.evaluation.limits import ESS_LIMIT, RHAT_LIMIT
from aevb.explore.latent_space import LatentSpace
from aevb.inference import (
    AISEvidence,
    Draws,
    Evidence,
    ImportanceEvidence,
    NoDensityError,
    sigmoid_schedule,
)
from aevb.inference.evidence.ais import annealed, annealing_of
from aevb.inference.evidence.psis import khat_limit
from aevb.inference.process import randomness

__all__ = ["FIGURES", "put_on_trial", "verdict", "weigh"]

Steps = Generator[dict[str, Any], None, None]

# Of each datapoint, by :func:`weigh`.
FIGURES = ("khat", "gap", "log_evidence", "ess")
# Datapoints weighed in one step: about a tenth of a second for a small model.
_WEIGHED_AT_ONCE = 50
# Iterations in one step after warm-up, and chains in one of annealing: a second or so, for which
# sliders wait.
_ITERATIONS_AT_ONCE, _CHAINS_AT_ONCE = 50, 8
_COMPARED = 200
# Draws that are sent to be drawn.
_SENT = 400
# An estimate without bias of p(x) exceeds it by three nats with a probability of at most exp(−3),
# a twentieth (Markov), whatever its chains did. What is more than a nat beyond is a guide's fault:
# log p(x) less its ELBO is its divergence from the posterior.
_LOOSE, _FAR = 3.0, 1.0
# Standard errors by which two estimates of evidence may differ.
_APART = 3.0


def weigh(space: LatentSpace, num_samples: int) -> Steps:
    """Importance-sampled evidence of every datapoint, with k̂ in view of all of them.

    Args:
        space: Of the model and its data.
        num_samples: Of each datapoint.

    Returns:
        Steps with ``share`` and ``figures``, a list over the datapoints so far for each of
        ``FIGURES``, in nats; the last has ``trusted``, and their means in ``summary``.
    """
    x, model, parts = space.x, space.model, []
    figures: dict[str, list[float]] = {name: [] for name in FIGURES}
    for start in range(0, len(x), _WEIGHED_AT_ONCE):
        part = inference.importance_evidence(
            model.model, model.guide, x[start : start + _WEIGHED_AT_ONCE],
            num_samples=num_samples, seed=stream_seed(space.seed, f"explore/weigh/{start}"),
        )  # fmt: skip
        parts.append(part)
        found = {"khat": part.khat, "gap": part.log_evidence - part.elbo}
        found |= {"log_evidence": part.log_evidence, "ess": part.ess}
        figures = {name: [*figures[name], *found[name].tolist()] for name in FIGURES}
        yield {"share": len(figures["khat"]) / len(x), "figures": figures}
    names = ("log_evidence", "standard_error", "ess", "khat", "elbo", "elbo_standard_error")
    merged = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    pooled = inference.pooled_khat(merged["khat"].numpy(), num_samples)
    whole = ImportanceEvidence(
        **merged, khat_pooled=torch.from_numpy(pooled), num_samples=num_samples,
        seed=space.seed, proposal="guide",
    )  # fmt: skip
    trusted = whole.is_trusted.tolist()
    yield {"share": 1.0, "figures": figures, "trusted": trusted, "summary": whole.summary()}


def put_on_trial(
    space: LatentSpace,
    index: int,
    *,
    num_samples: int = 4000,
    num_chains: int = 16,
    max_draws: int = 500,
    num_warmup: int = 300,
    num_temperatures: int = 100,
) -> Steps:
    """One posterior against chains, its evidence by two estimators, and the verdict.

    Args:
        space: Of the model and its data.
        index: Of the datapoint.
        num_samples: Of importance sampling.
        num_chains: Of Hamiltonian Monte Carlo and of annealing.
        max_draws: Of each chain, which ends as soon as they may be believed.
        num_warmup: Iterations before.
        num_temperatures: Of annealing.

    Returns:
        Steps with ``share``, ``stage`` and whatever is known by then: ``evidence``, a list of
        estimates, ``draws`` of the chains as columns, and ``verdict``.
    """
    x, programs = space.x[index : index + 1], (space.model.model, space.model.guide)
    seed = stream_seed(space.seed, f"explore/trial/{index}")
    known: dict[str, Any] = {"index": index, "evidence": []}
    yield {**known, "share": 0.0, "stage": "weighing the guide's draws"}
    weights = inference.importance_evidence(*programs, x, num_samples=num_samples, seed=seed)
    known["evidence"].append(_estimate("importance sampling", weights))
    yield {**known, "share": 0.05, "stage": "warming up the chains"}
    draws: Draws | None = None
    while draws is None or not (_converged(draws) or draws.unconstrained.shape[1] >= max_draws):
        draws = _longer(
            draws, programs, x, num_chains=num_chains, seed=seed, num_warmup=num_warmup,
            num_samples=_ITERATIONS_AT_ONCE,
        )  # fmt: skip
        done = draws.unconstrained.shape[1]
        known["draws"] = _sent(space.columns(space.vectors(draws.samples)[:, :, 0]).flatten(0, 1))
        share = 0.2 + 0.4 * done / max_draws
        yield {**known, "share": share, "stage": f"{done * num_chains:,} draws of the chains"}
    estimate: AISEvidence | None = None
    for estimate in _anneal(programs, x, num_chains, num_temperatures, seed):
        share = 0.6 + 0.35 * len(estimate.log_weights) / num_chains
        yield {**known, "share": share, "stage": "annealing"}
    if estimate is None:
        raise ValueError(f"num_chains: must be at least 1; got {num_chains}")
    known["evidence"].append(_estimate("annealing", estimate))
    yield {**known, "share": 0.95, "stage": "comparing"}
    trial = Trial(
        x.cpu(), draws,
        evaluation.posterior_errors(
            *programs, x, draws=draws, num_draws=_COMPARED, seed=seed
        ),
        np.atleast_1d(evaluation.rhat(draws)), np.atleast_1d(evaluation.ess_bulk(draws)),
        np.atleast_1d(evaluation.ess_tail(draws)), weights, None, None, None, None, {},
    )  # fmt: skip
    yield {**known, "share": 1.0, "stage": "done", "verdict": verdict(trial, estimate)}


def verdict(trial: Trial, annealing: AISEvidence) -> dict[str, Any]:
    """What may be believed of the guide at one datapoint.

    Args:
        trial: Of that datapoint alone.
        annealing: Its evidence by annealing.

    Returns:
        ``level``, one of ``"believe"``, ``"reweigh"``, ``"refuse"`` and ``"unknown"``; ``line``,
        a sentence of it; ``why``, sentences; and the figures they come from.
    """
    found, weights = trial.summary(), trial.weights
    differs, corrected = bool(trial.differs[0]), bool(trial.corrected[0])
    khat, p = float(trial.khat[0]), float(trial.errors.p_value[0])
    rhat, ess = float(trial.rhat[0]), float(min(trial.ess_bulk[0], trial.ess_tail[0]))
    figures = {"khat": khat, "rhat": rhat, "ess": ess, "p_value": p}
    chains = f"R̂ of the chains is {rhat:.3f}, with {ess:,.0f} effective draws."
    tail = _tail(weights)
    evidence = _agreement(weights, annealing)
    if not trial.judged[0]:
        line, level = "Not known: the chains did not converge here.", "unknown"
        wanted = f"R̂ at most {RHAT_LIMIT} and {ESS_LIMIT:.0f} effective draws are wanted."
        far = float(annealing.log_evidence[0] - weights.elbo[0]) - _LOOSE
        if far > _FAR:
            line = (
                f"Do not believe the guide here: it is {far:.1f} nats or more from the posterior."
            )
            level, chains = "refuse", f"Nor the chains, which did not converge. {chains}"
        why = [f"{chains} {wanted}", tail, evidence]
        return {"level": level, "line": line, "why": why, **figures}
    figures |= {"mean_error": found["mean_error_largest"], "scale_ratio": found["scale_ratio"]}
    ratio = found["scale_ratio"]
    off = (
        f"Its means are off by up to {found['mean_error_largest']:.2f} posterior standard "
        f"deviations, and its standard deviations are {abs(1 - ratio):.0%} too "
        f"{'small' if ratio < 1 else 'large'} on average (energy distance, p = {p:.2g})."
    )
    if not differs:
        alike = f"Its draws cannot be told from the chains' (energy distance, p = {p:.2g})."
        level = "believe" if corrected else "reweigh"
        line = (
            "Believe the guide here."
            if corrected
            else "Believe the guide's draws, but not evidence that is weighed with them."
        )
        return {"level": level, "line": line, "why": [alike, tail, evidence, chains], **figures}
    line = (
        "Believe the guide's draws with their weights, not as they are."
        if corrected
        else "Do not believe the guide here: take the chains."
    )
    level = "reweigh" if corrected else "refuse"
    return {"level": level, "line": line, "why": [off, tail, evidence, chains], **figures}


def _tail(weights: ImportanceEvidence) -> str:
    khat, limit = float(weights.khat[0]), khat_limit(weights.num_samples)
    upper = float(weights.khat_pooled[0])
    if not math.isfinite(khat):
        return "k̂ is not defined: importance sampling gives a lower bound and no more."
    if upper <= limit:
        return f"Importance weights correct it: k̂ is {khat:.2f}, at most {upper:.2f}."
    return (
        f"Importance weights do not correct it: k̂ is {khat:.2f}, or up to {upper:.2f} (wanted: "
        f"{limit:.2f}), so that their evidence is a lower bound."
    )


def _agreement(weights: ImportanceEvidence, annealing: AISEvidence) -> str:
    """How the two estimates of log p(x) lie, and whether annealing may be believed itself."""
    low, high = float(weights.log_evidence[0]), float(annealing.log_evidence[0])
    error = math.hypot(float(weights.standard_error[0]), float(annealing.standard_error[0]))
    gap = high - float(weights.elbo[0])
    above, said = high - low, f"Annealing finds log p(x) = {_signed(high)}"
    said += f", {_signed(gap)} nats above the guide's ELBO"
    where = f"{abs(above):.2f} nats {'above' if above > 0 else 'below'} importance sampling"
    if not bool(annealing.is_trusted[0]):
        return f"{said} and {where}; few of its chains carry it: it is a lower bound itself."
    if not bool(weights.is_trusted[0]):
        return f"{said} and {where}, both of which are bounds."
    if abs(above) <= _APART * error:
        return f"{said}; importance sampling {_signed(low)}, the same within their errors."
    return f"{said} and {where}, more than {_APART:.0f} of their standard errors."


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _estimate(name: str, evidence: Evidence) -> dict[str, Any]:
    found = {
        "estimator": name,
        "log_evidence": float(evidence.log_evidence[0]),
        "standard_error": float(evidence.standard_error[0]),
        "trusted": bool(evidence.is_trusted[0]),
    }
    if isinstance(evidence, ImportanceEvidence):
        found |= {"khat": float(evidence.khat[0]), "elbo": float(evidence.elbo[0])}
    return found


def _converged(draws: Draws) -> bool:
    """Whether a comparison with them means something, as :class:`~aevb.evaluation.Trial` says."""
    least = min(float(evaluation.ess_bulk(draws)[0]), float(evaluation.ess_tail(draws)[0]))
    return float(evaluation.rhat(draws)[0]) <= RHAT_LIMIT and least >= ESS_LIMIT


def _anneal(
    programs: Any, x: Tensor, num_chains: int, num_temperatures: int, seed: int
) -> Iterator[AISEvidence]:
    """The estimate of ever more chains, all by the step sizes of one pilot run."""
    at_once = min(_CHAINS_AT_ONCE, num_chains)
    settings = (at_once, num_temperatures, sigmoid_schedule, 10, 0.65, None)
    try:
        annealing = annealing_of(programs[0], programs[1], (x,), *settings, seed=seed)
    except NoDensityError:  # as of a planar flow, which scores its own draws alone
        annealing = annealing_of(programs[0], None, (x,), *settings, seed=seed)
    weights, rates = [], []
    for start in range(0, num_chains, at_once):
        part = stream_seed(seed, f"explore/anneal/{start}")
        with torch.no_grad(), randomness.stream(part, "ais", x.device):
            found, rate = annealing.forward()
        weights.append(found)
        rates.append(rate)
        yield annealed(annealing, torch.cat(weights), torch.stack(rates).mean(0), seed)


def _longer(
    draws: Draws | None,
    programs: Any,
    x: Tensor,
    *,
    num_samples: int,
    num_warmup: int,
    **rest: Any,
) -> Draws:
    """Chains, or the same chains after more iterations."""
    model, guide = programs
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "HMC:")  # told in the verdict
        more = inference.hmc(
            model, x, guide=guide, num_samples=num_samples,
            num_warmup=0 if draws else num_warmup, state=draws.state if draws else None, **rest,
        )  # fmt: skip
    if draws is None:
        return more
    earlier = draws

    def both(name: str) -> dict[str, Tensor]:
        first, then = getattr(earlier, name), getattr(more, name)
        return {key: torch.cat([first[key], then[key]], 1) for key in then}

    return replace(
        more, samples=both("samples"), stats=both("stats"), num_warmup=draws.num_warmup,
        unconstrained=torch.cat([draws.unconstrained, more.unconstrained], 1),
    )  # fmt: skip


def _sent(columns: Tensor) -> list[list[float]]:
    """As many rows as are drawn on the page, evenly over all."""
    places = torch.linspace(0, len(columns) - 1, min(_SENT, len(columns))).long()
    rows: list[list[float]] = columns[places].double().cpu().numpy().round(4).tolist()
    return rows
