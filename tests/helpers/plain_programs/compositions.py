"""Reductions, Gaussian processes, mixtures, several observed sites and factors."""

import math
from collections.abc import Callable

import pyro
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.contrib.gp import kernels
from pyro.contrib.gp.models import GPRegression
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroSample
from torch import Tensor

from plain_programs.record import (
    EVERYWHERE,
    FEATURES,
    PlainProgram,
    Program,
    Y,
    always,
    eye,
    normal_axis,
    numbers,
    ones,
    zeros,
)
from plain_truths import (
    Axis,
    Truth,
    conjugate,
    covariance_of,
    quadrature,
)

# Reductions


def reducing(y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1))
    pyro.sample("y", dist.Normal(w.sum(), 0.5), obs=y)


def _reducing(finer: float) -> Truth:
    del finer
    return conjugate(
        {"w": slice(0, 2)}, ones(1, 2), 0.25 * ones(1), numbers(4.0), zeros(2), eye(2)
    )


def sum_over_plate(total: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with pyro.plate("draws_of_terms", 3):
        terms = pyro.sample("terms", dist.Normal(mu, 1.0))
    pyro.sample("total", dist.Normal(torch.sum(terms), 0.5), obs=total)
    pyro.sample("middle", dist.Normal(terms.mean(), 1.0), obs=total / 4)


def _sum_over_plate(finer: float) -> Truth:
    del finer
    root = torch.cat([ones(4, 1), torch.cat([zeros(1, 3), eye(3)])], -1)
    design = torch.stack([numbers(0, 1, 1, 1), numbers(0, 1, 1, 1) / 3])
    return conjugate(
        {"mu": slice(0, 1), "terms": slice(1, 4)},
        design,
        numbers(0.25, 1.0),
        numbers(5.0, 1.25),
        zeros(4),
        covariance_of(root),
    )


# Gaussian processes

INPUTS = numbers(-1.5, -0.8, -0.1, 0.6, 1.1, 1.7)
OUTPUTS = numbers(-0.7, -1.0, 0.1, 0.9, 1.3, 0.6)


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
        covariance = covariance + (v[noise].reshape(-1, 1, 1) + 1e-6) * eye(6)
        normal = torch.distributions.MultivariateNormal(zeros(6), covariance)
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

POINTS = numbers(-1.9, -1.2, -0.8, 0.9, 1.8, 2.2, 2.6)


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
        normal_axis("low", -2.0),
        normal_axis("high", 2.0),
    ]
    return quadrature(
        axes,
        likelihood,
        lambda v: {"share": v["share"], "locs": torch.stack([v["low"], v["high"]], -1)},
        finer,
    )


def crowds(x: Tensor) -> None:
    """Counts that nobody sees whole, of which there is no largest."""
    rate = pyro.sample("rate", dist.Gamma(4.0, 1.0))
    with pyro.plate("data", len(x)):
        crowd = pyro.sample("crowd", dist.Poisson(rate))
        pyro.sample("x", dist.Normal(crowd, 0.7), obs=x)


def _guide_of_continuous(model: Program) -> Program:
    return AutoNormal(poutine.block(model, hide=["crowd"]))


# Several sites, options of sites, factors


def several_observed(height: Tensor, weight: Tensor) -> None:
    size = pyro.sample("size", dist.Normal(0.0, 1.0))
    ratio = pyro.sample("ratio", dist.Normal(1.0, 0.5))
    both = torch.stack([size, ratio])
    with pyro.plate("heights", len(height)):
        pyro.sample("height", dist.Normal(both[0], 0.5), obs=height)
    with pyro.plate("weights", len(weight)):
        pyro.sample("weight", dist.Normal(both[0] + both[1], 1.0), obs=weight)


HEIGHTS, WEIGHTS = numbers(0.4, 1.1, 0.6), numbers(2.2, 1.3)


def _several_observed(finer: float) -> Truth:
    del finer
    design = torch.cat([numbers(1, 0).expand(3, 2), ones(2, 2)])
    return conjugate(
        {"size": slice(0, 1), "ratio": slice(1, 2)},
        design,
        numbers(0.25, 0.25, 0.25, 1.0, 1.0),
        torch.cat([HEIGHTS, WEIGHTS]),
        numbers(0.0, 1.0),
        torch.diag(numbers(1.0, 0.25)),
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
    design = torch.cat([FEATURES, ones(1, 2)])
    noise = torch.cat([0.36 * ones(8), 0.04 * ones(1)])
    # the factor is a normal density of an observation 1, without its constant
    constant = math.log(0.2) + 0.5 * math.log(2 * math.pi)
    seen = torch.cat([Y, ones(1)])
    return conjugate({"b": slice(0, 2)}, design, noise, seen, zeros(2), eye(2), constant)


def masked(x: Tensor, y: Tensor, seen: Tensor) -> None:
    b = pyro.sample("b", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("data", len(y)), poutine.mask(mask=seen):
        pyro.sample("y", dist.Normal(x @ b, 0.6), obs=y)


SEEN = torch.tensor([True, True, False, True, True, False, True, True])


def _masked(finer: float) -> Truth:
    del finer
    return conjugate({"b": slice(0, 2)}, FEATURES[SEEN], 0.36 * ones(6), Y[SEEN], zeros(2), eye(2))


PROGRAMS = [
    PlainProgram(
        "reducing", "reduction w.sum()", always(reducing), (numbers(4.0)[0],), _reducing
    ),
    PlainProgram(
        "sum over a plate", "reduction over a plate", always(sum_over_plate),
        (numbers(5.0)[0],), _sum_over_plate,
    ),
    PlainProgram(
        "GP of pyro.contrib", "module with modes, no arguments", gp_module, (),
        _gp("kernel.variance", "kernel.lengthscale", "noise"),
    ),
    PlainProgram(
        "GP by hand", "covariance matrix of scalars", always(gp_by_hand),
        (INPUTS, OUTPUTS), _gp("variance", "length", "noise"),
    ),
    PlainProgram(
        "mixture, marginalized", "MixtureSameFamily, torch.stack", always(mixture_marginal),
        (POINTS,), _mixture_marginal,
    ),
    PlainProgram(
        "crowds", "discrete latent without end", always(crowds), (POINTS,),
        make_guide=_guide_of_continuous, refused=r"discrete|no site for the model's latents",
        refused_by=EVERYWHERE,
    ),
    PlainProgram(
        "several observed sites", "torch.stack of scalars", always(several_observed),
        (HEIGHTS, WEIGHTS), _several_observed,
    ),
    PlainProgram(
        "options and factors", "infer, deterministic, factor", always(options_and_factors),
        (FEATURES, Y), _options_and_factors,
    ),
    PlainProgram("masked", "poutine.mask", always(masked), (FEATURES, Y, SEEN), _masked),
]  # fmt: skip
