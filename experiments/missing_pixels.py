"""Masks of missing pixels, and how good what stands in their place is."""

from typing import Any

import torch
from torch import Tensor

__all__ = [
    "CHAINS",
    "LEVEL",
    "MASKS",
    "calibration_error",
    "interval_hits",
    "log_score",
    "mask",
    "squared_error",
]

MASKS = {
    "60 %": "60 % missing at random",
    "80 %": "80 % missing at random",
    "square": "the middle square missing",
    "half": "the right half missing",
}
_SHARES = {"60 %": 0.6, "80 %": 0.8}
# 39 exchangeable draws: the truth falls between the second and the 38th with probability 36/40.
CHAINS, _OUTSIDE, LEVEL = 39, 2, 0.9
_FLOOR = 1e-6  # of a predicted probability, for its logarithm
_BINS = 10


def mask(kind: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """True where a pixel is observed.

    Args:
        kind: Of ``MASKS``; at random, every image loses others.
        shape: ``(N, H, W)``.
        generator: Of what is missing at random.
    """
    if kind in _SHARES:
        return torch.rand(shape, generator=generator) >= _SHARES[kind]
    height, width = shape[-2:]
    observed = torch.ones(shape, dtype=torch.bool)
    if kind == "half":
        observed[:, :, width // 2 :] = False
    else:
        rows, columns = (slice(size // 4, size - size // 4) for size in (height, width))
        observed[:, rows, columns] = False
    return observed


def squared_error(mean: Tensor, x: Tensor, observed: Tensor) -> Tensor:
    """Mean over each image's missing pixels, ``(N,)``.

    Args:
        mean: Predicted, ``(N, H, W)``.
        x: The truth.
        observed: True where a pixel is known.
    """
    return _over_missing((mean - x).double().square(), observed)


def log_score(probability: Tensor, x: Tensor, observed: Tensor) -> Tensor:
    r"""Mean log-probability of each image's missing binary pixels, ``(N,)``, in nats a pixel.

    .. math:: \tfrac1{|m|} \sum_{j \in m} x_j \log p_j + (1 - x_j) \log (1 - p_j)

    Args:
        probability: Predicted, ``(N, H, W)``.
        x: The truth.
        observed: True where a pixel is known.
    """
    p = probability.double().clamp(_FLOOR, 1 - _FLOOR)
    scores = torch.where(x > 0.5, p.log(), (1 - p).log())
    return _over_missing(scores, observed)


def calibration_error(probability: Tensor, x: Tensor, observed: Tensor) -> tuple[float, list[Any]]:
    """How far predicted probabilities of missing pixels are from the frequencies of ones.

    Args:
        probability: Predicted, ``(N, H, W)``.
        x: The truth, 0 or 1.
        observed: True where a pixel is known.

    Returns:
        The distance, averaged over ten bins by their pixels; and of each bin that is not empty
        the mean prediction, the frequency and the number of pixels.
    """
    p, truth = probability[~observed].double(), x[~observed].double()
    place = (p * _BINS).long().clamp(0, _BINS - 1)
    bins = [
        (float(p[inside].mean()), float(truth[inside].mean()), int(inside.sum()))
        for inside in (place == number for number in range(_BINS)) if bool(inside.any())
    ]  # fmt: skip
    return sum(abs(a - b) * count for a, b, count in bins) / len(p), bins


def interval_hits(draws: Tensor, x: Tensor, observed: Tensor) -> Tensor:
    """Share of each image's missing pixels inside their intervals, ``(N,)``.

    Exchangeable draws and truth would give exactly 90 % in expectation: the interval lies between
    the second smallest and the second largest of 39 draws.

    Args:
        draws: Of x given what is observed, ``(39, N, H, W)``.
        x: The truth.
        observed: True where a pixel is known.
    """
    if len(draws) != CHAINS:
        raise ValueError(f"draws: expected {CHAINS}; got {len(draws)}")
    ordered = draws.sort(0).values
    inside = (x > ordered[_OUTSIDE - 1]) & (x < ordered[-_OUTSIDE])
    return _over_missing(inside.double(), observed)


def _over_missing(values: Tensor, observed: Tensor) -> Tensor:
    missing = (~observed).flatten(1)
    return torch.where(missing, values.flatten(1), 0.0).sum(1) / missing.sum(1)
