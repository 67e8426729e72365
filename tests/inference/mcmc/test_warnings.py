"""Posteriors on which chains do not mix are said not to mix."""

import warnings
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer.reparam import LocScaleReparam
from torch import Tensor

from aevb.inference import hmc

from oracles import linear_gaussian, simulate
from posteriors_to_sample import SCHOOLS, schools

# Warnings


def centred_schools(y: Tensor, sigma: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def neals_funnel() -> None:
    v = pyro.sample("v", dist.Normal(0.0, 3.0))
    with pyro.plate("arms", 9):
        pyro.sample("w", dist.Normal(0.0, (v / 2).exp()))


def said_of(model: Callable[..., Any], *args: Any, **settings: Any) -> tuple[Any, str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        draws = hmc(model, *args, **settings)
    return draws, "\n".join(str(one.message) for one in caught)


HARD = [(centred_schools, SCHOOLS), (neals_funnel, ())]


@pytest.mark.parametrize(("model", "args"), HARD, ids=["eight schools", "funnel"])
def test_hard_posteriors_are_said_not_to_mix(
    model: Callable[..., Any], args: tuple[Tensor, ...]
) -> None:
    brief = {"num_chains": 4, "num_samples": 200, "num_warmup": 100, "max_num_steps": 3}
    draws, said = said_of(model, *args, **brief)
    assert draws.rhat.shape == draws.ess_bulk.shape == draws.ess_tail.shape == ()
    assert "HMC: chains of the posterior have not mixed: R̂ is up to " in said
    assert f"{float(draws.rhat):.3f}" in said
    assert "HMC: trajectories of the posterior reach max_num_steps=3" in said
    assert float(draws.ess_bulk) < 200


@pytest.mark.slow
@pytest.mark.parametrize("chains", [4, 16])
@pytest.mark.parametrize(("model", "args"), HARD, ids=["eight schools", "funnel"])
def test_hard_posteriors_are_said_not_to_mix_by_default(
    model: Callable[..., Any], args: tuple[Tensor, ...], chains: int
) -> None:
    for seed in range(2):
        _, said = said_of(model, *args, num_chains=chains, seed=seed)
        assert "HMC: chains of the posterior have not mixed" in said


def test_chains_that_mix_say_nothing_and_carry_their_figures() -> None:
    fa = linear_gaussian()
    draws, said = said_of(fa.model, simulate(fa, 20), num_samples=200, num_warmup=200)
    assert said == ""
    assert draws.rhat.shape == draws.ess_bulk.shape == draws.ess_tail.shape == (20,)
    assert draws.rhat is draws.rhat  # computed once
    assert float(draws.rhat.max()) < 1.05
    assert float(draws.ess_bulk.min()) > 400


def test_warnings_name_ten_datapoints_at_most() -> None:
    def two_modes(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 4.0))
            apart = torch.where(x.detach() > 0, 6.0, 0.0)
            pyro.sample("x", dist.Normal(z.abs(), 0.3), obs=apart + 0 * x)

    x = torch.ones(14)
    x[3] = -1.0
    draws, said = said_of(two_modes, x, num_chains=8, num_samples=100, num_warmup=100)
    assert "chains of datapoints 0, 1, 2, 4, 5, 6, 7, 8, 9, 10, ... have not mixed" in said
    assert bool((draws.rhat[x > 0] > 1.2).all())


def two_levels(y: Tensor, x: Tensor) -> None:
    """Many data tell of the slopes and their scale, and nothing of the levels of the groups."""
    spread = pyro.sample("spread", dist.HalfCauchy(5.0))
    scale = pyro.sample("scale", dist.HalfNormal(1.0))
    with pyro.plate("slopes", x.shape[1]):
        w = pyro.sample("w", dist.Normal(0.0, scale))
    with pyro.plate("groups", 8):
        level = pyro.sample("level", dist.Normal(0.0, spread))
        pyro.sample("total", dist.Normal(level, 12.0), obs=SCHOOLS[0])
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal((x * w.unsqueeze(-2)).sum(-1), 0.5), obs=y)


BRIEF = {"num_chains": 4, "num_samples": 200, "num_warmup": 100, "max_num_steps": 5}


def slopes(dim: int = 6) -> tuple[Tensor, Tensor]:
    x = torch.randn(100, dim, generator=torch.Generator().manual_seed(1))
    return x @ torch.linspace(-1, 1, dim), x


@pytest.mark.parametrize(
    ("model", "args", "name"),
    [
        (centred_schools, SCHOOLS, "theta"),
        (neals_funnel, (), "w"),
        (two_levels, slopes(), "level"),
    ],
    ids=["eight schools", "funnel", "the one of two"],
)
def test_the_site_of_a_funnel_is_named(
    model: Callable[..., Any], args: tuple[Tensor, ...], name: str
) -> None:
    _, said = said_of(model, *args, **BRIEF)
    assert f"HMC: reparameterize site {name!r}" in said
    assert said.count("reparameterize site") == 1
    assert "LocScaleReparam" in said


def test_only_a_funnel_is_named() -> None:
    """Hard without one; and one that would be, whose draws have nothing against them."""

    def two_modes(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 4.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(z.abs(), 0.3), obs=x)

    _, said = said_of(two_modes, torch.full((3,), 6.0), num_chains=8, num_samples=100,
                      num_warmup=100)  # fmt: skip
    assert "have not mixed" in said
    assert "reparameterize site" not in said
    _, said = said_of(schools, *SCHOOLS, num_chains=4, num_samples=200, num_warmup=100,
                      max_num_steps=2)  # fmt: skip
    assert "reach max_num_steps=2" in said
    assert "reparameterize site" not in said


def test_what_the_message_says_helps() -> None:
    model = pyro.poutine.reparam(centred_schools, config={"theta": LocScaleReparam(0.0)})
    draws, said = said_of(model, *SCHOOLS, num_chains=8, num_samples=200, num_warmup=200)
    assert "reparameterize site" not in said
    assert float(draws.rhat) < 1.05
