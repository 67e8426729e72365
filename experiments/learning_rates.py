"""Pilot runs at several learning rates beside the curve of a paper that does not name its own."""

import math
from collections.abc import Mapping

from aevb.experiments.reproduction.experiment import Claim, Row

__all__ = ["judged_rates"]

Pair = tuple[float, float]


def judged_rates(
    ends: Mapping[tuple[str, float], Pair],
    published: Mapping[str, Pair | None],
    chosen: float,
    label: str,
    points: float,
    quantity: str = "bound",
) -> tuple[list[Row], list[Claim]]:
    """Pilots beside the paper's curves, and whether the rate in use comes nearest to them.

    Args:
        ends: Figures of training and test images after so many points, in nats, by algorithm
            and rate.
        published: The same in the paper by algorithm, None where its curve was not read.
        chosen: The rate in use.
        label: Of the model.
        points: Training points seen.
        quantity: What the figures are.

    Returns:
        A row for each figure, and a claim for each algorithm whose curve was read.

    Example:
        >>> ends = {("aevb", 0.01): (-120.0, -119.0), ("aevb", 0.1): (-200.0, -199.0)}
        >>> rows, claims = judged_rates(ends, {"aevb": (-121.0, -120.0)}, 0.1, "5 latents", 1e6)
        >>> claims[0].holds
        False
    """
    rows = []
    claims = []
    for algorithm in dict.fromkeys(name for name, _ in ends):
        theirs = published.get(algorithm)
        distances = {}
        pairs = {rate: pair for (name, rate), pair in ends.items() if name == algorithm}
        for rate, pair in pairs.items():
            rows += [
                Row(
                    f"{label}, {algorithm}, pilot at rate {rate}",
                    f"{split} {quantity} at {points:.3g} points",
                    ours,
                    published=None if theirs is None else float(theirs[place]),
                    details={"seeds": 1},
                )
                for place, (split, ours) in enumerate(zip(("train", "test"), pair, strict=True))
            ]
            if theirs is not None:
                distances[rate] = sum(abs(a - b) for a, b in zip(pair, theirs, strict=True)) / 2
        if distances:
            nearest = min(distances, key=lambda rate: _last_if_nan(distances[rate]))
            leader = min(pairs, key=lambda rate: _last_if_nan(-pairs[rate][0]))
            shown = ", ".join(f"{rate}: {value:.1f}" for rate, value in distances.items())
            claims.append(
                Claim(
                    f"of the paper's three rates, {chosen} brings {algorithm} with {label} "
                    f"nearest to its curve at {points:.3g} points",
                    nearest == chosen,
                    f"mean distance of train and test {quantity} in nats, by rate: {shown}; the "
                    f"paper's own criterion, the training images, would have taken {leader}",
                )
            )
    return rows, claims


def _last_if_nan(value: float) -> float:
    return math.inf if math.isnan(value) else value
