"""Densities on the reals: Jacobians, joint posteriors, and what has none."""

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from aevb.inference import hmc
from aevb.inference.programs.log_density import LogDensity

from oracles import linear_gaussian, simulate
from posteriors_to_sample import SCHOOLS, constrained, schools

# Densities


def test_density_with_jacobian_by_hand() -> None:
    x = torch.randn(4)
    density = LogDensity(constrained, x)
    u = torch.randn(3, 4, 2)
    rate, share = u[..., 0].exp(), u[..., 1].sigmoid()
    by_hand = (
        dist.Gamma(2.0, 1.0).log_prob(rate)
        + dist.Beta(2.0, 3.0).log_prob(share)
        + dist.Normal(rate * share, 0.3).log_prob(x)
        + u[..., 0]
        + share.log()
        + (1 - share).log()
    )
    torch.testing.assert_close(density.joint(u), by_hand.double(), rtol=1e-4, atol=1e-4)
    assert (density.batch, density.dim, density.is_local) == (4, 2, True)


def test_joint_posterior_takes_all_latents_together() -> None:
    density = LogDensity(schools, *SCHOOLS)
    assert (density.batch, density.dim, density.is_local) == (1, 10, False)
    u = density.prior_draws(5)
    latents = density.constrain(u)
    assert {name: tuple(v.shape) for name, v in latents.items()} == {
        "mu": (5,),
        "tau": (5,),
        "eta": (5, 8),
    }
    y, sigma = SCHOOLS
    mu, tau, eta = latents["mu"], latents["tau"], latents["eta"]
    by_hand = dist.Normal(0.0, 5.0).log_prob(mu) + dist.HalfCauchy(5.0).log_prob(tau) + tau.log()
    by_hand = by_hand + dist.Normal(0.0, 1.0).log_prob(eta).sum(-1)
    centre = mu.unsqueeze(-1) + tau.unsqueeze(-1) * eta
    by_hand = by_hand + dist.Normal(centre, sigma).log_prob(y).sum(-1)
    torch.testing.assert_close(density.joint(u)[:, 0], by_hand.double(), rtol=1e-5, atol=1e-3)


def test_guide_and_model_share_their_coordinates() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 5)
    density = LogDensity(fa.model, x, guide=fa.guide)
    u = density.guide_draws(7)
    with torch.no_grad():
        difference = density.joint(u) - density.guide(u)
        torch.testing.assert_close(difference, fa.log_evidence(x).expand(7, 5))


def discrete(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Poisson(0.3))
        pyro.sample("x", dist.Normal(k, 1.0), obs=x)


def moving_support(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.Gamma(2.0, 1.0))
        low = pyro.sample("low", dist.Uniform(torch.zeros(()), top))
        pyro.sample("x", dist.Normal(low, 1.0), obs=x)


def without_latents(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (discrete, r"site 'k' \(Poisson\) is discrete"),
        (moving_support, "site 'low': its support .* depends on other latents"),
        (without_latents, "has no continuous latents"),
    ],
)
def test_models_without_a_density_of_reals_are_refused(
    model: Callable[..., Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        hmc(model, torch.zeros(3))
