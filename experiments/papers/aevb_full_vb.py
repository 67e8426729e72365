"""Appendix F of the AEVB paper: a posterior over weights as well, against point estimates."""

import math
from functools import partial
from typing import Any

import torch
from matplotlib.figure import Figure
from torch.distributions import Normal, kl_divergence

from aevb.data.seeds import stream_seed
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
from aevb.experiments.reproduction.plane import disc, log_evidence_on

__all__ = ["EXPERIMENTS", "at_drawn_weights", "weight_divergence"]

_KINDS: dict[str, dict[str, Any]] = {
    "map": {"weight_prior_scale": 1.0},
    "full-vb": {"model.weights": "LatentWeights"},
}
_BATCH = 100
# A weight whose posterior is this wide, in scales of the prior, has learned next to nothing.
_UNDETERMINED = 0.9
_PREDICTED = {
    "map": "MAP",
    "integrated": "full VB, weights integrated",
    "mean": "full VB, mean weights",
}


def _training(kind: str, num_train: int, steps: int, data: str) -> Training:
    epochs = steps * _BATCH // num_train
    flags = {
        "data": data, "binarize": "fixed", "model": "VAE", "model.latent_dim": 2,
        "model.hidden": [100], "optimizer": "Adam", "learning_rate": 3e-3,
        "schedule": "MultiStepLR",
        "schedule.milestones": [epochs * 7 // 10, epochs * 9 // 10], "schedule.gamma": 0.3,
        "batch_size": _BATCH, "num_train": num_train, "validate_on": "none",
        "log_every": max(1, epochs // 50), "seed": 0, **_KINDS[kind],
    }  # fmt: skip
    return Training(f"full-vb-{data}-{kind}-{num_train}", flags, epochs)


def at_drawn_weights(model: Any, seed: int) -> Any:
    """A model with one draw of its weights' posterior as parameters.

    Args:
        model: With latent weights.
        seed: Of the draw.
    """
    twin = model.at_mean_weights()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in twin.decoder.named_parameters():
            scale = model.weights.log_scale[name.replace(".", "/")].exp()
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return twin


def weight_divergence(weights: Any) -> float:
    """KL of the weights' posterior from their prior, in nats.

    Args:
        weights: A decoder with a normal for each of its weights.
    """
    with torch.no_grad():
        return sum(
            float(kl_divergence(
                Normal(loc.double(), weights.log_scale[key].double().exp()),
                Normal(0.0, weights.prior_scale),
            ).sum())
            for key, loc in weights.loc.items()
        )  # fmt: skip


def _report(context: Context) -> Report:
    settings = context.settings
    report = Report()
    found = {
        num_train: context.part(f"n-{num_train}", partial(_judged, context, num_train))
        for num_train in settings["num_train"]
    }
    for num_train, each in found.items():
        report.rows += _rows(num_train, each, settings)
    report.claims = _claims(found)
    report.figures = {"predictive": _picture(found)}
    report.tables["predictive"] = (
        ("num_train", "weights", "log_likelihood", "standard_error"),
        [
            (n, label, *(f"{value:.4f}" for value in _mean(each[kind])))
            for n, each in found.items() for kind, label in _PREDICTED.items()
        ],
    )  # fmt: skip
    report.notes = [
        "The appendix gives the estimator and no experiment, so nothing is published to compare "
        "with. Pixels are binarized once, so that N training images are N fixed datapoints with a "
        "probability and the bound is one on log p(X). The model has 2 latents and 100 tanh units "
        "each way; only the generative weights are latent, or have the prior of MAP, both "
        f"N(0, 1). All runs make {settings['steps']:,} steps of {_BATCH} images, with the rate "
        "falling to a third at 70 and 90 % of them; none is stopped early.",
        "With two latents log p(x | θ) is a sum over a grid and no recognition model enters the "
        "predictions. Integrated weights average p(x | θ) of each image over "
        f"{settings['draws']} draws of θ before the logarithm is taken, which falls short of the "
        "integral by as much as draws are few. The grid's error is the mean absolute change when "
        "the grid is moved by half of its spacing. The bound of full VB has its latents summed "
        "over the grid as well, its weights averaged over draws, and counts KL(q(θ)‖p(θ)) / N.",
        "A weight counts as undetermined when its posterior's scale is above "
        f"{_UNDETERMINED:g} of the prior's.",
    ]
    return report


def _judged(context: Context, num_train: int) -> dict[str, Any]:
    """Predictions and uncertainty of both runs on so many training images."""
    settings = context.settings
    opened = {
        kind: context.open(
            _training(kind, num_train, settings["steps"], settings["data"]).name, at_means=False
        )
        for kind in _KINDS
    }
    bayesian: Any = opened["full-vb"].model
    pointwise: Any = opened["map"].model
    x = opened["map"].dataset.test.evaluation(settings["images"])
    train = opened["map"].dataset.train.evaluation(min(num_train, settings["images"]))
    grid, moved = disc(settings["spacing"]), disc(settings["spacing"], 0.5)
    points = {"map": pointwise.decoder, "mean": bayesian.at_mean_weights().decoder}
    values = {kind: log_evidence_on(*grid, decoder, x) for kind, decoder in points.items()}
    errors = {
        kind: float((log_evidence_on(*moved, decoder, x[:100]) - values[kind][:100]).abs().mean())
        for kind, decoder in points.items()
    }
    by_draw, in_training = [], []
    for number in range(settings["draws"]):
        decoder = at_drawn_weights(bayesian, stream_seed(0, f"weights {number}")).decoder
        by_draw.append(log_evidence_on(*grid, decoder, x))
        if number < settings["draws_of_bound"]:
            in_training.append(log_evidence_on(*grid, decoder, train).mean())
    values["integrated"] = torch.stack(by_draw).logsumexp(0) - math.log(len(by_draw))
    ratios = torch.cat([scale.flatten() for scale in bayesian.weights.log_scale.values()]).exp()
    ratios = (ratios / bayesian.weights.prior_scale).detach().double()
    divergence = weight_divergence(bayesian.weights) / num_train
    fitted = torch.stack(in_training)
    return {
        **{kind: each.tolist() for kind, each in values.items()},
        "grid_error": errors,
        "train_map": float(log_evidence_on(*grid, points["map"], train).mean()),
        "bound": float(fitted.mean()) - divergence,
        "bound_error": standard_error(fitted) if len(fitted) > 1 else None,
        "divergence": divergence,
        "ratio_quartiles": torch.quantile(
            ratios, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
        ).tolist(),
        "undetermined": float((ratios > _UNDETERMINED).double().mean()),
        "seconds": {kind: each.seconds for kind, each in opened.items()},
    }  # fmt: skip


def _mean(values: list[float]) -> tuple[float, float]:
    column = torch.tensor(values, dtype=torch.float64)
    return float(column.mean()), standard_error(column)


def _rows(num_train: int, found: dict[str, Any], settings: Any) -> list[Row]:
    rows = []
    for kind, label in _PREDICTED.items():
        run = "map" if kind == "map" else "full-vb"
        grid = found["grid_error"].get(kind)
        details = {
            "images": len(found[kind]), "draws of θ": settings["draws"] * (kind == "integrated"),
            "grid error": "" if grid is None else f"{grid:.4f}", "seed": 0,
            "hours": round(found["seconds"][run] / 3600, 2),
        }  # fmt: skip
        rows.append(Row(f"N = {num_train:,}, {label}", "log p(x), test, nats",
                        *_mean(found[kind]), details=details))  # fmt: skip
    label = f"N = {num_train:,}, full VB"
    median = found["ratio_quartiles"][1]
    return [
        *rows,
        Row(f"N = {num_train:,}, MAP", "log p(x), training images, nats", found["train_map"]),
        Row(label, "bound on log p(X) / N, nats", found["bound"], found["bound_error"]),
        Row(label, "KL(q(θ)‖p(θ)) / N, nats", found["divergence"]),
        Row(label, "median scale of the weights' posterior, % of the prior's", 100 * median),
        Row(label, "undetermined weights, %", 100 * found["undetermined"]),
    ]


def _claims(found: dict[int, dict[str, Any]]) -> list[Claim]:
    claims = []
    for num_train, each in found.items():
        ours, theirs = (torch.tensor(each[kind]).double() for kind in ("integrated", "map"))
        gain = ours - theirs
        claims.append(
            Claim(
                f"integrating the weights predicts better than MAP at N = {num_train:,}",
                float(gain.mean()) > 2 * standard_error(gain),
                f"{float(gain.mean()):+.2f} ± {standard_error(gain):.2f} nats",
            )
        )
    medians = [found[n]["ratio_quartiles"][1] for n in sorted(found)]
    claims.append(
        Claim(
            "data narrow the posterior of the weights",
            all(a > b for a, b in zip(medians, medians[1:], strict=False)),
            "median scales " + ", ".join(f"{value:.3f}" for value in medians),
        )
    )
    return claims


def _picture(found: dict[int, dict[str, Any]]) -> Figure:
    figure, (left, right) = panels(1, 2, (PAGE, 2.4))
    numbers = sorted(found)
    for (kind, label), colour in zip(_PREDICTED.items(), COLOURS, strict=False):
        columns = [_mean(found[n][kind]) for n in numbers]
        means, errors = zip(*columns, strict=True)
        left.errorbar(numbers, means, errors, marker="o", markersize=3, color=colour, label=label)
    bounds = [found[n]["bound"] for n in numbers]
    low = min(min(_mean(found[n][kind])[0] for kind in _PREDICTED) for n in numbers)
    left.plot(numbers, bounds, ":", color=COLOURS[6], label="bound on log p(X) / N (training)")
    left.set(xscale="log", xlabel="training images N", ylabel="log p(x) (nats)")
    left.set_ylim(bottom=low - 10)
    left.legend()
    quartiles = torch.tensor([found[n]["ratio_quartiles"] for n in numbers])
    right.fill_between(numbers, quartiles[:, 0], quartiles[:, 2], color=COLOURS[1], alpha=0.25,
                       linewidth=0, label="middle half of the weights")  # fmt: skip
    right.plot(numbers, quartiles[:, 1], "o-", markersize=3, color=COLOURS[1], label="median")
    shares = [found[n]["undetermined"] for n in numbers]
    right.plot(numbers, shares, "s--", markersize=3, color=COLOURS[4], label="undetermined, share")
    right.set(xscale="log", xlabel="training images N", ylabel="scale, posterior / prior",
              ylim=(0, 1.05))  # fmt: skip
    right.legend()
    return figure


def _budget(
    num_train: tuple[int, ...], steps: int, minutes: float, data: str = "mnist", **settings: Any
) -> Budget:
    trainings = tuple(_training(kind, n, steps, data) for n in num_train for kind in _KINDS)
    shared = {"num_train": num_train, "steps": steps, "data": data}
    return Budget(trainings, minutes, {**shared, **settings})


EXPERIMENTS = [
    Experiment(
        "aevb-full-vb",
        "AEVB appendix F, full variational Bayes",
        "Auto-Encoding Variational Bayes (Kingma & Welling, 2013), appendix F, "
        "https://arxiv.org/abs/1312.6114",
        {
            "quick": _budget((100,), 3, 1, "digits", images=50, draws=3, draws_of_bound=2,
                             spacing=0.2),
            "standard": _budget((100, 1000, 10_000), 10_000, 28, images=1000, draws=10,
                                draws_of_bound=3, spacing=0.06),
            "full": _budget((100, 300, 1000, 3000, 10_000), 100_000, 240, images=1000, draws=50,
                            draws_of_bound=10, spacing=0.04),
        },
        _report,
    )
]  # fmt: skip
