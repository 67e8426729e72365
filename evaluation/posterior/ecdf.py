"""Are ranks uniform? Exact simultaneous bands of their empirical distribution function."""

import sys
from functools import lru_cache

import numpy as np
import torch
from scipy.special import gammaln
from scipy.stats import binom
from torch import Tensor

__all__ = ["simultaneous_band", "simultaneous_p_value"]

# 1 − P loses its digits below this; Bonferroni's bound on the p-value is then as good.
_LEAST_LEVEL = 1e-10


def simultaneous_band(num_ranks: int, num_levels: int, coverage: float = 0.95) -> Tensor:
    r"""Counts that uniform ranks keep to at every level at once.

    With :math:`C_i` the number of N ranks below i, binomial with probability
    :math:`z_i = i / (L + 1)`, the band at level γ is where :math:`2 \min(P(C_i \le c), P(C_i \ge
    c)) > \gamma`, and γ is the largest with the coverage asked for. Since the counts are a Markov
    chain, the coverage is computed without simulation.

    References:
        Graphical test for discrete uniformity and its applications in goodness-of-fit evaluation
        and multiple sample comparison (Säilynoja, Bürkner & Vehtari, 2022), section 2,
        https://arxiv.org/abs/2103.10522

    Args:
        num_ranks: N.
        num_levels: L, for ranks from 0 to L.
        coverage: Probability that all L counts lie in the band, at least.

    Returns:
        Lowest and highest count at each level, both inside, ``(2, L)``.

    Raises:
        ValueError: If the coverage does not lie between 0 and 1.

    Example:
        >>> simultaneous_band(100, 3)
        tensor([[15., 39., 65.],
                [35., 61., 85.]], dtype=torch.float64)
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage: must lie between 0 and 1; got {coverage}")
    tails = _tails(num_ranks, num_levels)
    low, high = np.log((1 - coverage) / num_levels), np.log(1 - coverage)
    for _ in range(25):
        middle = (low + high) / 2
        inside = _probability_inside(*_interval(tails, np.exp(middle)), num_ranks)
        low, high = (middle, high) if inside >= coverage else (low, middle)
    return torch.from_numpy(np.stack(_interval(tails, np.exp(low))).astype(np.float64))


def simultaneous_p_value(counts: Tensor, num_ranks: int) -> float:
    r"""Probability that uniform ranks stray at one level as far as these do at their worst.

    Args:
        counts: Of ranks below 1, 2, ..., L, ``(L,)``.
        num_ranks: N.

    Returns:
        Exact down to about 1e-9; below that, an upper bound at most L times too large.

    Example:
        >>> simultaneous_p_value(torch.tensor([25, 50, 75]), 100)
        1.0
        >>> round(simultaneous_p_value(torch.tensor([14, 50, 75]), 100), 4)
        0.0254
    """
    tails = _tails(num_ranks, len(counts))
    level = float(tails[np.arange(len(counts)), counts.long().cpu().numpy()].min())
    bound = max(min(1.0, level * len(counts)), sys.float_info.min)  # tails underflow
    if level >= 1 or level < _LEAST_LEVEL:
        return bound
    outside = 1 - _probability_inside(*_interval(tails, level), num_ranks)
    return min(bound, max(outside, level / 2))


@lru_cache(maxsize=8)
def _tails(num_ranks: int, num_levels: int) -> np.ndarray:
    """Twice the smaller tail of each count at each level, ``(L, N + 1)``."""
    counts = np.arange(num_ranks + 1)
    share = np.arange(1, num_levels + 1)[:, None] / (num_levels + 1)
    below = binom.cdf(counts, num_ranks, share)
    above = binom.sf(counts - 1, num_ranks, share)
    return np.asarray(2 * np.minimum(below, above))


def _interval(tails: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest count whose tail is above the level."""
    # by a hair, so that a count does not differ from itself by rounding
    inside = tails > level * (1 + 1e-9)
    lowest = inside.argmax(1)
    return lowest, inside.shape[1] - 1 - inside[:, ::-1].argmax(1)


def _probability_inside(lowest: np.ndarray, highest: np.ndarray, num_ranks: int) -> float:
    """Probability that every count lies in its interval, level after level."""
    levels = len(lowest)
    log_factorial = gammaln(np.arange(num_ranks + 1) + 1.0)
    before, probability = np.zeros(1, dtype=int), np.ones(1)
    for index in range(levels):
        share = 1 / (levels + 1 - index)  # of the ranks that are not below the last level
        now = np.arange(lowest[index], highest[index] + 1)
        step = now[None, :] - before[:, None]
        possible = step >= 0
        step = np.where(possible, step, 0)
        log_prob = (
            log_factorial[num_ranks - before][:, None]
            - log_factorial[step]
            - log_factorial[num_ranks - now]
            + step * np.log(share)
            + (num_ranks - now) * np.log1p(-share)
        )
        probability = probability @ np.where(possible, np.exp(log_prob), 0.0)
        before = now
    return float(probability.sum())
