"""What the DLGM paper shows of digits: samples beside data, and the embedding in the plane."""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from aevb.evaluation import embed
from aevb.experiments.papers.aevb_manifolds import drawn_means
from aevb.experiments.papers.dlgm_plane import plane_training
from aevb.experiments.papers.dlgm_table1 import dlgm_training
from aevb.experiments.reproduction.context import Context, standard_error
from aevb.experiments.reproduction.experiment import Budget, Claim, Experiment, Report, Row
from aevb.experiments.reproduction.labels import labels
from aevb.experiments.reproduction.neighbours import (
    NUM_CLASSES,
    Votes,
    vote,
)
from aevb.experiments.reproduction.pictures import COLUMN, image_grid, panels

__all__ = ["EXPERIMENTS", "principal_components"]

_PAPER = (
    "Stochastic Backpropagation and Approximate Inference in Deep Generative Models (Rezende, "
    "Mohamed & Wierstra, 2014), {}, https://arxiv.org/abs/1401.4082"
)
_NEIGHBOURS = 10
_SIDE = 10  # pictures in a row


def principal_components(train: Tensor, test: Tensor, dims: int = 2) -> tuple[Tensor, Tensor]:
    """Coordinates along the directions of most variance in the training data.

    Args:
        train: ``(N, *shape)``.
        test: ``(M, *shape)``.
        dims: Directions.

    Returns:
        ``(N, dims)`` and ``(M, dims)``.

    Example:
        >>> line = torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 0.1]])
        >>> principal_components(line, line, 1)[0].shape
        torch.Size([3, 1])
    """
    flat = train.flatten(1).double()
    mean = flat.mean(0)
    covariance = (flat - mean).T @ (flat - mean)
    directions = torch.linalg.eigh(covariance).eigenvectors[:, -dims:].flip(-1)
    return (flat - mean) @ directions, (test.flatten(1).double() - mean) @ directions


def _samples(context: Context) -> Report:
    settings, data = context.settings, context.settings["data"]
    training = dlgm_training("rank-one", 0, settings["epochs"], data)
    opened = context.open(training.name)
    train = opened.dataset.train.evaluation()
    test = opened.dataset.test.evaluation(settings["samples"])
    means = drawn_means(opened.model, settings["samples"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = torch.bernoulli(means)
    classes = labels(data, context.data_root)[0]
    report = Report()
    found = {
        "samples": vote(draws, train, classes, _NEIGHBOURS),
        "test images": vote(test, train, classes, _NEIGHBOURS),
    }
    for name, votes in found.items():
        report.rows += _rows(name, votes, training.epochs)
    drawn = found["samples"].classes.bincount(minlength=NUM_CLASSES)
    near = {name: float(votes.nearest.mean()) for name, votes in found.items()}
    report.claims = [
        Claim(
            "samples are no copies: as far from the training images as test images are",
            near["samples"] > 0.9 * near["test images"],
            f"{near['samples']:.2f} and {near['test images']:.2f}",
        ),
        Claim(
            "all digits are drawn",
            bool((drawn > 0).all()),
            "by the vote of neighbours, " + ", ".join(f"{c}: {n}" for c, n in enumerate(drawn)),
        ),
    ]
    shown = _SIDE**2
    report.figures["samples"] = image_grid(
        torch.stack([test[:shown], draws[:shown], means[:shown]]),
        _SIDE,
        ("test images", "samples", "their means"),
    )
    report.notes = [
        "Data are the first test images, samples the first draws of a fixed seed from the "
        "rank-one run of table 1 with seed 0. Data are binary, and so are samples; their means "
        "E[x|z] are what papers often show. Votes are of the "
        f"{_NEIGHBOURS} nearest binary training images; distances are Euclidean, so that their "
        "squares count pixels. The paper shows pictures and no figures; these are ours.",
    ]
    return report


def _rows(name: str, votes: Votes, epochs: int) -> list[Row]:
    details = {"pictures": len(votes.classes), "epochs": epochs, "seed": 0}
    return [
        Row(name, f"agreement of {_NEIGHBOURS} nearest training images",
            float(votes.agreement.mean()), standard_error(votes.agreement), details=details),
        Row(name, "distance to the nearest training image", float(votes.nearest.mean()),
            standard_error(votes.nearest), details=details),
    ]  # fmt: skip


def _embedding(context: Context) -> Report:
    settings, data = context.settings, context.settings["data"]
    training = plane_training("diagonal", settings["epochs"], data)
    opened = context.open(training.name)
    train, test = opened.dataset.train.evaluation(), opened.dataset.test.evaluation()
    train_classes, _, test_classes = labels(data, context.data_root)
    ours = tuple(embed(opened.model.guide, x).mean for x in (train, test))
    spaces = {
        "DLGM, 2 latents": ours,
        "principal components, 2": principal_components(train, test),
    }
    report = Report()
    hits = {}
    for name, (known, asked) in spaces.items():
        hits[name] = vote(asked, known, train_classes, _NEIGHBOURS).accuracy(test_classes)
        report.rows.append(
            Row(name, f"accuracy of {_NEIGHBOURS} nearest neighbours, test, %",
                100 * float(hits[name].mean()), 100 * standard_error(hits[name]),
                details={"images": len(test), "epochs": training.epochs, "seed": 0})
        )  # fmt: skip
    gain = hits["DLGM, 2 latents"] - hits["principal components, 2"]
    report.claims = [
        Claim(
            "classes lie further apart than along two principal components",
            float(gain.mean()) > 2 * standard_error(gain),
            f"{100 * float(gain.mean()):+.1f} ± {100 * standard_error(gain):.1f} % of the images",
        )
    ]
    report.figures["embedding"] = _scatter(ours[1], test_classes)
    report.tables["embedding"] = (
        ("first", "second", "class"),
        [
            (f"{float(a):.4f}", f"{float(b):.4f}", int(c))
            for (a, b), c in zip(ours[1], test_classes, strict=True)
        ],
    )
    report.notes = [
        "Points are means of the recognition model for all test images; colours are their "
        f"classes, which training did not see. The {_NEIGHBOURS} nearest training images in the "
        "plane vote on the class of each test image. The paper shows the picture (its figure 3b, "
        "as quoted by others) and gives no score.",
    ]
    return report


def _scatter(points: Tensor, classes: Tensor) -> Figure:
    figure, (axis,) = panels(1, 1, (COLUMN, COLUMN))
    drawn: Any = axis.scatter(
        points[:, 0],
        points[:, 1],
        c=classes,
        cmap="tab10",
        vmin=-0.5,
        vmax=9.5,
        s=1.2,
        linewidths=0,
        alpha=0.7,
    )
    bar: Any = figure.colorbar(drawn, ax=axis, ticks=range(NUM_CLASSES), pad=0.01, fraction=0.05)
    bar.solids.set_alpha(1)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=7)
    limit = float(points.abs().quantile(0.999)) + 0.1
    axis.set(xlabel="first latent", ylabel="second latent", xlim=(-limit, limit),
             ylim=(-limit, limit), aspect="equal")  # fmt: skip
    return figure


def _sample_budget(epochs: int, minutes: float, samples: int, data: str = "mnist") -> Budget:
    training = dlgm_training("rank-one", 0, epochs, data)
    return Budget((training,), minutes, {"epochs": epochs, "data": data, "samples": samples})


def _embedding_budget(epochs: int, minutes: float, data: str = "mnist") -> Budget:
    training = plane_training("diagonal", epochs, data)
    return Budget((training,), minutes, {"epochs": epochs, "data": data})


EXPERIMENTS = [
    Experiment(
        "dlgm-samples",
        "DLGM, generated digits beside data",
        _PAPER.format("section 6 (generated samples)"),
        {
            "quick": _sample_budget(2, 1, 100, "digits"),
            "standard": _sample_budget(50, 10, 1000),
            "full": _sample_budget(2000, 180, 10_000),
        },
        _samples,
    ),
    Experiment(
        "dlgm-embedding",
        "DLGM, the test set in two dimensions",
        _PAPER.format("figure 3b (as quoted by others)"),
        {
            "quick": _embedding_budget(3, 1, "digits"),
            "standard": _embedding_budget(50, 10),
            "full": _embedding_budget(500, 70),
        },
        _embedding,
    ),
]
