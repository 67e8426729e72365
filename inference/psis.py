"""Pareto k̂ of importance weights, through whichever ArviZ line is installed."""

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["pareto_khat"]

# PSIS fits a generalized Pareto distribution to the largest min(S/5, 3√S) weights and needs five.
_FEWEST_SAMPLES = 25


def pareto_khat(log_weights: Tensor) -> NDArray[np.float64]:
    r"""Shape of the upper tail of importance weights: above 0.7 their mean is not to be trusted.

    References:
        Pareto Smoothed Importance Sampling (Vehtari, Simpson, Gelman, Yao & Gabry, 2024),
        https://arxiv.org/abs/1507.02646

    Args:
        log_weights: ``(num_samples, *batch)``, in nats.

    Returns:
        ``(*batch,)``; 0 where all weights are equal, infinite where all are zero or too few are
        not, NaN below 25 samples.

    Example:
        >>> import torch
        >>> pareto_khat(torch.zeros(100, 3))
        array([0., 0., 0.])
    """
    samples = log_weights.double().cpu().numpy()
    columns = samples.reshape(len(samples), -1)
    khat = np.full(columns.shape[1], np.nan)
    if len(samples) >= _FEWEST_SAMPLES:
        largest, smallest = columns.max(axis=0), columns.min(axis=0)
        # equal up to the rounding of float64: there is no tail to fit
        with np.errstate(invalid="ignore"):  # −inf − (−inf), where every weight is zero
            equal = largest - smallest <= 1e-9 * np.maximum(1.0, np.abs(largest))
        khat[equal] = 0.0
        # zero weights inside the tail leave nothing to fit it to
        tail = min(len(samples) / 5, 3 * len(samples) ** 0.5)
        varied = ~equal & (np.isfinite(columns).sum(axis=0) > tail)
        khat[~equal & ~varied] = np.inf
        fit = _fitter()
        # the fit's grid computes 1 / exp(large), rightly 0
        with np.errstate(over="ignore"):
            for column in np.flatnonzero(varied):
                khat[column] = fit(np.ascontiguousarray(columns[:, column]))
    return khat.reshape(samples.shape[1:])


def _fitter() -> Callable[[NDArray[np.float64]], float]:
    """PSIS of one vector of log-weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ 0.x announces its refactoring at import
        try:
            from arviz import psislw
        except ImportError:
            return _arviz_1
    return lambda weights: float(psislw(weights)[1])


def _arviz_1(weights: NDArray[np.float64]) -> float:
    from arviz_stats.base.array import array_stats

    # ArviZ 1.x takes log-likelihoods and negates them to get the weights.
    return float(array_stats.psislw(-weights)[1])
