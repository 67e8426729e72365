"""Missing pixels of digits and faces filled in: the DLGM paper's Markov chain against HMC."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from aevb.data.seeds import stream_seed
from aevb.evaluation import Imputation, denoise, impute, impute_hmc
from aevb.experiments.missing_pixels import (
    CHAINS,
    LEVEL,
    MASKS,
    calibration_error,
    interval_hits,
    log_score,
    mask,
    squared_error,
)
from aevb.experiments.papers.aevb_fig2 import fig2_training, frey_flags
from aevb.experiments.papers.dlgm_table1 import dlgm_training
from aevb.experiments.reproduction.context import Context, standard_error
from aevb.experiments.reproduction.experiment import (
    Budget,
    Claim,
    Experiment,
    Report,
    Row,
    Training,
)
from aevb.experiments.reproduction.pictures import COLOURS, PAGE, image_grid, panels

__all__ = ["EXPERIMENTS"]

_FLIPPED, _NOISE = 0.1, 0.1  # of the bits; scale of what is added to grey levels
_HMC = "HMC"


@dataclass(frozen=True)
class _Data:
    """A dataset with the run that knows it.

    Attributes:
        title: As rows and figures name it.
        training: Its run.
        is_binary: Whether pixels are 0 or 1.
        colours: Map of the grey levels.
    """

    title: str
    training: Training
    is_binary: bool
    colours: str


def _scores(found: Imputation, x: Tensor, observed: Tensor, is_binary: bool) -> dict[str, Any]:
    """What JSON can hold of an imputation: a figure for each image, and calibration."""
    scores: dict[str, Any] = {"mse": squared_error(found.mean, x, observed).tolist()}
    if is_binary:
        scores["log score"] = log_score(found.mean, x, observed).tolist()
        scores["calibration"], scores["bins"] = calibration_error(found.mean, x, observed)
    else:
        scores["coverage"] = interval_hits(found.last, x, observed).tolist()
    return scores


def _studied(context: Context, data: _Data, kind: str) -> dict[str, Any]:
    """Scores and pictures of one mask, by number of steps, and of HMC."""
    settings, opened = context.settings, context.open(data.training.name)
    model, x = opened.model, opened.dataset.test.evaluation(settings["images"])
    generator = torch.Generator().manual_seed(stream_seed(0, f"mask {kind}"))
    observed = mask(kind, x.shape, generator)
    found: dict[str, Any] = {"steps": {}, "pictures": {}}
    few = settings["drawn"]

    def keep(name: str, result: Imputation) -> None:
        found["steps"][name] = _scores(result, x, observed, data.is_binary)
        found["pictures"][name] = result.last[0, :few].tolist()

    for steps in settings["steps"]:  # the same chains, as far as they go
        keep(
            str(steps),
            impute(model.model, model.guide, x, observed, num_steps=steps, num_chains=CHAINS),
        )
    hmc = impute_hmc(
        model.model, x, observed, guide=model.guide, num_chains=CHAINS,
        num_samples=settings["draws"], num_warmup=settings["warmup"],
    )  # fmt: skip
    keep(_HMC, hmc)
    found["pictures"]["HMC mean"] = hmc.mean[:few].tolist()
    found["pictures"]["original"] = x[:few].tolist()
    found["pictures"]["masked"] = torch.where(observed, x, 0.5)[:few].tolist()
    found["rhat"] = None if hmc.draws is None else float(hmc.draws.rhat.median())
    return found


def _report(context: Context) -> Report:
    report = Report()
    for data in context.settings["data"]:
        found = {
            kind: context.part(
                f"{data.training.name}-{kind.replace(' ', '')}",
                partial(_studied, context, data, kind),
            )
            for kind in context.settings["masks"]
        }
        for kind, result in found.items():
            report.rows += _rows(context, data, kind, result)
            report.claims += _claims(context, data, kind, result)
        report.rows += _denoised(context, data)
        short = data.title.split()[0].lower()
        report.figures[f"images-{short}"] = _images(context, data, found)
        report.figures[f"errors-{short}"] = _errors(context, data, found)
        report.tables |= {f"steps-{short}": _table(found), **_bins(short, found)}
    report.notes = [
        f"Error is the mean squared error of the missing pixels under the mean of {CHAINS} chains "
        "over the last half of their steps; errors are over images. For binary pixels the log "
        "score is the mean log-probability of a missing pixel, and calibration the distance of "
        "predicted probabilities from frequencies in ten bins; for grey ones, coverage is the "
        f"share of missing pixels between the second smallest and second largest of {CHAINS} "
        "draws, which is 90 % in expectation if draws and truth are exchangeable: a model that "
        "is wrong misses it even with exact draws.",
        "The paper shows pictures of imputation and gives no scores. What is missing where is "
        "ours: the square has half the sides of the image. Its third dataset, SVHN, is left "
        f"out. Pictures show the state of one chain. Denoising flips {_FLIPPED:.0%} of the bits, "
        f"or adds noise of scale {_NOISE} to grey levels, and takes one step of the chain.",
    ]
    return report


def _rows(context: Context, data: _Data, kind: str, found: Mapping[str, Any]) -> list[Row]:
    longest = str(context.settings["steps"][-1])
    rows = []
    for name, label in ((longest, f"chain, {longest} steps"), (_HMC, _HMC)):
        scores = found["steps"][name]
        details = {"images": context.settings["images"], "epochs": data.training.epochs}
        if name == _HMC:
            details["median R̂"] = f"{found['rhat']:.3f}"
        for quantity, unit, factor in (
            ("mse", "mean squared error × 100", 100.0),
            ("log score", "log score of a missing pixel × 100, nats", 100.0),
            ("coverage", "coverage of 90 % intervals, %", 100.0),
        ):
            if quantity in scores:
                each = factor * torch.tensor(scores[quantity], dtype=torch.float64)
                rows.append(
                    Row(f"{data.title}, {MASKS[kind]}, {label}", unit, float(each.mean()),
                        standard_error(each), details=details)
                )  # fmt: skip
        if "calibration" in scores:
            rows.append(
                Row(f"{data.title}, {MASKS[kind]}, {label}", "calibration error, %",
                    100 * scores["calibration"], details=details)
            )  # fmt: skip
    return rows


def _claims(context: Context, data: _Data, kind: str, found: Mapping[str, Any]) -> list[Claim]:
    first, last = (str(context.settings["steps"][place]) for place in (0, -1))
    where = f"{data.title}, {MASKS[kind]}"
    fallen = _difference(found, "mse", first, last)
    quantity, sign = ("log score", -1.0) if data.is_binary else ("mse", 1.0)
    behind = sign * _difference(found, quantity, last, _HMC)
    return [
        Claim(
            f"{where}: the chain's error falls from {first} to {last} steps",
            float(fallen.mean()) > 0,
            f"by {float(fallen.mean()):.4f} ± {standard_error(fallen):.4f}",
        ),
        Claim(
            f"{where}: HMC, which is exact, is not behind the chain by {quantity}, to two "
            "standard errors",
            float(behind.mean()) > -2 * standard_error(behind),
            f"ahead by {float(behind.mean()):.4f} ± {standard_error(behind):.4f}",
        ),
    ]


def _difference(found: Mapping[str, Any], quantity: str, one: str, other: str) -> Tensor:
    """Of each image, ``(N,)``."""
    a, b = (
        torch.tensor(found["steps"][name][quantity], dtype=torch.float64) for name in (one, other)
    )
    return a - b


def _denoised(context: Context, data: _Data) -> list[Row]:
    opened = context.open(data.training.name)
    model, x = opened.model, opened.dataset.test.evaluation(context.settings["images"])
    generator = torch.Generator().manual_seed(stream_seed(0, "noise"))
    if data.is_binary:
        noisy = torch.where(torch.rand(x.shape, generator=generator) < _FLIPPED, 1 - x, x)
    else:
        noisy = x + _NOISE * torch.randn(x.shape, generator=generator)
    cleaned = denoise(model.model, model.guide, noisy).mean
    before, after = (
        (image - x).double().square().flatten(1).mean(1) for image in (noisy, cleaned)
    )
    return [
        Row(f"{data.title}, {label}", "mean squared error × 100, all pixels",
            100 * float(each.mean()), 100 * standard_error(each),
            details={"images": len(x), "epochs": data.training.epochs})
        for label, each in (("noisy", before), ("denoised", after))
    ]  # fmt: skip


def _images(context: Context, data: _Data, found: Mapping[str, Any]) -> Figure:
    shown = [str(steps) for steps in context.settings["steps"] if steps <= 30]
    columns = ["original", "masked", *shown, _HMC, "HMC mean"]
    titles = [f"{c} step{'s' * (c != '1')}" if c in shown else c for c in columns]
    images = [
        torch.cat([torch.tensor(result["pictures"][column]) for result in found.values()])
        for column in columns
    ]
    white = 0.0 if data.colours == "gray_r" else 1.0
    framed = torch.nn.functional.pad(torch.stack(images), (1, 1, 1, 1), value=white)
    return image_grid(framed, 1, titles, data.colours)


def _errors(context: Context, data: _Data, found: Mapping[str, Any]) -> Figure:
    quantities: dict[str, Callable[[Any], float]] = {
        "mean squared error": lambda scores: _mean(scores["mse"])
    }
    if data.is_binary:
        quantities["log score (nats a pixel)"] = lambda scores: _mean(scores["log score"])
        quantities["calibration error"] = lambda scores: float(scores["calibration"])
    else:
        quantities["coverage of 90 % intervals"] = lambda scores: _mean(scores["coverage"])
    steps = context.settings["steps"]
    figure, axes = panels(1, len(quantities), (PAGE, 2.5))
    for axis, (label, figure_of) in zip(axes, quantities.items(), strict=True):
        for (kind, result), colour in zip(found.items(), COLOURS, strict=False):
            values = [figure_of(result["steps"][str(number)]) for number in steps]
            axis.plot(steps, values, "o-", color=colour, markersize=2.5, label=MASKS[kind])
            axis.axhline(figure_of(result["steps"][_HMC]), color=colour, linestyle="--")
        axis.set_xscale("log")
        axis.set_xticks(steps, [str(number) for number in steps])
        axis.minorticks_off()
        axis.set_xlabel("steps of the chain")
        axis.set_ylabel(label)
    if not data.is_binary:
        axes[-1].axhline(LEVEL, color="black", linewidth=0.6)
    axes[0].plot([], [], "k--", label=_HMC)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _table(found: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    return ("mask", "steps", "quantity", "value"), [
        (kind, name, quantity, round(_mean(values) if isinstance(values, list) else values, 6))
        for kind, result in found.items() for name, scores in result["steps"].items()
        for quantity, values in scores.items() if quantity != "bins"
    ]  # fmt: skip


def _bins(short: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """How often predicted probabilities come true, where pixels are binary."""
    rows = [
        (kind, name, *(round(value, 4) for value in each))
        for kind, result in found.items() for name, scores in result["steps"].items()
        for each in scores.get("bins", ())
    ]  # fmt: skip
    header = ("mask", "steps", "mean prediction", "frequency of ones", "pixels")
    return {f"calibration-{short}": (header, rows)} if rows else {}


def _budget(minutes: float, binary: _Data, grey: _Data, **settings: Any) -> Budget:
    return Budget((binary.training, grey.training), minutes, {"data": (binary, grey), **settings})


def _digits() -> tuple[_Data, _Data]:
    """Small stand-ins of both."""
    flags = {**frey_flags(5, 50, "digits"), "learning_rate": 0.02}
    return (
        _Data("Binary digits", dlgm_training("rank-one", 0, 2, "digits"), True, "gray_r"),
        _Data("Grey digits", Training("imputation-digits-5", flags, 3), False, "gray_r"),
    )


def _paper(epochs: int, latent_dim: int, points: float) -> tuple[_Data, _Data]:
    """The first rank-one run of the DLGM's table, and a run of AEVB's figure 2."""
    faces = fig2_training("frey-face", latent_dim, "aevb", points)
    return (
        _Data("MNIST", dlgm_training("rank-one", 0, epochs), True, "gray_r"),
        _Data("Frey faces", faces, False, "gray"),
    )


EXPERIMENTS = [
    Experiment(
        "dlgm-imputation",
        "Imputation and denoising by the DLGM paper's Markov chain and by HMC",
        "Stochastic Backpropagation and Approximate Inference in Deep Generative Models (Rezende, "
        "Mohamed & Wierstra, 2014), section 6 and appendix F, https://arxiv.org/abs/1401.4082",
        {
            "quick": _budget(
                1,
                *_digits(),
                masks=("60 %", "square"),
                steps=(1, 2, 5),
                images=5,
                drawn=1,
                draws=10,
                warmup=20,
            ),
            "standard": _budget(
                25,
                *_paper(50, 10, 2e6),
                masks=tuple(MASKS),
                steps=(1, 2, 5, 10, 30, 100),
                images=20,
                drawn=2,
                draws=100,
                warmup=150,
            ),
            "full": _budget(
                330,
                *_paper(2000, 20, 1e8),
                masks=tuple(MASKS),
                steps=(1, 2, 5, 10, 30, 100, 300),
                images=50,
                drawn=2,
                draws=250,
                warmup=500,
            ),
        },
        _report,
    )
]
