"""Figures 4 and 5 of the AEVB paper: learned manifolds, and samples by latent size."""

from typing import Any

import torch
from torch import Tensor

from aevb.evaluation import latent_manifold, prior_means
from aevb.experiments.papers.aevb_fig2 import fig2_training, published_bound
from aevb.experiments.reproduction.context import Context, Opened, standard_error
from aevb.experiments.reproduction.experiment import (
    Budget,
    Claim,
    Experiment,
    Report,
    Row,
    Training,
)
from aevb.experiments.reproduction.labels import labels
from aevb.experiments.reproduction.neighbours import NUM_CLASSES, Votes, vote
from aevb.experiments.reproduction.pictures import image_grid
from aevb.inference import seeded

__all__ = ["EXPERIMENTS", "drawn_means", "voted"]

_PAPER = "Auto-Encoding Variational Bayes (Kingma & Welling, 2013), {}, " + (
    "https://arxiv.org/abs/1312.6114"
)
_NEIGHBOURS = 10


def drawn_means(model: Any, num: int, seed: int = 0) -> Tensor:
    """E[x|z] at draws of the prior, the same at every call, ``(num, *shape)``.

    Args:
        model: One of this package's.
        num: Of draws.
        seed: Of the draws.
    """
    with seeded(seed, torch.device("cpu")):
        return prior_means(model.model, num)


def voted(context: Context, data: str, pictures: Tensor) -> Votes:
    """Classes of pictures by their nearest training images, grey levels and all.

    Args:
        context: Of the report.
        data: ``"mnist"`` or ``"digits"``.
        pictures: ``(N, *shape)``, 0 to 1.
    """
    reference = context.load(data).train.evaluation()
    classes = labels(data, context.data_root)[0]
    return vote(pictures, reference, classes, _NEIGHBOURS)


def _bound(opened: Opened, data: str, training: Training, points: float) -> Row:
    """The test bound at the end of a run, beside figure 2's where that was read."""
    seen, bounds = opened.curve("validation_elbo", len(opened.dataset.train))
    latent_dim = training.flags["model.latent_dim"]
    # whole epochs are seldom the very number of points asked for
    reached = abs(seen[-1] / points - 1) < 0.01
    return Row(
        f"{data}, {latent_dim} latents",
        f"test bound at {seen[-1]:.3g} training points",
        bounds[-1],
        None,
        published_bound(data, latent_dim, points) if reached else None,
        details={"seeds": 1, "hours": round(opened.seconds / 3600, 2)},
    )


def _manifolds(context: Context) -> Report:
    settings = context.settings
    report = Report()
    for data, points in settings["points"].items():
        training = fig2_training(data, 2, points=points)
        opened = context.open(training.name)
        side = settings["sides"][data]
        grid = latent_manifold(opened.model.model, side)
        report.rows.append(_bound(opened, data, training, points))
        photographs = data == "frey-face"
        colours = "gray" if photographs else "gray_r"
        report.figures[f"figure4-{data}"] = image_grid(grid, side, colours=colours)
        if not photographs:
            _classes_on(context, data, grid, report)
    report.notes = [
        "Each picture is E[x|z] at a point whose two coordinates went evenly over the unit "
        "interval and through the inverse distribution function of the normal, so that all "
        "pictures stand for the same mass of the prior. The runs are those of figure 2, where the "
        "bounds belong; the paper shows no bound for two latents on MNIST. Its number of training "
        f"points for this figure is not stated. Classes are the vote of the {_NEIGHBOURS} nearest "
        "training images in pixels.",
    ]
    return report


def _classes_on(context: Context, data: str, grid: Tensor, report: Report) -> None:
    votes = voted(context, data, grid)
    counts = votes.classes.bincount(minlength=NUM_CLASSES)
    shown = ", ".join(f"{digit}: {int(n)}" for digit, n in enumerate(counts))
    agreement = float(votes.agreement.mean())
    report.rows.append(
        Row(
            f"{data}, 2 latents", f"classes among {len(grid)} pictures of the manifold",
            float((counts > 0).sum()), details={"agreement of neighbours": f"{agreement:.3f}"},
        )
    )  # fmt: skip
    report.claims.append(
        Claim("every digit has its place on the manifold", bool((counts > 0).all()), shown)
    )


def _samples(context: Context) -> Report:
    settings, data = context.settings, context.settings["data"]
    report = Report()
    sheets, agreements = [], {}
    test = context.load(data).test.evaluation(settings["votes"])
    real = voted(context, data, test)
    for latent_dim, points in settings["points"].items():
        training = fig2_training(data, latent_dim, points=points)
        opened = context.open(training.name)
        report.rows.append(_bound(opened, data, training, points))
        samples = drawn_means(opened.model, settings["votes"])
        agreement = voted(context, data, samples).agreement
        sheets.append(samples[: settings["side"] ** 2])
        agreements[latent_dim] = (float(agreement.mean()), standard_error(agreement))
        report.rows.append(
            Row(
                f"{data}, {latent_dim} latents",
                f"agreement of {_NEIGHBOURS} neighbours on {len(samples)} samples",
                *agreements[latent_dim],
                details={"that on test images": f"{float(real.agreement.mean()):.3f}"},
            )
        )
    titles = [f"{latent_dim} latents" for latent_dim in settings["points"]]
    report.figures["figure5"] = image_grid(torch.stack(sheets), settings["side"], titles)
    least, most = min(agreements), max(agreements)
    gap = agreements[least][0] - agreements[most][0]
    report.claims = [
        Claim(
            f"samples of {least} latents are less ambiguous than those of {most}", gap > 0,
            f"agreement {agreements[least][0]:.3f} and {agreements[most][0]:.3f}",
        )
    ]  # fmt: skip
    report.notes = [
        "Samples are E[x|z] at draws of z from the prior, the first ones of a fixed seed, as the "
        "paper's appear to be. The agreement is ours: the share of the largest class among the "
        f"{_NEIGHBOURS} training images nearest in pixels, 1 for a picture that lies deep within "
        "one class. With few latents all of the prior is in use and pictures are blurred means; "
        "with many, draws of the prior fall between the digits. Published bounds are those of "
        "figure 2 at the same number of training points.",
    ]
    return report


def _manifold_budget(points: dict[str, float], sides: dict[str, int], minutes: float) -> Budget:
    trainings = tuple(fig2_training(data, 2, points=seen) for data, seen in points.items())
    return Budget(trainings, minutes, {"points": points, "sides": sides})


def _sample_budget(
    points: dict[int, float], minutes: float, data: str = "mnist", **settings: Any
) -> Budget:
    trainings = tuple(
        fig2_training(data, latent_dim, points=seen) for latent_dim, seen in points.items()
    )
    return Budget(trainings, minutes, {"points": points, "data": data, **settings})


_SIDES = {"frey-face": 14, "mnist": 20}
# As many as figure 2 makes of each at the full budget; the one with 2 latents is of these two.
_FULL = {2: 1e7, 5: 1e7, 10: 1e7, 20: 1e8}

EXPERIMENTS = [
    Experiment(
        "aevb-fig4",
        "AEVB figure 4, learned manifolds",
        _PAPER.format("figure 4"),
        {
            "quick": _manifold_budget({"digits": 4e3}, {"digits": 10}, 1),
            "standard": _manifold_budget({"frey-face": 2e6, "mnist": 2e6}, _SIDES, 10),
            "full": _manifold_budget({"frey-face": 1e8, "mnist": 1e7}, _SIDES, 110),
        },
        _manifolds,
    ),
    Experiment(
        "aevb-fig5",
        "AEVB figure 5, samples by size of the latent space",
        _PAPER.format("figure 5"),
        {
            "quick": _sample_budget({2: 4e3, 5: 4e3}, 1, "digits", votes=100, side=10),
            "standard": _sample_budget(dict.fromkeys(_FULL, 2e6), 20, votes=1000, side=10),
            "full": _sample_budget(_FULL, 140, votes=1000, side=10),
        },
        _samples,
    ),
]  # fmt: skip
