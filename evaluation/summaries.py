"""Evidence of a set of datapoints as figures that can be published."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import OptimizeWarning, curve_fit
from torch import Tensor

from aevb.data.seeds import stream_seed
from aevb.evaluation.arviz import ess_bulk, rhat
from aevb.evaluation.limits import ESS_LIMIT, KHAT_LIMIT, RHAT_LIMIT
from aevb.evaluation.trial.verdict import counted
from aevb.inference import (
    AISEvidence,
    BDMCEvidence,
    HMCEvidence,
    ImportanceEvidence,
    importance_evidence,
)

__all__ = ["importance_curve", "summarize"]

# Mean gap of bidirectional Monte Carlo, in nats, above which its bounds certify nothing.
_GAP_LIMIT = 1.0
# Part of the datapoints that may fail their diagnostic in a result that is called converged.
_FAILING = 0.05
# Of 1/K in the bias of the bound; at either end the data have not determined it.
_EXPONENTS = (0.05, 2.0)
# Estimates of which the bound at a small number of samples is the mean.
_REPLICATES = 20

Evidence = ImportanceEvidence | AISEvidence | BDMCEvidence | HMCEvidence


def summarize(evidence: Evidence) -> dict[str, Any]:
    r"""Means over datapoints, with their errors and with what speaks against them.

    Two errors are kept apart. ``monte_carlo_error`` is the noise of the estimator for just these
    datapoints; ``standard_error`` is that of the mean as an estimate for the population that they
    were drawn from, sd/√N, and contains the former.

    Args:
        evidence: Estimates for N datapoints, of any estimator.

    Returns:
        JSON-able values, in nats per datapoint: ``log_evidence``, ``standard_error``,
        ``monte_carlo_error``, ``num_datapoints``; ``converged``, whether at most one datapoint in
        twenty fails the estimator's own diagnostic, and ``why_not_converged`` if it is not; and by
        estimator

        - importance sampling: ``elbo``, ``elbo_standard_error``, ``num_samples``, ``seed``,
          ``khat_above_0.7`` (number of datapoints), ``khat_median``, ``ess_median``; with fewer
          than 25 samples k̂ is not defined, and nothing is converged;
        - annealing: ``num_chains``, ``num_temperatures``, ``schedule``, ``start``, ``seed``,
          ``ess_median``, ``low_ess`` (number of datapoints), ``acceptance_rate``;
        - bidirectional: ``lower``, ``upper``, ``gap``, ``gap_standard_error`` and ``gap_largest``
          of simulated data. The reverse chains of a datapoint all start from one exact draw and
          are not independent, so that their own diagnostics mean nothing: converged are bounds
          whose forward chains are, and whose mean gap is at most one nat, give or take two of its
          standard errors;
        - posterior draws: ``num_chains``, ``num_samples``, ``suspicious`` (number of datapoints),
          ``rhat_worst`` and ``ess_bulk_least``; a datapoint fails where R̂ is above 1.01, fewer
          than 400 draws are effective, or the chains are suspicious.

        None where a value is not defined, as k̂ is below 25 samples.

    Example:
        >>> import torch
        >>> from aevb import inference, models
        >>> fa, x = models.FactorAnalysis((5,), 2), torch.zeros(4, 5)
        >>> evidence = inference.importance_evidence(fa.model, fa.guide, x, num_samples=50)
        >>> summarize(evidence)["num_datapoints"]
        4
    """
    if isinstance(evidence, BDMCEvidence):
        return _bidirectional(evidence)
    count = len(evidence.log_evidence)
    figures: dict[str, Any] = {
        "log_evidence": _number(evidence.log_evidence.mean()),
        "standard_error": _error_of_mean(evidence.log_evidence),
        "monte_carlo_error": _number(evidence.standard_error.square().sum().sqrt() / count),
        "num_datapoints": count,
    }
    if isinstance(evidence, ImportanceEvidence):
        return figures | _importance(evidence)
    if isinstance(evidence, AISEvidence):
        return figures | _annealed(evidence) | _annealing_verdict(evidence)
    return figures | _posterior_draws(evidence)


def importance_curve(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    num_samples: int = 4096,
    seed: int = 0,
) -> dict[str, Any]:
    r"""The importance-sampling bound against its number of samples K, and where it points.

    .. math:: \mathcal{L}_K \approx a - b K^{-c}

    is fitted to the means over datapoints from K = 4 on. Its limit is an extrapolation, and no
    bound. It is given only where the curve has bent so far that it can be read off: the exponent
    is within its bounds, 0.05 and 2, and the limit's standard error, by the fit's covariance, is
    no larger than its distance from the last bound or than that bound's own error.

    References:
        Importance Weighting and Variational Inference (Domke & Sheldon, 2018), section 4,
        https://arxiv.org/abs/1808.09034

    Args:
        model: Pyro program of the joint distribution.
        guide: Pyro program of the proposal.
        args: Arguments of both.
        num_samples: Largest K; K doubles from 1.
        seed: Of the draws, which are others for each K; small K are repeated and averaged.

    Returns:
        ``num_samples`` and ``bound`` with ``monte_carlo_error``, lists over K, None where an error
        is not defined; ``limit`` with ``limit_error``, None where it cannot be read off;
        ``exponent``, c, None if no curve fits.

    Example:
        >>> from aevb.models import VAE
        >>> vae = VAE((8, 8), latent_dim=3)
        >>> importance_curve(vae.model, vae.guide, torch.zeros(5, 8, 8), num_samples=8)[
        ...     "num_samples"
        ... ]
        [1, 2, 4, 8]
    """
    counts = [2**power for power in range(int(math.log2(num_samples)) + 1)]
    bounds: list[float | None] = []
    errors: list[float | None] = []
    for count in counts:
        runs = [
            importance_evidence(
                model,
                guide,
                *args,
                num_samples=count,
                seed=stream_seed(seed, f"curve/{count}/{number}"),
            )
            for number in range(max(1, min(_REPLICATES, num_samples // count)))
        ]
        means = torch.stack([run.log_evidence.mean() for run in runs])
        bounds.append(_number(means.mean()))
        if len(runs) > 2:
            errors.append(_number(means.std() / math.sqrt(len(runs))))
        else:  # NaN for a single draw, whose error nothing tells
            own = runs[0].standard_error.square().sum().sqrt()
            errors.append(_number(own / len(runs[0].log_evidence)))
    return {
        "num_samples": counts,
        "bound": bounds,
        "monte_carlo_error": errors,
        **_extrapolated(counts, bounds, errors),
        "seed": seed,
    }


def _extrapolated(
    counts: list[int], bounds: list[float | None], errors: list[float | None]
) -> dict[str, Any]:
    """Limit of a power law through the bounds, its error, and the exponent."""
    nothing = {"limit": None, "limit_error": None, "exponent": None}
    known = [
        (count, bound, error)
        for count, bound, error in zip(counts, bounds, errors, strict=True)
        if count >= 4 and bound is not None and error is not None
    ]
    if len(known) < 4:
        return nothing
    k, y, noise = np.array(known, dtype=float).T
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # of a covariance that is infinite
            fitted, covariance = curve_fit(
                lambda k, a, b, c: a - b * k ** (-c),
                k,
                y,
                p0=(y[-1], max(y[-1] - y[0], 1e-3), 0.5),
                sigma=noise.clip(min=1e-9),
                absolute_sigma=True,
                bounds=([-np.inf, 0.0, _EXPONENTS[0]], [np.inf, np.inf, _EXPONENTS[1]]),
            )
    except RuntimeError:  # no curve of this form
        return nothing
    limit, exponent, error = float(fitted[0]), float(fitted[2]), float(covariance[0, 0] ** 0.5)
    # the optimizer stays a little within the bounds
    at_a_bound = bool(np.isclose(exponent, _EXPONENTS, rtol=0.01).any())
    if at_a_bound or not error <= max(limit - y[-1], noise[-1]):
        return {**nothing, "exponent": exponent}
    return {"limit": limit, "limit_error": error, "exponent": exponent}


def _importance(evidence: ImportanceEvidence) -> dict[str, Any]:
    khat = evidence.khat
    undefined = torch.isnan(khat)
    above, count = int((khat > KHAT_LIMIT).sum()), len(khat)
    # not k̂ > 0.7: of NaN that is false
    why = f"k̂ is above {KHAT_LIMIT} at {above} of {counted(count, 'datapoint')}"
    if bool(undefined.any()):
        why = "k̂ is not defined below 25 samples"
    return {
        "elbo": _number(evidence.elbo.mean()),
        "elbo_standard_error": _error_of_mean(evidence.elbo),
        "num_samples": evidence.num_samples,
        "seed": evidence.seed,
        "khat_above_0.7": None if bool(undefined.any()) else above,
        "khat_median": _number(khat.median()),
        "ess_median": _number(evidence.ess.median()),
        **_converged(~(khat <= KHAT_LIMIT), why),
    }


def _annealed(evidence: AISEvidence) -> dict[str, Any]:
    return {
        "num_chains": evidence.num_chains,
        "num_temperatures": evidence.num_temperatures,
        "schedule": evidence.schedule,
        "start": evidence.start,
        "seed": evidence.seed,
        "ess_median": _number(evidence.ess.median()),
        "low_ess": int(evidence.low_ess.sum()),
        "acceptance_rate": _number(evidence.acceptance_rate.mean()),
    }


def _annealing_verdict(evidence: AISEvidence) -> dict[str, Any]:
    few, count = int(evidence.low_ess.sum()), len(evidence.ess)
    why = f"few chains carry the estimate at {few} of {counted(count, 'datapoint')}"
    refused = int((~evidence.low_ess & ~evidence.is_converged).sum())
    if refused:
        why += f", and few proposals are accepted at {refused} others"
    return _converged(~evidence.is_converged, why)


def _bidirectional(evidence: BDMCEvidence) -> dict[str, Any]:
    gap, error = _number(evidence.gap.mean()), _error_of_mean(evidence.gap)
    verdict = _annealing_verdict(evidence.forward)
    if verdict["converged"] and (gap is None or gap > _GAP_LIMIT + 2 * (error or 0.0)):
        wide = "not finite" if gap is None else f"{gap:.2f} nats"
        verdict = _verdict(False, f"the mean gap between the bounds is {wide}")
    return {
        "lower": _number(evidence.lower.mean()),
        "upper": _number(evidence.upper.mean()),
        "gap": gap,
        "gap_standard_error": error,
        "gap_largest": _number(evidence.gap.max()),
        "num_datapoints": len(evidence.gap),
        **_annealed(evidence.forward),
        **verdict,
    }


def _posterior_draws(evidence: HMCEvidence) -> dict[str, Any]:
    draws = evidence.draws
    largest, least = (torch.from_numpy(np.atleast_1d(f(draws))) for f in (rhat, ess_bulk))
    suspicious = draws.suspicious.cpu()
    # NaN, as R̂ of a single chain is, is neither
    failed = ~((largest <= RHAT_LIMIT) & (least >= ESS_LIMIT)) | suspicious
    why = (
        f"at {int(failed.sum())} of {counted(len(failed), 'datapoint')} R̂ is above {RHAT_LIMIT} "
        f"or undefined, fewer than {ESS_LIMIT:.0f} draws are effective, or chains are suspicious"
    )
    return {
        "num_chains": len(draws.unconstrained),
        "num_samples": draws.unconstrained.shape[1],
        "seed": draws.seed,
        "suspicious": int(suspicious.sum()),
        "rhat_worst": _number(largest.max()),
        "ess_bulk_least": _number(least.min()),
        **_converged(failed, why),
    }


def _converged(failed: Tensor, why: str) -> dict[str, Any]:
    return _verdict(bool(failed.double().mean() <= _FAILING), why)


def _verdict(converged: bool, why: str) -> dict[str, Any]:
    return {"converged": converged, **({} if converged else {"why_not_converged": why})}


def _error_of_mean(values: Tensor) -> float | None:
    if len(values) < 2:
        return None
    return _number(values.std() / math.sqrt(len(values)))


def _number(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
