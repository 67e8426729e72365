"""Evidence of a set of datapoints as figures that can be published."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import OptimizeWarning, curve_fit

from aevb.data.seeds import fresh_if_none, stream_seed
from aevb.inference import Evidence, importance_evidence
from aevb.inference.evidence.estimate import number

__all__ = ["importance_curve", "summarize"]

# Of 1/K in the bias of the bound; at either end the data have not determined it.
_EXPONENTS = (0.05, 2.0)
# Estimates of which the bound at a small number of samples is the mean.
_REPLICATES = 20


def summarize(evidence: Evidence) -> dict[str, Any]:
    """Means over datapoints, with their errors and with what speaks against them.

    Args:
        evidence: Estimates for N datapoints, of any estimator.

    Returns:
        ``evidence.summary()``: JSON-able values, in nats per datapoint; see there.

    Example:
        >>> import torch
        >>> from aevb import inference, models
        >>> fa, x = models.FactorAnalysis((5,), 2), torch.zeros(4, 5)
        >>> evidence = inference.importance_evidence(fa.model, fa.guide, x, num_samples=50)
        >>> summarize(evidence)["num_datapoints"]
        4
    """
    return evidence.summary()


def importance_curve(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    num_samples: int = 4096,
    seed: int | None = 0,
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
    seed = fresh_if_none(seed)
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
        bounds.append(number(means.mean()))
        if len(runs) > 2:
            errors.append(number(means.std() / math.sqrt(len(runs))))
        else:  # NaN for a single draw, whose error nothing tells
            own = runs[0].standard_error.square().sum().sqrt()
            errors.append(number(own / len(runs[0].log_evidence)))
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
