"""The posteriors as Pyro programs, for Pyro's sampler and aevb's."""

import math

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor

__all__ = ["PROGRAMS"]


def schools(y: Tensor, sigma: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu + tau * eta, sigma), obs=y)


def logistic(x: Tensor, y: Tensor) -> None:
    level = pyro.sample("level", dist.Normal(0.0, 2.5))
    w = pyro.sample("w", dist.Normal(torch.zeros(x.shape[1]), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=level + x @ w), obs=y)


def hierarchical(group: Tensor, x: Tensor, y: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    scale = pyro.sample("scale", dist.HalfNormal(torch.ones(2)).to_event(1))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    with pyro.plate("groups", 20):
        raw = pyro.sample("raw", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    of = loc + scale * raw
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(of[group, 0] + of[group, 1] * x, noise), obs=y)


def autoregression(y: Tensor) -> None:
    level = pyro.sample("level", dist.Normal(0.0, 1.0))
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 0.5).to_event(1))
    noise = pyro.sample("noise", dist.HalfNormal(1.0))
    loc = level + w[0] * y[2:-1] + w[1] * y[1:-2] + w[2] * y[:-3]
    with pyro.plate("times", len(y) - 3):
        pyro.sample("y", dist.Normal(loc, noise), obs=y[3:])


def mixture(y: Tensor) -> None:
    share = pyro.sample("share", dist.Dirichlet(2 * torch.ones(3)))
    first = pyro.sample("first", dist.Normal(-2.0, 3.0))
    gaps = pyro.sample("gaps", dist.Gamma(2 * torch.ones(2), 1.0).to_event(1))
    scale = pyro.sample("scale", dist.LogNormal(torch.zeros(3), 0.5).to_event(1))
    loc = torch.stack([first, first + gaps[0], first + gaps[0] + gaps[1]])
    with pyro.plate("rows", len(y)):
        of = dist.MixtureSameFamily(dist.Categorical(share), dist.Normal(loc, scale))
        pyro.sample("y", of, obs=y)


def process(x: Tensor, y: Tensor) -> None:
    dim = x.shape[1]
    usual = x.new_full((dim,), math.sqrt(2) + 0.5 * math.log(dim))
    length = pyro.sample("length", dist.LogNormal(usual, 1.0).to_event(1))
    height = pyro.sample("height", dist.Gamma(x.new_tensor(2.0), 1.0))
    noise = pyro.sample("noise", dist.LogNormal(x.new_tensor(-3.0), 1.0))
    rows = x / length
    square = (rows * rows).sum(-1)
    distance = square.unsqueeze(-1) + square.unsqueeze(-2) - 2 * rows @ rows.transpose(-1, -2)
    own = torch.eye(len(x), dtype=x.dtype) * (noise + 1e-6)
    kernel = height * torch.exp(-0.5 * distance) + own
    pyro.sample("y", dist.MultivariateNormal(x.new_zeros(len(x)), kernel), obs=y)


PROGRAMS = {
    program.__name__: program
    for program in (schools, logistic, hierarchical, autoregression, mixture, process)
}
