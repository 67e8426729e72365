"""How much each estimator of a Gaussian expectation's gradient varies, against the dimension."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from aevb.experiments.reproduction.context import Context
from aevb.experiments.reproduction.experiment import Budget, Claim, Experiment, Report, Row
from aevb.experiments.reproduction.pictures import COLOURS, PAGE, panels
from aevb.inference.svi import gaussian_gradients as gg

__all__ = ["COVARIANCES", "ESTIMATORS", "EXPERIMENTS", "problem", "variances"]

ESTIMATORS: dict[str, Callable[..., gg.GaussianGradients]] = {
    "reparameterization": gg.reparameterization,
    "Bonnet and Price": gg.bonnet_price,
    "score function": gg.score_function,
}
COVARIANCES = ("diagonal", "rank-one", "full")
_PARTS = {"loc": "μ", "covariance": "C"}
_FREQUENCY = 10.0  # squared length of w
_FEWEST_BLOCKS = 20
_NUMBERS_AT_ONCE = 8_000_000  # of a block's gradients: 64 MB


@dataclass(frozen=True)
class Variance:
    """Summed over coordinates the variance of one draw's gradient.

    Attributes:
        value: Mean over blocks of draws of the unbiased estimate.
        error: Its standard error, from the spread over blocks.
    """

    value: float
    error: float


def problem(
    size: int, seed: int = 0
) -> tuple[Callable[[Tensor], Tensor], Tensor, dict[str, gg.Covariance], torch.Generator]:
    r"""A function linear plus quadratic plus a sine, and Gaussians to average it over.

    .. math:: f(z) = a^\top z + z^\top B z + \sin(w^\top z), \qquad
        a_i \sim \mathcal{N}(0, 1), \; B_{ij} \sim \mathcal{N}(0, K^{-2}), \;
        w_i \sim \mathcal{N}(0, 10 / K)

    Args:
        size: K, the dimension.
        seed: Of the coefficients, the means and the covariances.

    Returns:
        f, μ, the covariances by name, and the generator to go on with.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    linear, wave, root = normal(size), normal(size), normal(size, size)
    quadratic = normal(size, size) / size
    wave = wave * math.sqrt(_FREQUENCY / size)  # so that the sine is as steep in any dimension

    def function(z: Tensor) -> Tensor:
        return linear @ z + z @ quadratic @ z + torch.sin(wave @ z)

    covariances = {
        "diagonal": gg.DiagonalCovariance(normal(size).exp()),
        "rank-one": gg.RankOneCovariance(normal(size).exp(), normal(size)),
        "full": gg.FullCovariance(root @ root.T / size + 0.5 * torch.eye(size).double()),
    }
    return function, normal(size), covariances, generator


def variances(
    estimate: Callable[[int], gg.GaussianGradients], draws: int, size: int
) -> dict[str, Variance]:
    """Of an estimator, with respect to μ and to the parameters of C.

    Args:
        estimate: Gives so many single-draw gradients.
        draws: In all.
        size: Dimension, which bounds the block of draws that is held at once.
    """
    block = max(2, min(draws // _FEWEST_BLOCKS, _NUMBERS_AT_ONCE // size**2))
    found: dict[str, list[float]] = {part: [] for part in _PARTS}
    for _ in range(max(2, draws // block)):
        gradients = estimate(block)
        found["loc"].append(float(gradients.loc.var(0).sum()))
        found["covariance"].append(
            sum(float(v.var(0).sum()) for v in gradients.covariance.values())
        )
    return {part: _over_blocks(values) for part, values in found.items()}


def _over_blocks(values: Sequence[float]) -> Variance:
    each = torch.tensor(values, dtype=torch.float64)
    return Variance(float(each.mean()), float(each.std()) / math.sqrt(len(each)))


def _measured(size: int, draws: int, seed: int) -> dict[str, Any]:
    """By covariance, estimator and part, what JSON can hold."""
    function, loc, covariances, generator = problem(size, seed)
    return {
        shape: {
            name: {
                part: (variance.value, variance.error)
                for part, variance in variances(
                    partial(estimator, function, loc, covariance, generator=generator),
                    draws, size,
                ).items()
            }
            for name, estimator in ESTIMATORS.items()
        }
        for shape, covariance in covariances.items()
    }  # fmt: skip


def _averaged(problems: list[dict[str, Any]]) -> dict[str, Any]:
    """Geometric means over problems, with the error of their logarithm as a factor."""

    def mean(shape: str, name: str, part: str) -> tuple[float, float]:
        logs = torch.tensor([each[shape][name][part][0] for each in problems]).double().log()
        error = float(logs.std()) / math.sqrt(len(logs)) if len(logs) > 1 else 0.0
        return math.exp(float(logs.mean())), math.exp(error)

    return {
        shape: {name: {part: mean(shape, name, part) for part in _PARTS} for name in ESTIMATORS}
        for shape in COVARIANCES
    }


def _report(context: Context) -> Report:
    sizes, draws = context.settings["sizes"], context.settings["draws"]
    problems = {
        size: [
            context.part(
                f"variances-{size}-{draws}-{seed}",
                partial(_measured, size, draws, seed),
            )
            for seed in range(context.settings["problems"])
        ]
        for size in sizes
    }
    means = {size: _averaged(each) for size, each in problems.items()}
    report = Report()
    for size in context.settings["shown"]:
        for shape in COVARIANCES:
            for name in ESTIMATORS:
                for part, symbol in _PARTS.items():
                    value, error = problems[size][0][shape][name][part]
                    report.rows.append(
                        Row(f"{shape} C, {name}", f"variance of the gradient for {symbol}", value,
                            error, details={"dimensions": size, "draws": draws, "problem": 0})
                    )  # fmt: skip
    report.claims = [*_claims(means), _alike(problems)]
    report.figures = {"variances": _picture(means)}
    report.tables = {
        "variances": (
            ("dimensions", "problem", "covariance", "estimator", "gradient for", "variance",
             "error"),
            [
                (size, seed, shape, name, symbol, *(f"{v:.6g}" for v in each[shape][name][part]))
                for size in sizes for seed, each in enumerate(problems[size])
                for shape in COVARIANCES for name in ESTIMATORS for part, symbol in _PARTS.items()
            ],
        )
    }  # fmt: skip
    report.notes = [
        "Variances of one draw's gradient, summed over its coordinates, in float64. "
        "f(z) = aᵀz + zᵀBz + sin(wᵀz) with standard normal a, entries of B of scale 1/K and of w "
        "of variance 10/K, so that the sine is as steep in any dimension; C is parametrized by "
        "its variances, by D and u of its inverse D + uuᵀ, or by itself. Function and Gaussians "
        "are ours, and no published figure stands beside them. Rows are of the first problem; "
        f"the figure and the claims are geometric means over {context.settings['problems']}, "
        "each with other coefficients, means and covariances.",
        "For μ, reparameterization and Bonnet's theorem are the same estimator. For C, Price's "
        "theorem needs the Hessian: K products of it with a vector for each draw, where "
        "reparameterization needs one gradient. " + _lower(means),
    ]
    return report


def _claims(means: dict[int, Any]) -> list[Claim]:
    claims = []
    for more, less, part, sizes, where in (
        ("score function", "reparameterization", "loc", list(means), "every dimension"),
        ("score function", "reparameterization", "covariance", list(means), "every dimension"),
    ):  # fmt: skip
        ratios = [
            means[size][shape][more][part][0] / means[size][shape][less][part][0]
            for size in sizes for shape in COVARIANCES
        ]  # fmt: skip
        claims.append(
            Claim(
                f"{more} varies more than {less} for {_PARTS[part]}, in {where} and for every "
                "covariance",
                min(ratios) > 1,
                f"{min(ratios):.3g} to {max(ratios):.3g} times",
            )
        )
    return claims


def _lower(means: dict[int, Any]) -> str:
    """In how many cases Price's theorem varies less, as a sentence."""
    cases = [
        each[shape]["Bonnet and Price"]["covariance"][0]
        < each[shape]["reparameterization"]["covariance"][0]
        for each in means.values() for shape in COVARIANCES
    ]  # fmt: skip
    return (
        "Which of the two varies less for C depends on f: one sees its slope and the other its "
        "curvature, and a sine that is steep beside the rest favours the slope. Price's theorem "
        f"varies less in {sum(cases)} of the {len(cases)} pairs of dimension and covariance here."
    )


def _alike(problems: dict[int, Any]) -> Claim:
    """Reparameterization and Bonnet's theorem are one estimator, at other draws here."""
    distances = []
    for each in (problem for found in problems.values() for problem in found):
        for shape in COVARIANCES:
            (a, first), (b, second) = (
                each[shape][name]["loc"] for name in ("reparameterization", "Bonnet and Price")
            )
            distances.append(abs(a - b) / math.hypot(first, second))
    return Claim(
        "for μ, reparameterization and Bonnet vary alike, to five standard errors",
        max(distances) < 5, f"at most {max(distances):.1f} standard errors apart",
    )  # fmt: skip


def _picture(means: dict[int, Any]) -> Figure:
    figure, axes = panels(1, len(COVARIANCES), (PAGE, 2.5), sharey=True)
    sizes = list(means)
    for axis, shape in zip(axes, COVARIANCES, strict=True):
        for name, colour in zip(ESTIMATORS, COLOURS, strict=False):
            for (part, symbol), line in zip(_PARTS.items(), ("o--", "o-"), strict=True):
                pairs = [means[size][shape][name][part] for size in sizes]
                values = [value for value, _ in pairs]
                axis.plot(sizes, values, line, color=colour, markersize=2.5,
                          label=f"{name}, {symbol}")  # fmt: skip
                axis.fill_between(
                    sizes, [value / factor for value, factor in pairs],
                    [value * factor for value, factor in pairs], color=colour, alpha=0.15,
                    linewidth=0,
                )  # fmt: skip
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_title(f"{shape} C")
        axis.set_xlabel("dimensions")
    axes[0].set_ylabel("variance of a draw's gradient")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _budget(
    sizes: tuple[int, ...], problems: int, draws: int, minutes: float, shown: tuple[int, ...]
) -> Budget:
    settings = {"sizes": sizes, "problems": problems, "draws": draws, "shown": shown}
    return Budget((), minutes, settings)


EXPERIMENTS = [
    Experiment(
        "gradient-variance",
        "Variances of Gaussian gradient estimators",
        "Stochastic Backpropagation and Approximate Inference in Deep Generative Models (Rezende, "
        "Mohamed & Wierstra, 2014), sections 3 and 4, https://arxiv.org/abs/1401.4082",
        {
            "quick": _budget((2, 5, 10), 1, 2000, 0.1, (10,)),
            "standard": _budget((2, 5, 10, 20, 50, 100), 5, 2000, 2, (10, 100)),
            "full": _budget((2, 5, 10, 20, 50, 100, 200), 10, 20_000, 60, (10, 100, 200)),
        },
        _report,
    )
]
