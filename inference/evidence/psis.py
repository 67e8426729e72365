"""Pareto k̂ of importance weights, of every column at once."""

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["khat_limit", "pareto_khat", "pooled_khat"]

# Up to it two standard errors cover log p(x) at nine datapoints in ten, as measured on normal
# posteriors of 1 to 50 dimensions; above 1/2 the weights have no variance for an error to tell.
_TRUSTED = 0.45
# Of few draws less is asked for; Vehtari et al. (2024) have 1 in its place, for weaker a demand.
_DRAWS_NEEDED = 1.2
# Measured over the asymptotic error of the fit, which of few in the tail is too small; where it
# is, noise passes for differences between datapoints.
_EXCESS = 1.15
_ONE_SIDED = 1.645  # normal quantile of 95 %
# The fit needs five weights, and a fifth of the samples is the tail.
_FEWEST_SAMPLES = 25
_FEWEST_IN_TAIL = 5
_NUMBERS_AT_ONCE = 2**21
# Zhang & Stephens (2009): spread of the prior of the scale; Vehtari et al. (2024), appendix G:
# so many observations' worth of k = 1/2.
_SCALE_PRIOR = 3
_SHAPE_PRIOR = 10

Array = NDArray[np.float64]


def pareto_khat(log_weights: Tensor) -> Array:
    r"""Shape of the upper tail of importance weights: the larger, the less their mean is worth.

    Above 1/2 their variance, and above 1 their mean, does not exist. Of 1,000 draws the value is
    uncertain by 0.15, and comes out low just where the tail was missed: see :func:`pooled_khat`.

    The tail is that of loo and of ArviZ 0.x, the weights above the largest of the others than the
    :math:`\lceil \min(S / 5, 3 \sqrt S) \rceil` largest. It does not depend on the ArviZ that is
    installed: the lines 0.x and 1.x differ in the number of weights in the tail, and in what they
    make of equal ones.

    References:
        Pareto Smoothed Importance Sampling (Vehtari, Simpson, Gelman, Yao & Gabry, 2024),
        https://arxiv.org/abs/1507.02646; A New and Efficient Estimation Method for the Generalized
        Pareto Distribution (Zhang & Stephens, 2009), https://doi.org/10.1198/tech.2009.08017

    Args:
        log_weights: ``(num_samples, *batch)``, in nats.

    Returns:
        ``(*batch,)``; 0 where all weights are equal; infinite where there is no tail to fit:
        fewer than five weights in it, or all of them equal, or so many zero weights that some are
        in it; NaN below 25 samples, and where a weight is NaN or infinite.

    Example:
        >>> import torch
        >>> pareto_khat(torch.zeros(100, 3))
        array([0., 0., 0.])
    """
    samples = log_weights.double().cpu().numpy()
    columns = samples.reshape(len(samples), -1).T
    khat = np.full(len(columns), np.nan)
    if len(samples) >= _FEWEST_SAMPLES:
        num_tail = _num_tail(len(samples))
        at_once = max(1, _NUMBERS_AT_ONCE // len(samples))
        for start in range(0, len(columns), at_once):
            block = slice(start, start + at_once)
            khat[block] = _of_rows(columns[block], num_tail)
    return khat.reshape(samples.shape[1:])


def pooled_khat(khat: Array, num_samples: int) -> Array:
    r"""Upper limits of the shapes of many datapoints' weights, each in view of all.

    A single k̂ passes most easily where the draws missed the tail, which is where the estimate is
    too low: what passes is selected for its error. Datapoints of one guide have tails much alike,
    so that the shapes are taken as draws from a normal distribution whose mean and variance all of
    them tell (empirical Bayes), and the limit is the one-sided 95 % one of each posterior.

    .. math:: \hat k_i \sim N(k_i, s^2), \quad k_i \sim N(m, \tau^2), \quad
        s = 1.15\, \frac{(1 + m) \sqrt M}{M + 10}

    with M weights in the tail, and s the error of the fit under its prior. A datapoint that is
    unlike the others keeps its own: no limit is more than s below what was fitted to it.

    References:
        Pareto Smoothed Importance Sampling (Vehtari, Simpson, Gelman, Yao & Gabry, 2024), appendix
        G (the prior); Stein's Estimation Rule and Its Competitors: An Empirical Bayes Approach
        (Efron & Morris, 1973), https://doi.org/10.1080/01621459.1973.10481350; Limiting the Risk
        of Bayes and Empirical Bayes Estimators, Part II (Efron & Morris, 1972),
        https://doi.org/10.1080/01621459.1972.10481215 (how far others may pull)

    Args:
        khat: Of each datapoint, ``(B,)``, all of the same number of draws.
        num_samples: Of each.

    Returns:
        ``(B,)``, where negative ones count as 0; where k̂ is infinite or NaN, as it is.

    Example:
        >>> alike = np.random.default_rng(0).normal(0.9, 0.15, 500)
        >>> bool((alike < 0.7).any()), bool((pooled_khat(alike, 1000) < 0.7).any())
        (True, False)
        >>> odd = np.append(np.full(99, 0.1), 0.8)  # an image that the guide does not know
        >>> (
        ...     bool((pooled_khat(odd, 1000)[:-1] < 0.45).all()),
        ...     bool(pooled_khat(odd, 1000)[-1] < 0.45),
        ... )
        (True, False)
    """
    limits = khat.copy()
    known = np.isfinite(limits)
    found = np.maximum(limits[known], 0.0)  # below, weights are bounded, and by how much is idle
    if not len(found):
        return limits
    num_tail = _num_tail(num_samples)
    mean = found.mean()
    error = _EXCESS * (1 + mean) * num_tail**0.5 / (num_tail + _SHAPE_PRIOR)
    between = max(0.0, found.var(ddof=1) - error**2) if len(found) > 1 else np.inf
    own = 1.0 if between == np.inf else between / (between + error**2)  # weight of each one's own
    variance = own * error**2 + (1 - own) ** 2 * (between + error**2 if own < 1 else 0) / len(
        found
    )
    pooled = mean + own * (found - mean) + _ONE_SIDED * variance**0.5
    limits[known] = np.maximum(pooled, found - error)
    return limits


def khat_limit(num_samples: int) -> float:
    """Up to which :func:`pooled_khat` the estimate and its standard error are to be trusted.

    Example:
        >>> khat_limit(1000), round(khat_limit(100), 2)
        (0.45, 0.4)
    """
    return min(_TRUSTED, 1 - _DRAWS_NEEDED / math.log10(max(num_samples, 2)))


def _num_tail(num_samples: int) -> int:
    return math.ceil(min(num_samples / 5, 3 * num_samples**0.5))


def _of_rows(rows: Array, num_tail: int) -> Array:
    largest, smallest = rows.max(1), rows.min(1)  # NaN where one is
    known = largest < np.inf
    khat = np.where(known, np.inf, np.nan)
    enough = np.isfinite(rows).sum(1) > num_tail  # zero weights are not in the tail
    ordered = np.partition(rows[enough & known], -num_tail - 1, axis=1)[:, -num_tail - 1 :]
    ordered.sort(1)
    ordered -= ordered[:, -1:]
    # exponentials below it would be 0
    cutoff = np.maximum(ordered[:, :1], np.log(np.finfo(float).tiny))
    exceeding = np.exp(ordered[:, 1:]) - np.exp(cutoff)
    counts = (ordered[:, 1:] > cutoff).sum(1)
    fitted = np.full(len(ordered), np.inf)
    rounding = 1e-9 * np.maximum(1.0, np.abs(largest[enough & known]))
    for count in np.unique(counts[counts >= _FEWEST_IN_TAIL]):
        varied = -ordered[:, -count] > rounding  # from the least in the tail to the largest
        chosen = (counts == count) & varied
        fitted[chosen] = _generalized_pareto_shape(exceeding[chosen, -count:])
    khat[enough & known] = np.where(np.isnan(fitted), np.inf, fitted)
    # up to the rounding of float64; zero weights alone are equal too, and no estimate
    with np.errstate(invalid="ignore"):
        equal = largest - smallest <= 1e-9 * np.maximum(1.0, np.abs(largest))
    khat[equal & known] = 0.0
    return khat


def _generalized_pareto_shape(values: Array) -> Array:
    """Mean of the posterior of the shape, of rows in ascending order.

    The scale divided by the shape is integrated over on a grid, after Zhang & Stephens (2009).
    """
    num = values.shape[1]
    grid = 30 + int(num**0.5)
    quartile = values[:, int(num / 4 + 0.5) - 1, None]
    spread = 1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))
    # of heavy tails the quartile may be 0, and all that follows NaN
    with np.errstate(all="ignore"):
        candidates = spread / (_SCALE_PRIOR * quartile) + 1 / values[:, -1:]
        shapes = _mean_log(candidates, values)
        log_likelihood = num * (np.log(-candidates / shapes) - shapes - 1)
        weights = np.exp(log_likelihood - log_likelihood.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        weights[weights < 10 * np.finfo(float).eps] = 0.0
        weights /= weights.sum(1, keepdims=True)
        shape = _mean_log((candidates * weights).sum(1, keepdims=True), values)[:, 0]
    return (num * shape + _SHAPE_PRIOR * 0.5) / (num + _SHAPE_PRIOR)


def _mean_log(candidates: Array, values: Array) -> Array:
    """Mean over values of log(1 − candidate × value), ``(rows, candidates)``."""
    found = np.empty_like(candidates)
    for place, candidate in enumerate(candidates.T):  # at once it would be large
        found[:, place] = np.log1p(-candidate[:, None] * values).mean(1)
    return found
