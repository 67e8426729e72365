"""Pareto k̂ of importance weights, of every column at once."""

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["KHAT_LIMIT", "pareto_khat"]

# Vehtari et al. (2024), section 3.2.4: above it the sample size needed is impractical.
KHAT_LIMIT = 0.7
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
    r"""Shape of the upper tail of importance weights: above 0.7 their mean is not to be trusted.

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
        num_tail = math.ceil(min(len(samples) / 5, 3 * len(samples) ** 0.5))
        at_once = max(1, _NUMBERS_AT_ONCE // len(samples))
        for start in range(0, len(columns), at_once):
            block = slice(start, start + at_once)
            khat[block] = _of_rows(columns[block], num_tail)
    return khat.reshape(samples.shape[1:])


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
