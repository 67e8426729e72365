"""Evidence of a set of datapoints as figures that can be published."""

import math
from typing import Any

import torch
from torch import Tensor

from aevb.inference import ImportanceEvidence

__all__ = ["summarize"]

# Vehtari et al. (2024), section 3.2.4: above 0.7 the sample size needed is impractical.
_KHAT_LIMIT = 0.7


def summarize(evidence: ImportanceEvidence) -> dict[str, Any]:
    r"""Means over datapoints, with their errors and with what speaks against them.

    Two errors are kept apart. ``monte_carlo_error`` is the noise of the estimator for just these
    datapoints; ``standard_error`` is that of the mean as an estimate for the population that they
    were drawn from, sd/√N, and contains the former.

    Args:
        evidence: Estimates for N datapoints.

    Returns:
        JSON-able values, in nats per datapoint: ``elbo``, ``elbo_standard_error``,
        ``log_evidence``, ``standard_error``, ``monte_carlo_error``, ``num_datapoints``,
        ``num_samples``, ``seed``, ``khat_above_0.7`` (number of datapoints), ``khat_median``,
        ``ess_median``; None where a value is not defined, as k̂ is below 25 samples.

    Example:
        >>> import torch
        >>> from aevb import inference, models
        >>> fa, x = models.FactorAnalysis((5,), 2), torch.zeros(4, 5)
        >>> evidence = inference.importance_evidence(fa.model, fa.guide, x, num_samples=50)
        >>> summarize(evidence)["num_datapoints"]
        4
    """
    count = len(evidence.log_evidence)
    unknown = bool(torch.isnan(evidence.khat).any())
    return {
        "elbo": _number(evidence.elbo.mean()),
        "elbo_standard_error": _error_of_mean(evidence.elbo),
        "log_evidence": _number(evidence.log_evidence.mean()),
        "standard_error": _error_of_mean(evidence.log_evidence),
        "monte_carlo_error": _number(evidence.standard_error.square().sum().sqrt() / count),
        "num_datapoints": count,
        "num_samples": evidence.num_samples,
        "seed": evidence.seed,
        "khat_above_0.7": None if unknown else int((evidence.khat > _KHAT_LIMIT).sum()),
        "khat_median": _number(evidence.khat.median()),
        "ess_median": _number(evidence.ess.median()),
    }


def _error_of_mean(values: Tensor) -> float | None:
    if len(values) < 2:
        return None
    return _number(values.std() / math.sqrt(len(values)))


def _number(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
