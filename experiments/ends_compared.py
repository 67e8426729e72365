"""Where training algorithms end by log p(x): what figure 3 of the AEVB paper says of them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from aevb.experiments.reproduction.context import standard_error
from aevb.experiments.reproduction.experiment import Claim

__all__ = ["ALGORITHMS", "SPLITS", "Found", "column", "mean_and_error", "ordered"]

ALGORITHMS = ("aevb", "wake-sleep", "mcem")
SPLITS = ("train", "test")
FEW, MANY = 1_000, 50_000
# Which curve ends above which, on which images.
_LEADS = {
    FEW: (
        ("mcem", "aevb", ("test",)),
        ("aevb", "wake-sleep", SPLITS),
        ("mcem", "wake-sleep", SPLITS),
    ),
    MANY: (("aevb", "wake-sleep", SPLITS),),
}

# Of a run: for each split and estimator, ``"importance"`` or ``"paper"``, log p(x) of each image.
Found = Mapping[str, Any]


def column(found: Found, split: str, estimator: str) -> Tensor:
    """Of each image, ``(N,)``, float64.

    Args:
        found: Of a run.
        split: ``"train"`` or ``"test"``.
        estimator: Or another quantity.
    """
    return torch.tensor(found[split][estimator], dtype=torch.float64)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean of independent values and its standard error."""
    return float(values.mean()), standard_error(values)


def ordered(ends: Mapping[tuple[int, str], Found]) -> list[Claim]:
    """What the paper's figure shows at the ends of its curves, by importance sampling.

    Differences are between the same images, and count from two standard errors on.

    Args:
        ends: By number of training images and algorithm.
    """
    claims = []
    for num_train, leads in _LEADS.items():
        if not {(num_train, name) for name in ALGORITHMS} <= ends.keys():
            continue
        runs = {name: ends[num_train, name] for name in ALGORITHMS}
        claims += [_leads(runs, num_train, one, other, split)
                   for one, other, splits in leads for split in splits]  # fmt: skip
        claims += _equal(runs) if num_train == FEW else _far_below(runs)
    for num_train in dict.fromkeys(size for size, _ in ends):
        runs = {name: found for (size, name), found in ends.items() if size == num_train}
        claims += _ranked_alike(runs, num_train)
    return claims


def _gain(
    runs: Mapping[str, Found], one: str, other: str, split: str, by: str = "importance"
) -> Tensor:
    return column(runs[one], split, by) - column(runs[other], split, by)


def _leads(
    runs: Mapping[str, Found], num_train: int, one: str, other: str, split: str
) -> Claim:  # fmt: skip
    mean, error = mean_and_error(_gain(runs, one, other, split))
    theirs = float(_gain(runs, one, other, split, "paper").mean())
    return Claim(
        f"N = {num_train:,}: {one} ends above {other} on {split} images",
        mean > 2 * error,
        f"{mean:+.2f} ± {error:.2f} nats; {theirs:+.2f} by the paper's estimator",
    )


def _equal(runs: Mapping[str, Found]) -> list[Claim]:
    mean, error = mean_and_error(_gain(runs, "mcem", "aevb", "train"))
    return [
        Claim(
            f"N = {FEW:,}: mcem and aevb end equal on train images, to two standard errors",
            abs(mean) <= 2 * error,
            f"{mean:+.2f} ± {error:.2f} nats",
        )
    ]


def _far_below(runs: Mapping[str, Found]) -> list[Claim]:
    claims = []
    for split in SPLITS:
        small = _gain(runs, "aevb", "wake-sleep", split)
        large = _gain(runs, "wake-sleep", "mcem", split)
        mean, error = mean_and_error(large - small)
        claims.append(
            Claim(
                f"N = {MANY:,}: mcem ends further below wake-sleep than wake-sleep below aevb, on "
                f"{split} images",
                mean > 2 * error,
                f"{float(large.mean()):.2f} and {float(small.mean()):.2f} nats",
            )
        )
    return claims


def _ranked_alike(runs: Mapping[str, Found], num_train: int) -> list[Claim]:
    """Whether the paper's estimator, whatever its error, ranks algorithms rightly."""

    def order(split: str, by: str) -> list[str]:
        means = {name: float(column(found, split, by).mean()) for name, found in runs.items()}
        return sorted(means, key=lambda name: -means[name])

    theirs, exact = (
        {split: order(split, by) for split in SPLITS} for by in ("paper", "importance")
    )
    return [
        Claim(
            f"N = {num_train:,}: the paper's estimator ranks the algorithms as importance "
            "sampling does",
            theirs == exact,
            "; ".join(f"{split}: {' > '.join(ranks)}" for split, ranks in theirs.items()),
        )
    ]
