"""The DLGM of two latents: its posteriors on a grid against what infers them."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from aevb.data.seeds import stream_seed
from aevb.experiments.papers.dlgm_table1 import dlgm_flags
from aevb.experiments.reproduction.context import Context, standard_error
from aevb.experiments.reproduction.experiment import (
    Budget,
    Claim,
    Experiment,
    Report,
    Row,
    Training,
)
from aevb.experiments.reproduction.pictures import COLOURS, PAGE, panels
from aevb.experiments.reproduction.plane import (
    GridPosterior,
    posterior_on_grid,
    total_variation,
)
from aevb.inference import guide_draws, hmc

__all__ = ["EXPERIMENTS", "plane_training"]

_FAMILIES = ("diagonal", "rank-one")
_SIDE = 200  # cells of a grid along each axis
_BLOCKS = 20  # larger cells along each axis, in which draws are counted
_SHOWN = 4
_DRAWN = 300  # points of a scatter


def plane_training(family: str, epochs: int, data: str = "mnist", seed: int = 0) -> Training:
    """The DLGM of table 1 with two latents.

    Args:
        family: ``"diagonal"`` or ``"rank-one"``.
        epochs: Of the run.
        data: The dataset.
        seed: Of the run.
    """
    flags = dlgm_flags(family, seed, data, epochs) | {"model.latent_dims": [2]}
    # it is as wide as posteriors are in two dimensions, and would teach q to be too narrow
    for name in ("model.latent_noise", "model.latent_noise.scale"):
        del flags[name]
    return Training(f"dlgm-plane-{data}-{family}-seed{seed}", flags, epochs)


def _report(context: Context) -> Report:
    settings = context.settings
    report = Report()
    divergences: dict[str, Tensor] = {}
    ratio = {}
    for family in settings["families"]:
        training = plane_training(family, settings["epochs"], settings["data"])
        opened = context.open(training.name)
        x = opened.dataset.test.evaluation(settings["images"])
        measured = context.part(training.name, partial(_measured, opened.model, x, settings))
        columns = {key: torch.tensor(value).double() for key, value in measured.items()}
        details = {
            "images": len(x), "epochs": settings["epochs"], "seed": 0, "grid": f"{_SIDE}²",
            "largest R̂": f"{float(columns.pop('rhat').max()):.3f}",
        }  # fmt: skip
        report.rows += [
            Row(family, name, float(values.mean()), standard_error(values), details=details)
            for name, values in columns.items()
        ]
        divergences[family] = columns[_KL.format("recognition")]
        chains, exact = columns[_TV.format("HMC")], columns[_TV.format("as many exact draws")]
        ratio[family] = float(chains.mean() / exact.mean())
        report.figures[f"posteriors-{family}"] = _picture(opened.model, x[:_SHOWN], settings)
    report.claims = _claims(divergences, ratio)
    report.notes = _NOTES
    return report


_KL = "KL from {} to the posterior, nats"
_TV = f"total variation of {{}}, {_BLOCKS}² cells"
_EXACT = "total variation of {}, exact"


def _measured(model: Any, x: Tensor, settings: Any) -> dict[str, list[float]]:
    """Of each image, against its grid."""
    num = settings["chains"] * settings["draws"]
    chains = _chains(model, x, settings)
    generator = torch.Generator().manual_seed(stream_seed(0, "exact draws"))
    rows = []
    for number in range(len(x)):
        image = x[number : number + 1]
        grid, log_guide, log_prior = posterior_on_grid(model.model, image, model.guide, _SIDE)
        masses = grid.blocks(_BLOCKS)
        recognized = guide_draws(model.model, model.guide, image, num_draws=num)[:, 0].double()
        sampled = chains.unconstrained[:, :, number].flatten(0, 1).double()
        rows.append(
            {
                "log p(x) on the grid, test, nats": grid.log_evidence,
                _EXACT.format("the prior"): grid.variation_from(log_prior),
                _EXACT.format("recognition"): grid.variation_from(log_guide),
                _KL.format("recognition"): grid.divergence_from(log_guide),
                _TV.format("recognition"): _counted(grid, recognized, masses),
                _TV.format("HMC"): _counted(grid, sampled, masses),
                _TV.format("as many exact draws"): _counted(
                    grid, grid.draw(num, generator), masses
                ),
            }
        )
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return columns | {"rhat": chains.rhat.tolist()}


def _chains(model: Any, x: Tensor, settings: Any) -> Any:
    return hmc(
        model.model, x, guide=model.guide, num_chains=settings["chains"],
        num_samples=settings["draws"], num_warmup=settings["warmup"],
    )  # fmt: skip


def _counted(grid: GridPosterior, draws: Tensor, masses: Tensor) -> float:
    return total_variation(grid.shares(draws, _BLOCKS), masses)


def _claims(divergences: dict[str, Tensor], ratio: dict[str, float]) -> list[Claim]:
    claims = [
        Claim(
            f"Markov chains draw from the {family} model's posteriors as well as exact draws do",
            value < 1.5, f"total variation {value:.2f} times that of as many exact draws",
        )
        for family, value in ratio.items()
    ]  # fmt: skip
    if set(_FAMILIES) <= divergences.keys():
        gain = divergences["diagonal"] - divergences["rank-one"]
        shown = f"KL smaller by {float(gain.mean()):+.3f} ± {standard_error(gain):.3f} nats"
        claims.append(
            Claim(
                "the rank-one recognition model is nearer to its true posterior",
                float(gain.mean()) > 2 * standard_error(gain),
                shown,
            )
        )  # fmt: skip
    return claims


_NOTES = [
    "Three recognition and generative layers as in table 1, with two latents in place of 200, and "
    "no noise on their draws, which a recognition model makes up for by too small a scale; the "
    "two families train models of their own, so each is compared with its own posterior. The "
    "paper shows pictures of such posteriors and gives no figures; these are ours. Images are the "
    "first ones of the test set, and the errors are between images.",
    f"The posterior is a sum over {_SIDE}² cells of a box that holds its mass and the recognition "
    "model's. Total variation by densities is exact up to the cells; that of draws is counted in "
    f"{_BLOCKS}² larger cells and never reaches 0, so the row of as many exact draws is its "
    "floor. The prior's KL is left out: it is dominated by where no data lie.",
    "Pictures: the second column has draws of the prior and the posterior's outline (50 and 95 % "
    "of its mass) at the scale of the prior; the others zoom in on the posterior (shades), with "
    "draws of the recognition model and of Markov chains.",
]


def _picture(model: Any, x: Tensor, settings: Any) -> Figure:
    chains = _chains(model, x, settings)
    generator = torch.Generator().manual_seed(0)
    prior = torch.randn(_DRAWN, 2, generator=generator)
    figure, axes = panels(len(x), 4, (PAGE, 1.75 * len(x)))
    for number in range(len(x)):
        row: Sequence[Axes] = axes[4 * number : 4 * number + 4]
        image = x[number : number + 1]
        grid, _, _ = posterior_on_grid(model.model, image, model.guide, _SIDE)
        row[0].imshow(image[0].numpy(), cmap="gray_r", vmin=0, vmax=1)
        row[0].set_axis_off()
        _contours(row[1], grid)
        row[1].scatter(prior[:, 0], prior[:, 1], s=1.5, color=COLOURS[6], alpha=0.5, linewidths=0)
        row[1].set(xlim=(-4.5, 4.5), ylim=(-4.5, 4.5))
        recognized = guide_draws(model.model, model.guide, image, num_draws=_DRAWN)[:, 0]
        every = max(1, chains.unconstrained[:, :, 0, 0].numel() // _DRAWN)
        sampled = chains.unconstrained[:, :, number].flatten(0, 1)[::every]
        for axis, draws, colour in (
            (row[2], recognized, COLOURS[1]),
            (row[3], sampled, COLOURS[2]),
        ):
            axis.imshow(
                grid.masses.reshape(_SIDE, _SIDE), origin="lower", extent=grid.extent,
                aspect="auto", cmap="Greys",
            )  # fmt: skip
            axis.scatter(draws[:, 0], draws[:, 1], s=1.5, color=colour, alpha=0.6, linewidths=0)
            axis.set(xlim=grid.extent[:2], ylim=grid.extent[2:])
    titles = ("test image", "prior", "recognition model", "Markov chains")
    for axis, title in zip(axes[:4], titles, strict=True):
        axis.set_title(title)
    return figure


def _contours(axis: Axes, grid: GridPosterior) -> None:
    """Of the regions that hold 50 and 95 % of the mass."""
    masses = grid.masses.sort(descending=True)
    gathered = masses.values.cumsum(0)
    levels = sorted(float(masses.values[int((gathered < share).sum())]) for share in (0.5, 0.95))
    across = grid.points[: grid.side, 0]
    along = grid.points[:: grid.side, 1]
    heights = grid.masses.reshape(grid.side, grid.side)
    axis.contour(across, along, heights, levels=levels, colors=[COLOURS[0]], linewidths=0.8)


def _budget(
    families: tuple[str, ...], epochs: int, minutes: float, data: str = "mnist", **settings: Any
) -> Budget:
    trainings = tuple(plane_training(family, epochs, data) for family in families)
    shared = {"families": families, "epochs": epochs, "data": data}
    return Budget(trainings, minutes, {**shared, **settings})


EXPERIMENTS = [
    Experiment(
        "dlgm-posterior",
        "DLGM, true and approximate posteriors",
        "Stochastic Backpropagation and Approximate Inference in Deep Generative Models (Rezende, "
        "Mohamed & Wierstra, 2014), section 6 (analysis of the approximate posterior), "
        "https://arxiv.org/abs/1401.4082",
        {
            "quick": _budget(_FAMILIES[:1], 3, 1, "digits", images=4, chains=4, draws=50,
                             warmup=50),
            "standard": _budget(_FAMILIES, 50, 25, images=20, chains=16, draws=500, warmup=500),
            "full": _budget(_FAMILIES, 500, 150, images=100, chains=16, draws=1000, warmup=500),
        },
        _report,
    )
]  # fmt: skip
