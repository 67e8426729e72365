"""Importance sampling of programs of every shape, and those that it refuses."""

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal
from torch import Tensor

from aevb import models
from aevb.inference import Program, importance_evidence

from oracles import (
    STANDARD_ERRORS,
    linear_gaussian,
    simulate,
)


def global_model(x: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def wide_guide(x: Tensor) -> None:
    variance = 1 / (1 / 4 + len(x))
    pyro.sample("mean", dist.Normal(x.sum() * variance, 1.5 * variance**0.5))


def test_global_latents_have_one_joint_evidence() -> None:
    x = torch.randn(8, dtype=torch.float64)
    evidence = importance_evidence(global_model, wide_guide, x, num_samples=20_000)
    covariance = torch.eye(8, dtype=torch.float64) + 4.0
    exact = dist.MultivariateNormal(torch.zeros(8, dtype=torch.float64), covariance).log_prob(x)
    assert evidence.log_evidence.shape == (1,)
    assert abs(float(evidence.log_evidence - exact)) < STANDARD_ERRORS * float(
        evidence.standard_error
    )


def test_nested_plates_sum_to_the_datapoint() -> None:
    """Features in a second plate are summed into their datapoint's weight."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            with pyro.plate("features", x.shape[1], dim=-2):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x.mT)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            variance = 1 / (1 + x.shape[1])
            pyro.sample("z", dist.Normal(x.sum(1) * variance, variance**0.5))

    x = torch.randn(7, 3, dtype=torch.float64)
    evidence = importance_evidence(model, guide, x, num_samples=5)
    covariance = torch.eye(3, dtype=torch.float64) + 1.0
    exact = dist.MultivariateNormal(torch.zeros(3, dtype=torch.float64), covariance).log_prob(x)
    torch.testing.assert_close(evidence.log_evidence, exact, rtol=1e-10, atol=1e-10)


def test_masked_terms_are_left_out() -> None:
    mask = torch.tensor([True, False, True])

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            with pyro.poutine.mask(mask=mask):
                pyro.sample("x", dist.Normal(x.new_zeros(()), 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))

    x = torch.randn(3, dtype=torch.float64)
    evidence = importance_evidence(model, guide, x, num_samples=4)
    expected = torch.where(mask, dist.Normal(0.0, 1.0).log_prob(x), 0.0)
    torch.testing.assert_close(evidence.log_evidence, expected)


def scale_model(x: Tensor) -> None:
    """A positive latent, so that an autoguide needs the Jacobian of its transform."""
    scale = pyro.sample("scale", dist.Gamma(x.new_tensor(3.0), 2.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(0.0, scale), obs=x)


@pytest.mark.parametrize("make", [AutoNormal, AutoDiagonalNormal])
def test_autoguide_of_a_constrained_latent_agrees_with_quadrature(
    make: Callable[..., Any],
) -> None:
    x = torch.tensor([0.5, -1.2, 0.8], dtype=torch.float64)
    guide = make(scale_model, init_scale=0.5)
    program = Program(scale_model, guide).double()
    program.guide(x)
    program.double()
    evidence = importance_evidence(program.model, program.guide, x, num_samples=20_000)
    grid = torch.linspace(1e-4, 30, 300_001, dtype=torch.float64)
    log_joint = dist.Gamma(grid.new_tensor(3.0), 2.0).log_prob(grid)
    log_joint = log_joint + dist.Normal(0.0, grid[:, None]).log_prob(x).sum(-1)
    exact = float(torch.logsumexp(log_joint, 0) + torch.log(grid[1] - grid[0]))
    error = abs(float(evidence.log_evidence) - exact)
    assert float(evidence.ess) > 1000
    assert error < STANDARD_ERRORS * float(evidence.standard_error)


def test_a_guide_of_single_points_is_refused() -> None:
    program = Program(global_model, AutoDelta(global_model))
    with pytest.raises(ValueError, match=r"sites \['mean'\] are single points"):
        importance_evidence(program.model, program.guide, torch.randn(8), num_samples=10)


def test_a_latent_of_the_guide_alone_is_refused() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 4)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", fa.posterior(x))
            pyro.sample("extra", dist.Normal(x.new_zeros(()), 1.0))

    with pytest.raises(ValueError, match=r"draws 'extra', which the model lacks"):
        importance_evidence(fa.model, guide, x, num_samples=5)


def test_data_outside_the_support_are_refused() -> None:
    vae = models.VAE((8, 8), hidden=[8])
    with pytest.raises(ValueError, match="site 'x' observes values outside the support of Bernou"):
        importance_evidence(vae.model, vae.guide, torch.rand(3, 8, 8), num_samples=5)


def test_a_program_without_latents_is_refused() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    with pytest.raises(ValueError, match="has no latent sites"):
        importance_evidence(model, lambda x: None, torch.randn(4), num_samples=5)


def test_values_for_each_datapoint_are_not_mispaired_by_blocks() -> None:
    """A guide with one parameter per datapoint, which the first rows of a block would take."""
    fa = linear_gaussian()
    x = simulate(fa, 600)
    posterior = fa.posterior(x)

    def guide(data: Tensor) -> None:
        with pyro.plate("data", len(data)):
            loc = posterior.loc[: len(data)]
            pyro.sample(
                "z", dist.MultivariateNormal(loc, precision_matrix=posterior.precision_matrix)
            )

    evidence = importance_evidence(fa.model, guide, x, num_samples=5)
    exact = fa.log_evidence(x).detach()
    torch.testing.assert_close(evidence.log_evidence, exact, rtol=1e-10, atol=1e-10)


def test_a_plate_of_written_size_is_not_cut() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 300)

    def model(data: Tensor) -> None:
        with pyro.plate("data", 300):
            z = pyro.sample("z", dist.Normal(data.new_zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(fa.decoder(z), fa.noise(z)).to_event(1), obs=data)

    whole = importance_evidence(model, fa.guide, x, num_samples=30)
    torch.testing.assert_close(whole.log_evidence, fa.log_evidence(x).detach())
