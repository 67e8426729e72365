"""Figure 2 of the AEVB paper: the bound against training points seen, AEVB and wake-sleep."""

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from aevb.experiments.learning_rates import judged_rates
from aevb.experiments.reproduction.context import Context
from aevb.experiments.reproduction.experiment import (
    Budget,
    Claim,
    Experiment,
    Report,
    Row,
    Training,
)
from aevb.experiments.reproduction.pictures import COLOURS, PAGE, panels

__all__ = ["EXPERIMENTS", "fig2_training", "frey_flags", "mnist_flags", "published_bound"]

_SOURCE = (
    "Auto-Encoding Variational Bayes (Kingma & Welling, 2013), figure 2, "
    "https://arxiv.org/abs/1312.6114"
)
_ALGORITHMS = {"aevb": "svi", "wake-sleep": "wake-sleep"}
# Where the curves are compared, in training points.
_POINTS = (1e6, 1e7, 1e8, 2.5e8)
# Digitised from the vector paths of the paper's PDF; reading error about 0.05 nats (MNIST) and
# 1 nat (Frey). Train and test at `_POINTS`.
_MNIST: dict[tuple[int, str], tuple[tuple[float, float], ...]] = {
    (3, "aevb"): ((-155.3, -153.0), (-138.3, -138.0), (-130.3, -133.4), (-127.9, -133.5)),
    (3, "wake-sleep"): ((-157.1, -155.1), (-146.1, -144.8), (-140.2, -138.9), (-138.7, -137.4)),
    (5, "aevb"): ((-141.0, -138.9), (-123.7, -124.1), (-116.5, -119.1), (-114.8, -118.7)),
    (5, "wake-sleep"): ((-145.9, -142.5), (-128.1, -127.2), (-122.2, -121.9), (-121.0, -120.8)),
    (10, "aevb"): ((-129.6, -128.3), (-107.7, -108.5), (-100.7, -103.7), (-99.1, -103.3)),
    (10, "wake-sleep"): ((-137.3, -134.9), (-113.7, -113.5), (-106.9, -107.6), (-105.8, -106.4)),
    (20, "aevb"): ((-126.3, -124.2), (-104.2, -104.8), (-98.2, -100.2), (-97.2, -99.4)),
    (20, "wake-sleep"): ((-134.2, -130.8), (-108.3, -108.3), (-104.1, -104.6), (-103.4, -104.1)),
    (200, "aevb"): ((-121.8, -119.9), (-103.3, -103.9), (-98.4, -100.2), (-97.5, -99.5)),
    (200, "wake-sleep"): ((-133.5, -130.8), (-109.0, -109.1), (-104.0, -104.6), (-103.0, -103.6)),
}
_FREY: dict[tuple[int, str], tuple[tuple[float, float] | None, ...]] = {
    (2, "aevb"): ((664, 673), (835, 823), (935, 872)),
    (5, "aevb"): ((729, 761), (1076, 1044), (1233, 1115)),
    (10, "aevb"): ((758, 792), (1217, 1171), (1463, 1307)),
    (20, "aevb"): ((715, 754), (1255, 1200), (1488, 1313)),
    (2, "wake-sleep"): (None, None, (579, 569)),
    (5, "wake-sleep"): (None, None, (579, 569)),
    (10, "wake-sleep"): (None, None, (578, 569)),
    (20, "wake-sleep"): (None, None, (578, 569)),
}
# The paper chose among these by the first iterations and does not say which it took. Ours is the
# one whose pilots come nearest to the paper's curves at 10⁶ points.
_RATES = (0.01, 0.02, 0.1)
_CHOSEN = {"mnist": 0.01, "frey-face": 0.02, "digits": 0.1}
_NUM_TRAIN = {"mnist": 50_000, "frey-face": 1_565, "digits": 1_297}
# Within how many nats of the digitised curve on the test set.
_TOLERANCE = {1e7: 1.0, 1e8: 0.5}

# The paper draws weights from N(0, 0.01) and does not say whether that is a variance. At 10⁶
# points of 20 latents a standard deviation of 0.01 lies on its curve (−126.3 and −124.7 on
# training and test images, the paper −126.3 and −124.2) and one of 0.1 above it (−120.2 and
# −119.1); of 5 latents it is the other way round (−146.6 and −145.3, −139.5 and −138.6, the paper
# −141.0 and −138.9).
_PAPER: dict[str, Any] = {
    "binarize": "none", "optimizer": "Adagrad", "weight_prior_scale": 1.0, "batch_size": 100,
    "initializer": "SmallNormal", "initializer.scale": 0.01, "validate_on": "test", "seed": 0,
}  # fmt: skip


def mnist_flags(latent_dim: int, hidden: int = 500, data: str = "mnist") -> dict[str, Any]:
    """Of the paper's MNIST model: grey levels under the Bernoulli's cross-entropy.

    Args:
        latent_dim: Dimensions of z.
        hidden: Units of the one hidden layer each way.
        data: The dataset.
    """
    return {
        "data": data, **_PAPER, "model": "VAE", "model.latent_dim": latent_dim,
        "model.hidden": [hidden], "model.likelihood": "Bernoulli",
        "model.likelihood.relaxed": True,
    }  # fmt: skip


def frey_flags(latent_dim: int, hidden: int = 200, data: str = "frey-face") -> dict[str, Any]:
    """Of the paper's Frey face model: normal pixels, means between 0 and 1, predicted scales.

    Args:
        latent_dim: Dimensions of z.
        hidden: Units of the one hidden layer each way.
        data: The dataset.
    """
    return {
        "data": data, **_PAPER, "model": "VAE", "model.latent_dim": latent_dim,
        "model.hidden": [hidden], "model.likelihood": "Normal",
        "model.likelihood.mean": "torch.nn.Sigmoid", "model.likelihood.scale": "PredictedScale",
    }  # fmt: skip


def published_bound(data: str, latent_dim: int, points: float) -> float | None:
    """The paper's bound of AEVB on the test set, in nats, where its curve was read.

    Args:
        data: The dataset.
        latent_dim: Dimensions of z.
        points: Training points seen; None is returned unless this is one of those compared.
    """
    curves: Any = {"mnist": _MNIST, "frey-face": _FREY}.get(data, {})
    read = dict(zip(_POINTS, curves.get((latent_dim, "aevb"), ()), strict=False))
    return float(read[points][1]) if points in read else None


def _flags(data: str, latent_dim: int, algorithm: str, rate: float) -> dict[str, Any]:
    make = frey_flags if data == "frey-face" else mnist_flags
    flags = make(latent_dim) if data != "digits" else mnist_flags(latent_dim, 100, data)
    chosen = {} if algorithm == "aevb" else {"algorithm": _ALGORITHMS[algorithm]}
    return {**flags, **chosen, "learning_rate": rate}


def fig2_training(
    data: str, latent_dim: int, algorithm: str = "aevb", points: float = 1e7
) -> Training:
    """A run of the figure, for other items to share.

    Args:
        data: ``"mnist"``, ``"frey-face"`` or ``"digits"``.
        latent_dim: Dimensions of z.
        algorithm: ``"aevb"`` or ``"wake-sleep"``.
        points: Training points to see, in whole epochs.
    """
    epochs = max(1, round(points / _NUM_TRAIN[data]))
    every = {"log_every": max(1, epochs // 1000)}
    flags = {**_flags(data, latent_dim, algorithm, _CHOSEN[data]), **every}
    return Training(f"fig2-{data}-{latent_dim}-{algorithm}", flags, epochs)


def _pilots(data: str, latent_dim: int, points: float) -> list[Training]:
    epochs = max(1, round(points / _NUM_TRAIN[data]))
    return [
        Training(
            f"fig2-{data}-{latent_dim}-{algorithm}-rate-{rate}",
            _flags(data, latent_dim, algorithm, rate), epochs,
        )
        for algorithm in _ALGORITHMS for rate in _RATES
    ]  # fmt: skip


def _budget(
    data: str,
    points: Mapping[int, float],
    minutes: float,
    pilot: tuple[int, float] | None = None,
) -> Budget:
    longest = sorted(points, key=lambda latent_dim: points[latent_dim])
    trainings = [
        fig2_training(data, latent_dim, algorithm, points[latent_dim])
        for latent_dim in longest for algorithm in _ALGORITHMS
    ]  # fmt: skip
    settings = {"data": data, "points": dict(points), "pilot": pilot}
    pilots = [] if pilot is None else _pilots(data, *pilot)
    return Budget((*pilots, *trainings), minutes, settings)


def _report(context: Context) -> Report:
    data = context.settings["data"]
    tables: dict[str, Mapping[Any, Any]] = {"mnist": _MNIST, "frey-face": _FREY}
    published = tables.get(data, {})
    report = Report()
    curves: dict[tuple[int, str], dict[str, tuple[list[float], list[float]]]] = {}
    for latent_dim, points in context.settings["points"].items():
        for algorithm in _ALGORITHMS:
            opened = context.open(fig2_training(data, latent_dim, algorithm, points).name)
            size = _NUM_TRAIN[data]
            curve = {
                "train": opened.curve("train_objective", size),
                "test": opened.curve("validation_elbo", size),
            }
            curves[latent_dim, algorithm] = curve
            rate = len(curve["test"][0]) and curve["test"][0][-1] / max(opened.seconds, 1e-9)
            for split in ("train", "test"):
                report.rows += _rows(
                    data, latent_dim, algorithm, split, curve[split],
                    published.get((latent_dim, algorithm), ()), rate,
                )  # fmt: skip
    rows, claims = _rates(context, data, published) if context.settings["pilot"] else ([], [])
    report.rows += rows
    report.claims = [*_order(curves), *claims]
    report.figures = {"figure2": _picture(curves, published, data)}
    report.tables = {
        f"curves-{split}": (
            ("latent_dim", "algorithm", "training_points", "bound"),
            [
                (*key, int(x), round(y, 3))
                for key, curve in curves.items()
                for x, y in zip(*curve[split], strict=True)
            ],
        )
        for split in ("train", "test")
    }
    report.notes = [
        "Bounds are nats per datapoint. Train is the mean over the epochs since the last row, "
        "while they were trained on; test is the ELBO of one draw for each test image. The paper "
        "does not say how pixels were binarized, nor the split of the Frey faces; grey levels "
        "under a cross-entropy are what its figures agree with.",
        "The paper took the rate of Adagrad that led on the training images in the first "
        "iterations and does not name it. Ours is the one of its three whose pilots come nearest "
        "to its curve; the claims on rates say which one leads.",
        "The paper's Xeon took 20 to 40 minutes for a million training points: 417 to 833 a "
        "second.",
    ]
    return report


def _rows(
    data: str,
    latent_dim: int,
    algorithm: str,
    split: str,
    curve: tuple[list[float], list[float]],
    published: Any,
    rate: float,
) -> list[Row]:
    rows = []
    seen = curve[0][-1] if curve[0] else 0.0
    for number, at in enumerate(_POINTS):
        if seen < 0.99 * at:
            continue
        theirs = published[number] if number < len(published) else None
        value = None if theirs is None else float(theirs[split == "test"])
        tolerance = _TOLERANCE.get(at)
        gated = (
            data == "mnist" and algorithm == "aevb" and split == "test" and tolerance is not None
            and (at < 1e8 or latent_dim == 20) and value is not None
        )  # fmt: skip
        band = (value - tolerance, value + tolerance) if gated and value and tolerance else None
        rows.append(
            Row(
                f"{latent_dim} latents, {algorithm}",
                f"{split} bound at {at:.3g} points",
                _at(curve, at),
                None,
                value,
                band=band,
                details={"samples per second": round(rate), "seeds": 1},
            )  # fmt: skip
        )
    if not rows and curve[0]:
        rows.append(
            Row(f"{latent_dim} latents, {algorithm}", f"{split} bound at {seen:.3g} points",
                curve[1][-1], details={"samples per second": round(rate), "seeds": 1})
        )  # fmt: skip
    return rows


def _at(curve: tuple[list[float], list[float]], points: float) -> float:
    """The value nearest to a number of training points."""
    nearest = min(range(len(curve[0])), key=lambda i: abs(curve[0][i] - points))
    return curve[1][nearest]


def _order(curves: Mapping[tuple[int, str], Any]) -> list[Claim]:
    """AEVB ends above wake-sleep everywhere."""
    claims = []
    for latent_dim in dict.fromkeys(key[0] for key in curves):
        ends = {a: curves[latent_dim, a]["test"][1][-1] for a in _ALGORITHMS}
        claims.append(
            Claim(
                f"AEVB ends above wake-sleep with {latent_dim} latents",
                ends["aevb"] > ends["wake-sleep"],
                f"{ends['aevb']:.2f} against {ends['wake-sleep']:.2f} nats on the test set",
            )
        )
    return claims


def _rates(context: Context, data: str, published: Any) -> tuple[list[Row], list[Claim]]:
    """What the pilots say about the learning rate in use."""
    latent_dim, points = context.settings["pilot"]
    ends = {}
    for pilot in _pilots(data, latent_dim, points):
        last = context.open(pilot.name).history[-1]
        algorithm = pilot.flags.get("algorithm", "aevb")
        train, test = (last[name] for name in ("train_objective", "validation_elbo"))
        ends[algorithm, pilot.flags["learning_rate"]] = (train or math.nan, test or math.nan)
    read = {
        name: dict(zip(_POINTS, published.get((latent_dim, name), ()), strict=False)).get(points)
        for name in _ALGORITHMS
    }
    return judged_rates(ends, read, _CHOSEN[data], f"{latent_dim} latents", points)


def _picture(curves: Mapping[tuple[int, str], Any], published: Any, data: str) -> Figure:
    sizes = list(dict.fromkeys(key[0] for key in curves))
    figure, axes = panels(1, len(sizes), (PAGE, 2.2), sharey=data == "frey-face")
    for axis, latent_dim in zip(axes, sizes, strict=True):
        for algorithm, colour in zip(_ALGORITHMS, COLOURS, strict=False):
            for split, style in (("train", "--"), ("test", "-")):
                axis.plot(*curves[latent_dim, algorithm][split], style, color=colour,
                          label=f"{algorithm}, {split}")  # fmt: skip
            points = published.get((latent_dim, algorithm), ())
            for split, marker in (("train", "s"), ("test", "o")):
                known = [
                    (at, value[split == "test"])
                    for at, value in zip(_POINTS, points, strict=False) if value is not None
                ]  # fmt: skip
                axis.plot(
                    *zip(*known, strict=True) if known else ([], []), marker, color=colour,
                    markersize=3.5, markerfacecolor="none", label=f"paper, {split}",
                )  # fmt: skip
        axis.set_xscale("log")
        axis.set_title(f"{latent_dim} latents")
        axis.set_xlabel("training points")
        later = [y for a in _ALGORITHMS for y in curves[latent_dim, a]["test"][1][2:]]
        if later:
            margin = 0.08 * (max(later) - min(later)) + 1e-6
            axis.set_ylim(min(later) - margin, max(later) + 4 * margin)
    axes[0].set_ylabel("bound (nats)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


_MNIST_SIZES = (3, 5, 10, 20, 200)
_FREY_SIZES = (2, 5, 10, 20)

EXPERIMENTS = [
    Experiment(
        "aevb-fig2-mnist",
        "AEVB figure 2, MNIST",
        _SOURCE,
        {
            "quick": _budget("digits", {3: 1e4}, 1),
            "standard": _budget("mnist", {3: 2e6, 20: 2e6}, 25, (20, 2e5)),
            "full": _budget(
                "mnist", {n: 1e8 if n in (3, 20) else 1e7 for n in _MNIST_SIZES}, 240, (20, 1e6)
            ),
        },
        _report,
    ),
    Experiment(
        "aevb-fig2-frey",
        "AEVB figure 2, Frey faces",
        _SOURCE,
        {
            "quick": _budget("digits", {2: 4e3}, 1),
            "standard": _budget("frey-face", dict.fromkeys((2, 10), 2e6), 25, (10, 2e5)),
            "full": _budget("frey-face", dict.fromkeys(_FREY_SIZES, 1e8), 240, (10, 1e6)),
        },
        _report,
    ),
]
