"""Constrained and badly scaled latents, and what cannot be evaluated for many draws at once."""

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor

from plain_programs.record import EVERYWHERE, PlainProgram, X, Y, always, eye, numbers, ones, zeros
from plain_truths import (
    Axis,
    Truth,
    covariance_of,
    linear_gaussian,
    over_hyperparameters,
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


PAIRS = torch.stack([Y, numbers(-1.4, -0.2, 0.5, 0.3, 1.0, 1.6, 0.2, 1.9)], -1)


def _lkj_sites(v: dict[str, Tensor]) -> dict[str, Tensor]:
    r = 2 * v["half"] - 1
    row = [torch.ones_like(r), torch.zeros_like(r), r, (1 - r.square()).sqrt()]
    return {
        "scales": torch.stack([v["first"], v["second"]], -1),
        "correlation": torch.stack(row, -1),
    }


def _lkj_regression(finer: float) -> Truth:
    design = torch.stack([torch.kron(X, numbers(1, 0)), torch.kron(X, numbers(0, 1))], -1)

    def conditional(v: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sites = _lkj_sites(v)
        root = sites["scales"].unsqueeze(-1) * sites["correlation"].reshape(-1, 2, 2)
        one = covariance_of(root)
        noise = torch.einsum("ij,gkl->gikjl", eye(8), one).reshape(-1, 16, 16)
        return design, noise, zeros(2), eye(2)

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


ARMS = numbers(2.1, -1.4, 0.3)


def _funnel(finer: float) -> Truth:
    def conditional(v: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        prior = v["v"].exp().reshape(-1, 1, 1) * eye(3)
        return eye(3), ones(3), zeros(3), prior

    axes = [Axis("v", dist.Normal(0.0, 1.5), -12.0, 12.0, 401)]
    return over_hyperparameters(axes, conditional, ARMS, {"x": slice(0, 3)}, finer)


LOADINGS = torch.stack([numbers(0.9, -0.4, 0.3), numbers(0.2, 0.7, -0.8)])


def ppca(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ LOADINGS, 0.5).to_event(1), obs=x)


ROWS = torch.stack([numbers(0.5, -0.3, 1.0), numbers(-1.1, 0.8, 0.1), numbers(0.2, 0.4, -1.3)])


def _ppca(finer: float) -> Truth:
    del finer
    parts = [linear_gaussian(LOADINGS.T, 0.25 * ones(3), row, zeros(2), eye(2)) for row in ROWS]
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
        "LKJ regression", "torch.diag, torch.outer", always(lkj_regression),
        (X, PAIRS), _lkj_regression,
    ),
    PlainProgram("funnel", "scale of another latent", always(funnel), (ARMS,), _funnel),
    PlainProgram("pPCA by hand", "z @ W in a plate", always(ppca), (ROWS,), _ppca),
    PlainProgram(
        "branch on a latent", "if z > 0", always(branching), (numbers(0.7)[0],),
        refused=r"(?i)branch|control flow|if |value of a latent|one draw",
        refused_by=EVERYWHERE,
    ),
    PlainProgram(
        "random number inside", "torch.randn outside any site", always(random_inside),
        (numbers(0.7)[0],), refused=r"(?i)random", refused_by=EVERYWHERE,
    ),
]  # fmt: skip
