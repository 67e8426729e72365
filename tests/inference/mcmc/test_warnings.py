"""Posteriors on which chains do not mix are said not to mix."""

import warnings
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from aevb.inference import hmc

from oracles import linear_gaussian, simulate
from posteriors_to_sample import SCHOOLS

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
    brief = {"num_chains": 4, "num_samples": 200, "num_warmup": 100, "max_num_steps": 5}
    draws, said = said_of(model, *args, **brief)
    assert draws.rhat.shape == draws.ess_bulk.shape == draws.ess_tail.shape == ()
    assert "HMC: chains of the posterior have not mixed: R̂ is up to " in said
    assert f"{float(draws.rhat):.3f}" in said
    assert "HMC: trajectories of the posterior reach max_num_steps=5" in said
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
