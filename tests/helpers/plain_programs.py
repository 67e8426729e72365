"""Pyro programs as Pyro's users write them, for one run at a time, with what is known of them.

None is written for an outer plate of draws: they index latents from the left, multiply matrices
by vectors, reduce, stack, loop, and look at shapes. Their data are a handful of numbers.
"""

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.contrib.gp import kernels
from pyro.contrib.gp.models import GPRegression
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from pyro.nn import PyroModule, PyroSample
from torch import Tensor, nn

from plain_truths import (
    Axis,
    Truth,
    conjugate,
    covariance_of,
    linear_gaussian,
    over_grid,
    over_hyperparameters,
    quadrature,
)

__all__ = ["PROGRAMS", "PlainProgram", "float64", "named"]

Program = Callable[..., Any]


@dataclass(frozen=True)
class PlainProgram:
    """A program with its data and the truth about its posterior.

    Attributes:
        name: Of the program.
        style: What it does that a program written for an outer plate would not.
        build: Makes the model afresh, so that no run sees what another has trained.
        args: Its arguments.
        known: The truth, from a factor of the quadrature's points; None where it is refused.
        make_guide: A guide for a model.
        untraced: Why its training steps have no graph, as a regular expression; None if they have.
        refused: What the refusal's message says, likewise.
        refused_by: Functions that refuse it.
    """

    name: str
    style: str
    build: Callable[[], Program]
    args: tuple[Any, ...] = ()
    known: Callable[[float], Truth] | None = None
    make_guide: Callable[[Program], Program] = AutoMultivariateNormal
    untraced: str | None = None
    refused: str | None = None
    refused_by: tuple[str, ...] = ()

    @property
    def model(self) -> Program:
        """The model, made afresh."""
        with float64():
            return self.build()

    def guide(self, model: Program) -> Program:
        """A guide for one of the models."""
        with float64():
            return self.make_guide(model)

    def truth(self, finer: float = 1.0) -> Truth:
        """What is known of the posterior.

        Args:
            finer: Factor of the quadrature's points in each dimension.
        """
        assert self.known is not None, f"{self.name}: nothing is known of its posterior"
        with float64(), torch.no_grad():
            return self.known(finer)


@contextmanager
def float64() -> Iterator[None]:
    """Plain programs make their constants in the default type, which is this in here."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _always(model: Program) -> Callable[[], Program]:
    return lambda: model


def _numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _places(*values: int) -> Tensor:
    return torch.tensor(values)


EVERYWHERE = ("hmc", "importance_evidence", "ais_evidence")

X = _numbers(-1.2, -0.7, -0.3, 0.0, 0.4, 0.9, 1.3, 1.8)
FEATURES = torch.stack([X, _numbers(0.5, -1.0, 0.3, 1.2, -0.6, 0.1, -0.9, 0.7)], -1)
Y = _numbers(-0.9, -1.1, 0.2, 0.8, 0.1, 1.4, 0.7, 2.3)
GROUP = _places(0, 0, 1, 1, 1, 2, 3, 3)
EIGHT = _numbers(28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
ERRORS = _numbers(15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)


def _eye(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)


def _one_hot(places: Tensor, count: int) -> Tensor:
    return _eye(count)[places]


def _zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


def _ones(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.float64)


# Eight schools


def eight_schools_centred(y: Tensor, sigma: Tensor) -> None:
    num_schools = len(y)
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.LogNormal(2.0, 0.5))
    theta = pyro.sample(
        "theta",
        dist.Normal(mu * torch.ones(num_schools), tau * torch.ones(num_schools)).to_event(1),
    )
    pyro.sample("y", dist.Normal(theta, sigma).to_event(1), obs=y)


def _eight_schools_centred(finer: float) -> Truth:
    def conditional(v: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        count = len(v["tau"])
        root = _zeros(count, 9, 9)
        root[:, :, 0] = 5.0
        root[:, range(1, 9), range(1, 9)] = v["tau"].unsqueeze(-1)
        design = torch.cat([_zeros(8, 1), _eye(8)], -1)
        return design, ERRORS.square(), _zeros(count, 9), covariance_of(root)

    axes = [Axis("tau", dist.LogNormal(2.0, 0.5), -3.0, 7.0, 401)]
    return over_hyperparameters(
        axes, conditional, EIGHT, {"mu": slice(0, 1), "theta": slice(1, 9)}, finer
    )


def eight_schools_noncentred(num_schools: int, sigma: Tensor, y: Tensor) -> Tensor:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", num_schools):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * eta)
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)
    return theta


def _eight_schools_noncentred(finer: float) -> Truth:
    def conditional(v: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        count = len(v["tau"])
        effects = v["tau"].reshape(-1, 1, 1) * _eye(8)
        design = torch.cat([_ones(count, 8, 1), effects], -1)
        prior = torch.diag_embed(torch.cat([25 * _ones(1), _ones(8)]))
        return design, ERRORS.square(), _zeros(9), prior.expand(count, 9, 9)

    axes = [Axis("tau", dist.HalfCauchy(5.0), -25.0, 12.0, 1001)]
    return over_hyperparameters(
        axes, conditional, EIGHT, {"mu": slice(0, 1), "eta": slice(1, 9)}, finer
    )


# Regressions


def group_intercepts(group: Tensor, x: Tensor, y: Tensor) -> None:
    tau = pyro.sample("tau", dist.LogNormal(-0.5, 0.5))
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("groups", 4):
        b = pyro.sample("b", dist.Normal(0.0, tau))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(b[group] + slope * x, 0.5), obs=y)


def _group_intercepts(finer: float) -> Truth:
    design = torch.cat([X.unsqueeze(-1), _one_hot(GROUP, 4)], -1)

    def conditional(v: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        tau = v["tau"].unsqueeze(-1)
        prior = torch.diag_embed(torch.cat([torch.ones_like(tau), tau.square().expand(-1, 4)], -1))
        return design, 0.25 * _ones(8), _zeros(5), prior

    axes = [Axis("tau", dist.LogNormal(-0.5, 0.5), -5.0, 4.0, 301)]
    return over_hyperparameters(
        axes, conditional, Y, {"slope": slice(0, 1), "b": slice(1, 5)}, finer
    )


def radon(county: Tensor, floor: Tensor, log_radon: Tensor) -> None:
    mu_a = pyro.sample("mu_a", dist.Normal(0.0, 1.0))
    mu_b = pyro.sample("mu_b", dist.Normal(0.0, 1.0))
    sigma_a = pyro.sample("sigma_a", dist.LogNormal(-0.5, 0.4))
    sigma_b = pyro.sample("sigma_b", dist.LogNormal(-0.5, 0.4))
    with pyro.plate("counties", 3):
        alpha = pyro.sample("alpha", dist.Normal(mu_a, sigma_a))
        beta = pyro.sample("beta", dist.Normal(mu_b, sigma_b))
    sigma = pyro.sample("sigma", dist.LogNormal(-0.5, 0.4))
    with pyro.plate("houses", len(county)):
        mean = alpha[county] + beta[county] * floor
        pyro.sample("log_radon", dist.Normal(mean, sigma), obs=log_radon)


COUNTY = _places(0, 0, 0, 1, 1, 2, 2, 2)
FLOOR = _numbers(0, 1, 0, 1, 0, 0, 1, 1)
LOG_RADON = _numbers(1.5, 0.6, 1.1, 0.1, 0.9, 1.9, 1.2, 0.8)


def _radon(finer: float) -> Truth:
    house = _one_hot(COUNTY, 3)
    design = torch.cat([_zeros(8, 2), house, house * FLOOR.unsqueeze(-1)], -1)

    def conditional(v: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        root = _eye(8).repeat(len(v["sigma"]), 1, 1)
        root[:, 2:5, 0] = root[:, 5:8, 1] = 1.0
        root[:, range(2, 5), range(2, 5)] = v["sigma_a"].unsqueeze(-1)
        root[:, range(5, 8), range(5, 8)] = v["sigma_b"].unsqueeze(-1)
        noise = v["sigma"].square().unsqueeze(-1) * _ones(8)
        return design, noise, _zeros(8), covariance_of(root)

    scale = dist.LogNormal(-0.5, 0.4)
    axes = [Axis(name, scale, -3.1, 2.1, 23) for name in ("sigma_a", "sigma_b", "sigma")]
    sites = {
        "mu_a": slice(0, 1),
        "mu_b": slice(1, 2),
        "alpha": slice(2, 5),
        "beta": slice(5, 8),
    }
    return over_hyperparameters(axes, conditional, LOG_RADON, sites, finer)


def linear_regression(x: Tensor, y: Tensor) -> None:
    intercept = pyro.sample("intercept", dist.Normal(0.0, 2.0))
    b = pyro.sample("b", dist.Normal(torch.zeros(x.shape[1]), torch.ones(x.shape[1])).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(intercept + x @ b, sigma), obs=y)


def _linear_regression(finer: float) -> Truth:
    design = torch.cat([_ones(8, 1), FEATURES], -1)

    def conditional(v: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        noise = v["sigma"].square().unsqueeze(-1) * _ones(8)
        return design, noise, _zeros(3), torch.diag(_numbers(4.0, 1.0, 1.0))

    axes = [Axis("sigma", dist.HalfNormal(1.0), -8.0, 2.5, 401)]
    sites = {"intercept": slice(0, 1), "b": slice(1, 3)}
    return over_hyperparameters(axes, conditional, Y, sites, finer)


class BayesianRegression(PyroModule):  # type: ignore[misc]
    """The regression with its weights as samples of a module."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = PyroModule[nn.Linear](in_features, out_features)
        self.linear.weight = PyroSample(
            dist.Normal(0.0, 1.0).expand([out_features, in_features]).to_event(2)
        )
        self.linear.bias = PyroSample(dist.Normal(0.0, 2.0).expand([out_features]).to_event(1))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        sigma = pyro.sample("sigma", dist.Uniform(0.0, 3.0))
        mean = self.linear(x).squeeze(-1)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("obs", dist.Normal(mean, sigma), obs=y)
        return mean


def _bayesian_regression(finer: float) -> Truth:
    design = torch.cat([_ones(8, 1), FEATURES], -1)

    def conditional(v: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        noise = v["sigma"].square().unsqueeze(-1) * _ones(8)
        return design, noise, _zeros(3), torch.diag(_numbers(4.0, 1.0, 1.0))

    axes = [Axis("sigma", dist.Uniform(0.0, 3.0), -8.0, 14.0, 801)]
    sites = {"linear.bias": slice(0, 1), "linear.weight": slice(1, 3)}
    return over_hyperparameters(axes, conditional, Y, sites, finer)


def keyword_regression(x: Tensor, y: Tensor | None = None, *, noise: float = 1.0) -> Tensor:
    b = pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", x.size(0)):
        return pyro.sample("y", dist.Normal(torch.mv(x, b), noise), obs=y)


def _keyword_regression(finer: float) -> Truth:
    del finer
    return conjugate({"b": slice(0, 2)}, FEATURES, 0.36 * _ones(8), Y, _zeros(2), _eye(2))


def logistic(x: Tensor, y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    bias = pyro.sample("bias", dist.Normal(0.0, 1.0))
    with pyro.plate("data", x.shape[0]):
        pyro.sample("y", dist.Bernoulli(logits=x @ w + bias), obs=y)


LABELS = _numbers(0, 0, 1, 1, 0, 1, 1, 1)


def _normal(name: str, loc: float = 0.0, scale: float = 1.0, points: int = 61) -> Axis:
    return Axis(name, dist.Normal(loc, scale), loc - 7 * scale, loc + 7 * scale, points)


def _logistic(finer: float) -> Truth:
    def likelihood(v: dict[str, Tensor]) -> Tensor:
        w = torch.stack([v["w0"], v["w1"]], -1)
        logits = w @ FEATURES.T + v["bias"].unsqueeze(-1)
        return dist.Bernoulli(logits=logits).log_prob(LABELS).sum(-1)

    return quadrature(
        [_normal("w0"), _normal("w1"), _normal("bias")],
        likelihood,
        lambda v: {"w": torch.stack([v["w0"], v["w1"]], -1), "bias": v["bias"]},
        finer,
    )


def poisson_regression(x: Tensor, counts: Tensor) -> None:
    coefficients = pyro.sample("coefficients", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    rate = torch.exp(coefficients[0] + coefficients[1] * x)
    with pyro.plate("data", len(x)):
        pyro.sample("counts", dist.Poisson(rate), obs=counts)


COUNTS = _numbers(0, 1, 0, 2, 1, 3, 5, 9)


def _poisson_regression(finer: float) -> Truth:
    def likelihood(v: dict[str, Tensor]) -> Tensor:
        rate = torch.exp(v["a"].unsqueeze(-1) + v["b"].unsqueeze(-1) * X)
        return dist.Poisson(rate).log_prob(COUNTS).sum(-1)

    return quadrature(
        [_normal("a", points=201), _normal("b", points=201)],
        likelihood,
        lambda v: {"coefficients": torch.stack([v["a"], v["b"]], -1)},
        finer,
    )


def ordinal(x: Tensor, y: Tensor) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("classes", 2):
        base = pyro.sample("base", dist.Normal(0.0, 1.0))
    gaps = torch.exp(base[1:])
    cutpoints = torch.cat([base[:1], base[:1] + torch.cumsum(gaps, 0)])
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.OrderedLogistic(slope * x, cutpoints), obs=y)


GRADES = _places(0, 0, 1, 0, 1, 2, 1, 2)


def _ordinal(finer: float) -> Truth:
    def likelihood(v: dict[str, Tensor]) -> Tensor:
        edge = v["low"].unsqueeze(-1)
        cuts = torch.stack([edge, edge + v["gap"].exp().unsqueeze(-1)], -1)
        below = torch.sigmoid(cuts - (v["slope"].unsqueeze(-1) * X).unsqueeze(-1))
        first, second = below.unbind(-1)
        probs = torch.stack([first, second - first, 1 - second], -1)
        chosen = probs.gather(-1, GRADES.expand(len(probs), -1).unsqueeze(-1)).squeeze(-1)
        return chosen.clamp(min=1e-300).log().sum(-1)

    return quadrature(
        [_normal("slope"), _normal("low"), _normal("gap")],
        likelihood,
        lambda v: {"slope": v["slope"], "base": torch.stack([v["low"], v["gap"]], -1)},
        finer,
    )


def categorical(x: Tensor, y: Tensor) -> None:
    weight = pyro.sample("weight", dist.Normal(torch.zeros(1, 3), 1.0).to_event(2))
    logits = torch.matmul(x.unsqueeze(-1), weight)
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Categorical(logits=logits), obs=y)


def _categorical(finer: float) -> Truth:
    def likelihood(v: dict[str, Tensor]) -> Tensor:
        weight = torch.stack([v["w0"], v["w1"], v["w2"]], -1)
        logits = X.unsqueeze(-1) * weight.unsqueeze(-2)
        return dist.Categorical(logits=logits).log_prob(GRADES).sum(-1)

    return quadrature(
        [_normal("w0"), _normal("w1"), _normal("w2")],
        likelihood,
        lambda v: {"weight": torch.stack([v["w0"], v["w1"], v["w2"]], -1)},
        finer,
    )


# Reductions


def reducing(y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1))
    pyro.sample("y", dist.Normal(w.sum(), 0.5), obs=y)


def _reducing(finer: float) -> Truth:
    del finer
    return conjugate(
        {"w": slice(0, 2)}, _ones(1, 2), 0.25 * _ones(1), _numbers(4.0), _zeros(2), _eye(2)
    )


def sum_over_plate(total: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("draws_of_terms", 3):
        terms = pyro.sample("terms", dist.Normal(mu, 1.0))
    pyro.sample("total", dist.Normal(torch.sum(terms), 0.5), obs=total)
    pyro.sample("middle", dist.Normal(terms.mean(), 1.0), obs=total / 4)


def _sum_over_plate(finer: float) -> Truth:
    del finer
    root = torch.cat([_ones(4, 1), torch.cat([_zeros(1, 3), _eye(3)])], -1)
    design = torch.stack([_numbers(0, 1, 1, 1), _numbers(0, 1, 1, 1) / 3])
    return conjugate(
        {"mu": slice(0, 1), "terms": slice(1, 4)},
        design,
        _numbers(0.25, 1.0),
        _numbers(5.0, 1.25),
        _zeros(4),
        covariance_of(root),
    )


# Gaussian processes

INPUTS = _numbers(-1.5, -0.8, -0.1, 0.6, 1.1, 1.7)
OUTPUTS = _numbers(-0.7, -1.0, 0.1, 0.9, 1.3, 0.6)


def gp_module() -> Program:
    """GP regression by Pyro's own classes, which switch modes and name their sites."""
    kernel = kernels.RBF(input_dim=1)
    gpr = GPRegression(INPUTS, OUTPUTS, kernel, noise=torch.tensor(0.1), jitter=1e-6)
    gpr.kernel.lengthscale = PyroSample(dist.LogNormal(0.0, 0.5))
    gpr.kernel.variance = PyroSample(dist.LogNormal(0.0, 0.5))
    gpr.noise = PyroSample(dist.LogNormal(-2.0, 0.5))
    return gpr.model


def gp_by_hand(x: Tensor, y: Tensor) -> None:
    variance = pyro.sample("variance", dist.LogNormal(0.0, 0.5))
    length = pyro.sample("length", dist.LogNormal(0.0, 0.5))
    noise = pyro.sample("noise", dist.LogNormal(-2.0, 0.5))
    squared = (x.unsqueeze(-1) - x).pow(2)
    covariance = variance * torch.exp(-0.5 * squared / length**2)
    covariance = covariance + (noise + 1e-6) * torch.eye(len(x))
    zeros = torch.zeros(len(x))
    pyro.sample("y", dist.MultivariateNormal(zeros, covariance), obs=y)


def _gp(variance: str, length: str, noise: str) -> Callable[[float], Truth]:
    def likelihood(v: dict[str, Tensor]) -> Tensor:
        scaled = (INPUTS.unsqueeze(-1) - INPUTS) / v[length].reshape(-1, 1, 1)
        covariance = v[variance].reshape(-1, 1, 1) * torch.exp(-0.5 * scaled.square())
        covariance = covariance + (v[noise].reshape(-1, 1, 1) + 1e-6) * _eye(6)
        normal = torch.distributions.MultivariateNormal(_zeros(6), covariance)
        return normal.log_prob(OUTPUTS)

    def known(finer: float) -> Truth:
        scale = dist.LogNormal(0.0, 0.5)
        axes = [
            Axis(variance, scale, -3.5, 3.5, 41),
            Axis(length, scale, -3.5, 3.5, 41),
            Axis(noise, dist.LogNormal(-2.0, 0.5), -5.5, 1.5, 41),
        ]
        return quadrature(axes, likelihood, None, finer)

    return known


# Mixtures

POINTS = _numbers(-1.9, -1.2, -0.8, 0.9, 1.8, 2.2, 2.6)


def mixture_marginal(x: Tensor) -> None:
    share = pyro.sample("share", dist.Beta(2.0, 2.0))
    locs = pyro.sample("locs", dist.Normal(torch.tensor([-2.0, 2.0]), 1.0).to_event(1))
    assignment = dist.Categorical(torch.stack([share, 1 - share]))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.MixtureSameFamily(assignment, dist.Normal(locs, 0.7)), obs=x)


def _mixture_marginal(finer: float) -> Truth:
    def likelihood(v: dict[str, Tensor]) -> Tensor:
        first = dist.Normal(v["low"].unsqueeze(-1), 0.7).log_prob(POINTS)
        second = dist.Normal(v["high"].unsqueeze(-1), 0.7).log_prob(POINTS)
        share = v["share"].unsqueeze(-1)
        return torch.logaddexp(share.log() + first, (1 - share).log() + second).sum(-1)

    axes = [
        Axis("share", dist.Beta(2.0, 2.0), -9.0, 9.0),
        _normal("low", -2.0),
        _normal("high", 2.0),
    ]
    return quadrature(
        axes,
        likelihood,
        lambda v: {"share": v["share"], "locs": torch.stack([v["low"], v["high"]], -1)},
        finer,
    )


@config_enumerate  # type: ignore[untyped-decorator]
def mixture_enumerated(x: Tensor) -> None:
    share = pyro.sample("share", dist.Beta(2.0, 2.0))
    with pyro.plate("components", 2):
        locs = pyro.sample("locs", dist.Normal(0.0, 2.0))
    with pyro.plate("data", len(x)):
        assignment = pyro.sample("assignment", dist.Bernoulli(share)).long()
        pyro.sample("x", dist.Normal(locs[assignment], 0.7), obs=x)


def _guide_of_continuous(model: Program) -> Program:
    return AutoNormal(poutine.block(model, hide=["assignment"]))


# Several sites, options of sites, factors


def several_observed(height: Tensor, weight: Tensor) -> None:
    size = pyro.sample("size", dist.Normal(0.0, 1.0))
    ratio = pyro.sample("ratio", dist.Normal(1.0, 0.5))
    both = torch.stack([size, ratio])
    with pyro.plate("heights", len(height)):
        pyro.sample("height", dist.Normal(both[0], 0.5), obs=height)
    with pyro.plate("weights", len(weight)):
        pyro.sample("weight", dist.Normal(both[0] + both[1], 1.0), obs=weight)


HEIGHTS, WEIGHTS = _numbers(0.4, 1.1, 0.6), _numbers(2.2, 1.3)


def _several_observed(finer: float) -> Truth:
    del finer
    design = torch.cat([_numbers(1, 0).expand(3, 2), _ones(2, 2)])
    return conjugate(
        {"size": slice(0, 1), "ratio": slice(1, 2)},
        design,
        _numbers(0.25, 0.25, 0.25, 1.0, 1.0),
        torch.cat([HEIGHTS, WEIGHTS]),
        _numbers(0.0, 1.0),
        torch.diag(_numbers(1.0, 0.25)),
    )


def options_and_factors(x: Tensor, y: Tensor) -> Tensor:
    b = pyro.sample(
        "b", dist.Normal(torch.zeros(2), 1.0).to_event(1), infer={"baseline": {"beta": 0.9}}
    )
    mean = pyro.deterministic("mean", x @ b, event_dim=1)
    pyro.factor("sums_to_one", -0.5 * ((b.sum() - 1.0) / 0.2) ** 2)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, 0.6), obs=y, infer={"is_auxiliary": False})
    return mean


def _options_and_factors(finer: float) -> Truth:
    del finer
    design = torch.cat([FEATURES, _ones(1, 2)])
    noise = torch.cat([0.36 * _ones(8), 0.04 * _ones(1)])
    # the factor is a normal density of an observation 1, without its constant
    constant = math.log(0.2) + 0.5 * math.log(2 * math.pi)
    seen = torch.cat([Y, _ones(1)])
    return conjugate({"b": slice(0, 2)}, design, noise, seen, _zeros(2), _eye(2), constant)


def masked(x: Tensor, y: Tensor, seen: Tensor) -> None:
    b = pyro.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(y)), poutine.mask(mask=seen):
        pyro.sample("y", dist.Normal(x @ b, 0.6), obs=y)


SEEN = torch.tensor([True, True, False, True, True, False, True, True])


def _masked(finer: float) -> Truth:
    del finer
    return conjugate(
        {"b": slice(0, 2)}, FEATURES[SEEN], 0.36 * _ones(6), Y[SEEN], _zeros(2), _eye(2)
    )


# Time


def autoregression(y: Tensor) -> None:
    phi = pyro.sample("phi", dist.Normal(0.0, 0.7))
    sigma = pyro.sample("sigma", dist.LogNormal(-0.5, 0.5))
    previous = torch.tensor(0.0)
    for t in range(len(y)):
        previous = pyro.sample(f"y_{t}", dist.Normal(phi * previous, sigma), obs=y[t])


SERIES = _numbers(0.5, 0.9, 0.2, 0.6, 1.1, 0.8)


def _autoregression(finer: float) -> Truth:
    design = torch.cat([_zeros(1), SERIES[:-1]]).unsqueeze(-1)

    def conditional(v: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        noise = v["sigma"].square().unsqueeze(-1) * _ones(6)
        return design, noise, _zeros(1), 0.49 * _eye(1)

    axes = [Axis("sigma", dist.LogNormal(-0.5, 0.5), -5.0, 4.0, 301)]
    return over_hyperparameters(axes, conditional, SERIES, {"phi": slice(0, 1)}, finer)


def local_level(y: Tensor) -> None:
    drift = pyro.sample("drift", dist.LogNormal(-1.0, 0.5))
    states = [pyro.sample("level_0", dist.Normal(0.0, 1.0))]
    for t in range(1, len(y)):
        states.append(pyro.sample(f"level_{t}", dist.Normal(states[-1], drift)))
    levels = torch.stack(states)
    pyro.sample("y", dist.Normal(levels, 0.4).to_event(1), obs=y)


def _local_level(finer: float) -> Truth:
    step = torch.arange(6, dtype=torch.float64)
    shared = torch.minimum(step.unsqueeze(-1), step)

    def conditional(v: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        prior = 1.0 + v["drift"].square().reshape(-1, 1, 1) * shared
        return _eye(6), 0.16 * _ones(6), _zeros(6), prior

    axes = [Axis("drift", dist.LogNormal(-1.0, 0.5), -5.5, 3.5, 301)]
    sites = {f"level_{t}": slice(t, t + 1) for t in range(6)}
    return over_hyperparameters(axes, conditional, SERIES, sites, finer)


def change_point(y: Tensor) -> None:
    when = pyro.sample("when", dist.Uniform(0.0, float(len(y))))
    levels = pyro.sample("levels", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    mean = torch.where(torch.arange(len(y)) < when, levels[0], levels[1])
    pyro.sample("y", dist.Normal(mean, 0.6).to_event(1), obs=y)


JUMP = _numbers(-0.4, 0.3, -0.2, 0.5, 0.9, 0.6)


def _change_point(finer: float) -> Truth:
    del finer
    found = []
    for before in range(1, 7):  # one piece of `when` for each number of points before it
        early = (torch.arange(6) < before).double()
        design = torch.stack([early, 1 - early], -1)
        found.append(linear_gaussian(design, 0.36 * _ones(6), JUMP, _zeros(2), _eye(2)))
    mean, covariance, evidence = (torch.stack(parts) for parts in zip(*found, strict=True))
    middle = torch.arange(6, dtype=torch.float64).unsqueeze(-1) + 0.5
    return over_grid(
        torch.full((6,), -math.log(6.0), dtype=torch.float64),
        evidence,
        {
            "when": (middle, torch.full_like(middle, 1 / 12)),
            "levels": (mean, covariance.diagonal(dim1=-2, dim2=-1)),
        },
        "closed form: six pieces, each linear Gaussian",
    )


# Plates


def crossed_effects(y: Tensor) -> None:
    row_plate = pyro.plate("rows", y.shape[0], dim=-2)
    column_plate = pyro.plate("columns", y.shape[1], dim=-1)
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with row_plate:
        a = pyro.sample("a", dist.Normal(0.0, 0.8))
    with column_plate:
        b = pyro.sample("b", dist.Normal(0.0, 0.6))
    with row_plate, column_plate:
        pyro.sample("y", dist.Normal(mu + a + b, 0.5), obs=y)


TABLE = torch.stack([_numbers(0.3, 1.2), _numbers(-0.5, 0.4), _numbers(1.1, 1.6)])


def _crossed_effects(finer: float) -> Truth:
    del finer
    rows, columns = _places(0, 0, 1, 1, 2, 2), _places(0, 1, 0, 1, 0, 1)
    design = torch.cat([_ones(6, 1), _one_hot(rows, 3), _one_hot(columns, 2)], -1)
    prior = torch.diag(_numbers(1.0, 0.64, 0.64, 0.64, 0.36, 0.36))
    sites = {"mu": slice(0, 1), "a": slice(1, 4), "b": slice(4, 6)}
    return conjugate(sites, design, 0.25 * _ones(6), TABLE.reshape(-1), _zeros(6), prior)


def plate_indices(y: Tensor) -> None:
    theta = pyro.sample("theta", dist.Normal(0.0, 1.0).expand([len(y)]).to_event(1))
    common = pyro.sample("common", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)) as ind:
        pyro.sample("y", dist.Normal(theta[ind] + common, 0.5), obs=y[ind])


def _plate_indices(finer: float) -> Truth:
    del finer
    design = torch.cat([_eye(8), _ones(8, 1)], -1)
    sites = {"theta": slice(0, 8), "common": slice(8, 9)}
    return conjugate(sites, design, 0.25 * _ones(8), Y, _zeros(9), _eye(9))


def coin_by_coin(flips: list[float]) -> None:
    fairness = pyro.sample("fairness", dist.Beta(10.0, 10.0))
    for i in pyro.plate("data", len(flips)):
        pyro.sample(f"flip_{i}", dist.Bernoulli(fairness), obs=torch.tensor(flips[i]))


FLIPS = [1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0]


def _coin_by_coin(finer: float) -> Truth:
    del finer
    return _beta_truth("fairness", 10.0, 10.0, 6, 2, 0.0)


def _beta_truth(site: str, a: float, b: float, ones: int, zeros: int, constant: float) -> Truth:
    after = torch.distributions.Beta(a + ones, b + zeros)
    evidence = _log_beta(a + ones, b + zeros) - _log_beta(a, b) + constant
    return Truth(
        {site: after.mean.reshape(-1).double()},
        {site: after.stddev.reshape(-1).double()},
        torch.tensor(evidence, dtype=torch.float64),
        "closed form: Beta and Bernoulli",
    )


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def beta_binomial(successes: Tensor, trials: Tensor) -> None:
    p = pyro.sample("p", dist.Beta(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 2.0])).to_event(1))
    for arm in range(2):
        pyro.sample(
            f"successes_{arm}", dist.Binomial(int(trials[arm]), p[arm]), obs=successes[arm]
        )


def _beta_binomial(finer: float) -> Truth:
    del finer
    arms = [
        _beta_truth("p", 1.0, 2.0, 4, 3, math.log(math.comb(7, 4))),
        _beta_truth("p", 2.0, 2.0, 2, 7, math.log(math.comb(9, 2))),
    ]
    assert all(arm.log_evidence is not None for arm in arms)
    return Truth(
        {"p": torch.cat([arm.means["p"] for arm in arms])},
        {"p": torch.cat([arm.sds["p"] for arm in arms])},
        torch.stack([arm.log_evidence for arm in arms if arm.log_evidence is not None]).sum(),
        "closed form: Beta and Binomial",
    )


def gamma_poisson(counts: Tensor) -> None:
    rates = pyro.sample("rates", dist.Gamma(2.0, 1.0).expand([len(counts)]).to_event(1))
    with pyro.plate("hours", counts.shape[1]):
        pyro.sample(
            "counts", dist.Poisson(rates.unsqueeze(0).expand(2, -1)).to_event(1), obs=counts.T
        )


HOURLY = torch.stack([_numbers(3, 1), _numbers(0, 2), _numbers(5, 7)])


def _gamma_poisson(finer: float) -> Truth:
    del finer
    shape, rate = 2.0 + HOURLY.sum(-1), torch.full((3,), 3.0, dtype=torch.float64)
    factorials = torch.lgamma(HOURLY + 1).sum(-1)
    evidence = torch.lgamma(shape) - shape * rate.log() - math.lgamma(2.0) - factorials
    return Truth(
        {"rates": shape / rate},
        {"rates": shape.sqrt() / rate},
        evidence.sum(),
        "closed form: Gamma and Poisson",
    )


def dirichlet_multinomial(counts: Tensor) -> None:
    probs = pyro.sample("probs", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))
    total = int(counts.sum())
    pyro.sample("counts", dist.Multinomial(total, probs), obs=counts)


BALLS = _numbers(4, 1, 6)


def _dirichlet_multinomial(finer: float) -> Truth:
    del finer
    prior = _numbers(1.0, 2.0, 3.0)
    after = prior + BALLS
    total = after.sum()
    mean = after / total
    evidence = (
        (torch.lgamma(after) - torch.lgamma(prior) - torch.lgamma(BALLS + 1)).sum()
        + torch.lgamma(prior.sum())
        - torch.lgamma(total)
        + torch.lgamma(BALLS.sum() + 1)
    )
    return Truth(
        {"probs": mean},
        {"probs": (mean * (1 - mean) / (total + 1)).sqrt()},
        evidence,
        "closed form: Dirichlet and Multinomial",
    )


# Geometry


def lkj_regression(x: Tensor, y: Tensor) -> None:
    b = pyro.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    scales = pyro.sample("scales", dist.LogNormal(torch.zeros(2), 0.4).to_event(1))
    correlation = pyro.sample("correlation", dist.LKJCholesky(2, 2.0))
    scale_tril = torch.diag(scales) @ correlation
    with pyro.plate("data", len(x)):
        mean = torch.outer(x, b)
        pyro.sample("y", dist.MultivariateNormal(mean, scale_tril=scale_tril), obs=y)


PAIRS = torch.stack([Y, _numbers(-1.4, -0.2, 0.5, 0.3, 1.0, 1.6, 0.2, 1.9)], -1)


def _lkj_sites(v: dict[str, Tensor]) -> dict[str, Tensor]:
    r = 2 * v["half"] - 1
    row = [torch.ones_like(r), torch.zeros_like(r), r, (1 - r.square()).sqrt()]
    return {
        "scales": torch.stack([v["first"], v["second"]], -1),
        "correlation": torch.stack(row, -1),
    }


def _lkj_regression(finer: float) -> Truth:
    design = torch.stack([torch.kron(X, _numbers(1, 0)), torch.kron(X, _numbers(0, 1))], -1)

    def conditional(v: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sites = _lkj_sites(v)
        root = sites["scales"].unsqueeze(-1) * sites["correlation"].reshape(-1, 2, 2)
        one = covariance_of(root)
        noise = torch.einsum("ij,gkl->gikjl", _eye(8), one).reshape(-1, 16, 16)
        return design, noise, _zeros(2), _eye(2)

    # for two dimensions the LKJ law of the correlation r is that of a Beta, stretched
    axes = [
        Axis("first", dist.LogNormal(0.0, 0.4), -2.4, 2.4, 27),
        Axis("second", dist.LogNormal(0.0, 0.4), -2.4, 2.4, 27),
        Axis("half", dist.Beta(2.0, 2.0), -8.0, 8.0, 41),
    ]
    return over_hyperparameters(
        axes, conditional, PAIRS.reshape(-1), {"b": slice(0, 2)}, finer, _lkj_sites
    )


def funnel(y: Tensor) -> None:
    v = pyro.sample("v", dist.Normal(0.0, 1.5))
    x = pyro.sample("x", dist.Normal(torch.zeros(3), torch.exp(v / 2)).to_event(1))
    pyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)


ARMS = _numbers(2.1, -1.4, 0.3)


def _funnel(finer: float) -> Truth:
    def conditional(v: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        prior = v["v"].exp().reshape(-1, 1, 1) * _eye(3)
        return _eye(3), _ones(3), _zeros(3), prior

    axes = [Axis("v", dist.Normal(0.0, 1.5), -12.0, 12.0, 401)]
    return over_hyperparameters(axes, conditional, ARMS, {"x": slice(0, 3)}, finer)


LOADINGS = torch.stack([_numbers(0.9, -0.4, 0.3), _numbers(0.2, 0.7, -0.8)])


def ppca(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ LOADINGS, 0.5).to_event(1), obs=x)


ROWS = torch.stack([_numbers(0.5, -0.3, 1.0), _numbers(-1.1, 0.8, 0.1), _numbers(0.2, 0.4, -1.3)])


def _ppca(finer: float) -> Truth:
    del finer
    parts = [linear_gaussian(LOADINGS.T, 0.25 * _ones(3), row, _zeros(2), _eye(2)) for row in ROWS]
    mean, covariance, evidence = (torch.stack(part) for part in zip(*parts, strict=True))
    sd = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    return Truth(
        {"z": mean.reshape(-1)},
        {"z": sd.reshape(-1)},
        evidence,
        "closed form: linear Gaussian, one posterior for each datapoint",
    )


# What cannot be evaluated for many draws at once


def branching(y: Tensor) -> None:
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    mean = z if z > 0 else 0.1 * z
    pyro.sample("y", dist.Normal(mean, 0.5), obs=y)


def random_inside(y: Tensor) -> None:
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(z + 0.1 * torch.randn(()), 0.5), obs=y)


PROGRAMS = [
    PlainProgram(
        "eight schools, centred", "expands by torch.ones", _always(eight_schools_centred),
        (EIGHT, ERRORS), _eight_schools_centred,
    ),
    PlainProgram(
        "eight schools, non-centred", "plate, deterministic", _always(eight_schools_noncentred),
        (8, ERRORS, EIGHT), _eight_schools_noncentred,
    ),
    PlainProgram(
        "group intercepts", "indexing b[group]", _always(group_intercepts),
        (GROUP, X, Y), _group_intercepts,
    ),
    PlainProgram(
        "radon", "indexing alpha[county], beta[county]", _always(radon),
        (COUNTY, FLOOR, LOG_RADON), _radon,
    ),
    PlainProgram(
        "linear regression", "matmul x @ b", _always(linear_regression),
        (FEATURES, Y), _linear_regression,
    ),
    PlainProgram(
        "Bayesian regression", "PyroModule with PyroSample", lambda: BayesianRegression(2, 1),
        (FEATURES, Y), _bayesian_regression,
    ),
    PlainProgram(
        "keyword arguments", "functools.partial", lambda: functools.partial(
            keyword_regression, y=Y, noise=0.6
        ),
        (FEATURES,), _keyword_regression,
    ),
    PlainProgram(
        "logistic regression", "matmul x @ w", _always(logistic), (FEATURES, LABELS), _logistic
    ),
    PlainProgram(
        "Poisson regression", "indexing coefficients[0]", _always(poisson_regression),
        (X, COUNTS), _poisson_regression,
    ),
    PlainProgram(
        "ordinal regression", "slicing, concatenation and cumsum", _always(ordinal),
        (X, GRADES), _ordinal,
    ),
    PlainProgram(
        "categorical regression", "matmul with a matrix", _always(categorical),
        (X, GRADES), _categorical,
    ),
    PlainProgram(
        "reducing", "reduction w.sum()", _always(reducing), (_numbers(4.0)[0],), _reducing
    ),
    PlainProgram(
        "sum over a plate", "reduction over a plate", _always(sum_over_plate),
        (_numbers(5.0)[0],), _sum_over_plate,
    ),
    PlainProgram(
        "GP of pyro.contrib", "module with modes, no arguments", gp_module, (),
        _gp("kernel.variance", "kernel.lengthscale", "noise"),
    ),
    PlainProgram(
        "GP by hand", "covariance matrix of scalars", _always(gp_by_hand),
        (INPUTS, OUTPUTS), _gp("variance", "length", "noise"),
    ),
    PlainProgram(
        "mixture, marginalized", "MixtureSameFamily, torch.stack", _always(mixture_marginal),
        (POINTS,), _mixture_marginal,
    ),
    PlainProgram(
        "mixture, enumerated", "discrete latent", _always(mixture_enumerated), (POINTS,),
        make_guide=_guide_of_continuous, refused=r"discrete|no site for the model's latents",
        refused_by=EVERYWHERE,
    ),
    PlainProgram(
        "several observed sites", "torch.stack of scalars", _always(several_observed),
        (HEIGHTS, WEIGHTS), _several_observed,
    ),
    PlainProgram(
        "options and factors", "infer, deterministic, factor", _always(options_and_factors),
        (FEATURES, Y), _options_and_factors,
    ),
    PlainProgram("masked", "poutine.mask", _always(masked), (FEATURES, Y, SEEN), _masked),
    PlainProgram(
        "autoregression", "loop over observed sites", _always(autoregression),
        (SERIES,), _autoregression,
    ),
    PlainProgram(
        "local level", "list of states, torch.stack", _always(local_level),
        (SERIES,), _local_level,
    ),
    PlainProgram(
        "change point", "torch.where on a latent", _always(change_point), (JUMP,), _change_point
    ),
    PlainProgram(
        "crossed effects", "nested plates", _always(crossed_effects), (TABLE,), _crossed_effects
    ),
    PlainProgram(
        "indices of a plate", "with plate as ind: theta[ind]", _always(plate_indices),
        (Y,), _plate_indices,
    ),
    PlainProgram(
        "coin by coin", "sequential plate, data in a list", _always(coin_by_coin),
        (FLIPS,), _coin_by_coin, untraced="needs the value of a tensor",
    ),
    PlainProgram(
        "two arms", "loop, p[arm], int() of data", _always(beta_binomial),
        (_numbers(4, 2), _places(7, 9)), _beta_binomial, untraced="needs the value of a tensor",
    ),
    PlainProgram(
        "gamma and Poisson", "expand and transpose", _always(gamma_poisson),
        (HOURLY,), _gamma_poisson,
    ),
    PlainProgram(
        "Dirichlet and multinomial", "simplex", _always(dirichlet_multinomial),
        (BALLS,), _dirichlet_multinomial, untraced="needs the value of a tensor",
    ),
    PlainProgram(
        "LKJ regression", "torch.diag, torch.outer", _always(lkj_regression),
        (X, PAIRS), _lkj_regression,
    ),
    PlainProgram("funnel", "scale of another latent", _always(funnel), (ARMS,), _funnel),
    PlainProgram("pPCA by hand", "z @ W in a plate", _always(ppca), (ROWS,), _ppca),
    PlainProgram(
        "branch on a latent", "if z > 0", _always(branching), (_numbers(0.7)[0],),
        refused=r"(?i)branch|control flow|if |value of a latent|one draw",
        refused_by=EVERYWHERE,
    ),
    PlainProgram(
        "random number inside", "torch.randn outside any site", _always(random_inside),
        (_numbers(0.7)[0],), refused=r"(?i)random", refused_by=EVERYWHERE,
    ),
]  # fmt: skip


def named(name: str) -> PlainProgram:
    """One of the programs.

    Args:
        name: Of it.
    """
    return next(program for program in PROGRAMS if program.name == name)
