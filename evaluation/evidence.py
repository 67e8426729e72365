"""Evidence of a set of datapoints as figures that can be published."""

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from scipy.optimize import curve_fit
from torch import Tensor

from aevb.inference import (
    AISEvidence,
    BDMCEvidence,
    HMCEvidence,
    ImportanceEvidence,
    importance_evidence,
)

__all__ = ["importance_curve", "summarize"]

# Vehtari et al. (2024), section 3.2.4: above 0.7 the sample size needed is impractical.
_KHAT_LIMIT = 0.7
# Part of the datapoints that may fail their diagnostic in a result that is called converged.
_FAILING = 0.05
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
        twenty fails the estimator's own diagnostic; and by estimator

        - importance sampling: ``elbo``, ``elbo_standard_error``, ``num_samples``, ``seed``,
          ``khat_above_0.7`` (number of datapoints), ``khat_median``, ``ess_median``;
        - annealing: ``num_chains``, ``num_temperatures``, ``schedule``, ``start``, ``seed``,
          ``ess_median``, ``low_ess`` (number of datapoints), ``acceptance_rate``;
        - bidirectional: ``lower``, ``upper``, ``gap``, ``gap_standard_error`` and ``gap_largest``
          of simulated data;
        - posterior draws: ``num_chains``, ``num_samples``, ``suspicious`` (number of datapoints).

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
        return figures | _importance(evidence) | _converged(evidence.khat > _KHAT_LIMIT)
    if isinstance(evidence, AISEvidence):
        return figures | _annealed(evidence) | _converged(~evidence.is_converged)
    failed = evidence.draws.suspicious.cpu()
    return {
        **figures,
        "num_chains": len(evidence.draws.unconstrained),
        "num_samples": evidence.draws.unconstrained.shape[1],
        "seed": evidence.draws.seed,
        "suspicious": int(failed.sum()),
        **_converged(failed),
    }


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
    bound.

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
        ``num_samples`` and ``bound`` with ``monte_carlo_error``, lists over K; ``limit``, None if
        no curve fits; ``exponent``, c.

    Example:
        >>> from aevb.models import VAE
        >>> vae = VAE((8, 8), latent_dim=3)
        >>> importance_curve(vae.model, vae.guide, torch.zeros(5, 8, 8), num_samples=8)[
        ...     "num_samples"
        ... ]
        [1, 2, 4, 8]
    """
    counts = [2**power for power in range(int(math.log2(num_samples)) + 1)]
    bounds, errors = [], []
    for count in counts:
        runs = [
            importance_evidence(
                model, guide, *args, num_samples=count, seed=seed + 100 * count + number
            )
            for number in range(max(1, min(_REPLICATES, num_samples // count)))
        ]
        means = torch.stack([run.log_evidence.mean() for run in runs])
        bounds.append(float(means.mean()))
        own = runs[0].standard_error.nan_to_num().square().sum().sqrt()
        alone = float(own) / len(runs[0].log_evidence)
        errors.append(float(means.std()) / math.sqrt(len(runs)) if len(runs) > 2 else alone)
    limit = exponent = None
    if len(counts) >= 6:
        start = (bounds[-1], max(bounds[-1] - bounds[2], 1e-3), 0.5)
        with suppress(RuntimeError):  # no curve of this form
            fitted, _ = curve_fit(
                lambda k, a, b, c: a - b * k ** (-c),
                np.array(counts[2:], dtype=float),
                np.array(bounds[2:]),
                p0=start,
                sigma=np.array(errors[2:]).clip(min=1e-9),
                bounds=([-np.inf, 0.0, 0.05], [np.inf, np.inf, 2.0]),
            )
            limit, exponent = float(fitted[0]), float(fitted[2])
    return {
        "num_samples": counts,
        "bound": bounds,
        "monte_carlo_error": errors,
        "limit": limit,
        "exponent": exponent,
        "seed": seed,
    }


def _importance(evidence: ImportanceEvidence) -> dict[str, Any]:
    unknown = bool(torch.isnan(evidence.khat).any())
    return {
        "elbo": _number(evidence.elbo.mean()),
        "elbo_standard_error": _error_of_mean(evidence.elbo),
        "num_samples": evidence.num_samples,
        "seed": evidence.seed,
        "khat_above_0.7": None if unknown else int((evidence.khat > _KHAT_LIMIT).sum()),
        "khat_median": _number(evidence.khat.median()),
        "ess_median": _number(evidence.ess.median()),
    }


def _annealed(evidence: AISEvidence) -> dict[str, Any]:
    return {
        "num_chains": evidence.num_chains,
        "num_temperatures": evidence.num_temperatures,
        "schedule": evidence.schedule,
        "start": evidence.start,
        "seed": evidence.seed,
        "ess_median": _number(evidence.ess.median()),
        "low_ess": int((evidence.ess <= 0.2 * evidence.num_chains).sum()),
        "acceptance_rate": _number(evidence.acceptance_rate.mean()),
    }


def _bidirectional(evidence: BDMCEvidence) -> dict[str, Any]:
    return {
        "lower": _number(evidence.lower.mean()),
        "upper": _number(evidence.upper.mean()),
        "gap": _number(evidence.gap.mean()),
        "gap_standard_error": _error_of_mean(evidence.gap),
        "gap_largest": _number(evidence.gap.max()),
        "num_datapoints": len(evidence.gap),
        **_annealed(evidence.forward),
        **_converged(~(evidence.forward.is_converged & evidence.reverse.is_converged)),
    }


def _converged(failed: Tensor) -> dict[str, Any]:
    return {"converged": bool(failed.double().mean() <= _FAILING)}


def _error_of_mean(values: Tensor) -> float | None:
    if len(values) < 2:
        return None
    return _number(values.std() / math.sqrt(len(values)))


def _number(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
