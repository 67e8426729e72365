"""Embeddings, active units and KL per dimension against closed forms."""

from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import kl_divergence

from aevb import models
from aevb.evaluation import active_units, embed, kl_per_dimension

from oracles import STANDARD_ERRORS, linear_gaussian, mean_field_guide, simulate


def chain_model(x: Tensor) -> None:
    """Two latents, the lower one centred on the upper one."""
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.Normal(0.0, 1.0))
        low = pyro.sample("low", dist.Normal(top, 0.5))
        pyro.sample("x", dist.Normal(low, 1.0), obs=x)


def chain_guide(x: Tensor) -> None:
    """The lower posterior depends on the draw of the upper one."""
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.Normal(x, 0.3))
        pyro.sample("low", dist.Normal(2 * top + 1, 0.4))


def transformed_guide(x: Tensor) -> None:
    """A standard normal seen through tanh, which has no closed moments."""
    with pyro.plate("data", len(x)):
        base = dist.Normal(0.0 * x, 1.0)
        pyro.sample("z", dist.TransformedDistribution(base, [dist.transforms.TanhTransform()]))


# Embeddings


def test_means_and_scales_of_the_exact_posterior() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 8)
    embedding = embed(fa.guide, x)
    with torch.no_grad():
        exact = fa.posterior(x)
        torch.testing.assert_close(embedding.mean, exact.mean)
        torch.testing.assert_close(embedding.scale, exact.stddev)
    assert float(embedding.standard_error.max()) == 0
    assert embedding.names == ("z[0]", "z[1]", "z[2]")


def test_moments_that_depend_on_draws_come_from_draws() -> None:
    x = torch.linspace(-2, 2, 50, dtype=torch.float64)
    embedding = embed(chain_guide, x, num_samples=4000)
    assert torch.equal(embedding.mean[:, 0], x)
    error = embedding.standard_error[:, 1]
    assert bool((error > 0).all())
    assert float(((embedding.mean[:, 1] - (2 * x + 1)) / error).abs().max()) < STANDARD_ERRORS
    # var(2 top + 1 + noise) = 4 · 0.3² + 0.4²; a standard deviation has relative error 1/√(2S)
    exact = (4 * 0.09 + 0.16) ** 0.5
    relative = embedding.scale[:, 1] / exact - 1
    assert float(relative.abs().max()) < STANDARD_ERRORS / (2 * 4000) ** 0.5
    # a twin that takes one draw's conditional scale for the posterior's
    assert abs(0.4 / exact - 1) > STANDARD_ERRORS / (2 * 4000) ** 0.5


def test_sites_without_closed_moments_come_from_draws() -> None:
    embedding = embed(transformed_guide, torch.zeros(5), num_samples=500, seed=3)
    assert bool((embedding.mean.abs() < STANDARD_ERRORS * embedding.standard_error).all())
    again = embed(transformed_guide, torch.zeros(5), num_samples=500, seed=3)
    assert torch.equal(embedding.mean, again.mean)


def test_all_layers_of_a_deep_model_lie_side_by_side() -> None:
    dlgm = models.DLGM((4, 4), latent_dims=[3, 2], hidden=[8]).eval()
    x = torch.rand(5, 4, 4)
    embedding = embed(dlgm.guide, x)
    assert embedding.mean.shape == (5, 5)
    with torch.no_grad():
        lower = dlgm.encoders[0](dlgm.view(x))
    torch.testing.assert_close(embedding.mean[:, 2:], lower.mean)


def test_plates_inside_a_datapoint_are_flattened() -> None:
    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)), pyro.plate("parts", 4, dim=-2):
            pyro.sample("z", dist.Normal(torch.arange(4.0).unsqueeze(-1) + x, 1.0))

    embedding = embed(guide, torch.tensor([0.0, 10.0]))
    assert embedding.mean.tolist() == [[0, 1, 2, 3], [10, 11, 12, 13]]


def test_a_joint_posterior_has_no_embedding() -> None:
    vae = models.VAE((4,), hidden=[3], weights=models.LatentWeights())
    with pytest.raises(ValueError, match="at_mean_weights"):
        embed(vae.guide, torch.zeros(2, 4))
    with pytest.raises(ValueError, match="num_samples"):
        embed(vae.guide, torch.zeros(2, 4), num_samples=1)


# Active units


def test_units_are_active_by_the_variance_of_their_means() -> None:
    scales = torch.tensor([1.0, 0.2, 0.09, 0.0], dtype=torch.float64)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x * scales, 1.0).to_event(1))

    x = torch.linspace(-1, 1, 200, dtype=torch.float64).unsqueeze(-1)
    units = active_units(guide, x)
    torch.testing.assert_close(units.variance, x.var() * scales.square())
    assert units.is_active.tolist() == [True, True, False, False]
    assert units.count == 2
    assert repr(units) == "ActiveUnits(2 of 4, threshold=0.01)"
    assert active_units(guide, x, threshold=0.5).count == 0
    with pytest.raises(ValueError, match="at least two datapoints"):
        active_units(guide, x[:1])


def test_noise_of_monte_carlo_makes_no_unit_active() -> None:
    """Ten draws of variance 0.39 give means of variance 0.04, were it not taken off."""
    x = torch.zeros(4000)
    noisy = embed(transformed_guide, x, num_samples=10).mean.var(0)
    units = active_units(transformed_guide, x, num_samples=10)
    assert float(noisy) > 0.03
    # the variance of 4000 means has a relative error of √(2/4000)
    assert float(units.variance.abs()) < STANDARD_ERRORS * float(noisy) * (2 / 4000) ** 0.5
    assert units.count == 0


# KL


def test_normals_have_the_closed_form_of_the_paper() -> None:
    """Appendix B: (μ² + σ² - 1 - log σ²) / 2."""
    vae = models.VAE((4,), latent_dim=3, hidden=[5]).double()
    x = torch.rand(6, 4, dtype=torch.float64).round()
    divergence = kl_per_dimension(vae.model, vae.guide, x)
    mean, scale = embed(vae.guide, x).mean, embed(vae.guide, x).scale
    by_hand = 0.5 * (mean.square() + scale.square() - 1 - 2 * scale.log())
    torch.testing.assert_close(divergence.kl, by_hand)
    assert float(divergence.standard_error.abs().max()) == 0
    torch.testing.assert_close(divergence.mean, by_hand.mean(0))


@pytest.mark.parametrize("guide", ["exact", "mean field"])
def test_parts_add_up_to_the_kl(guide: str) -> None:
    fa = linear_gaussian()
    x = simulate(fa, 10)
    program: Any = fa.guide if guide == "exact" else mean_field_guide(fa)
    divergence = kl_per_dimension(fa.model, program, x, num_samples=4000)
    standard = torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    with torch.no_grad():
        exact = fa.posterior(x)
        q = exact
        if guide == "mean field":
            variance = 1 / exact.precision_matrix.diagonal(dim1=-2, dim2=-1)
            q = dist.MultivariateNormal(exact.loc, torch.diag_embed(variance))
        total = kl_divergence(q, dist.MultivariateNormal(*standard))
    error = divergence.standard_error.square().sum(-1).sqrt()
    assert bool(((divergence.kl.sum(-1) - total).abs() <= STANDARD_ERRORS * error + 1e-10).all())
    assert divergence.names == (("z",) if guide == "exact" else ("z[0]", "z[1]", "z[2]"))


def test_a_conditional_prior_is_averaged_over_what_it_depends_on() -> None:
    x = torch.linspace(-1, 1, 30, dtype=torch.float64)
    divergence = kl_per_dimension(chain_model, chain_guide, x, num_samples=4000)
    assert divergence.names == ("top", "low")
    top = 0.5 * (x.square() + 0.09 - 1) - torch.tensor(0.3).double().log()
    torch.testing.assert_close(divergence.kl[:, 0], top)
    # E[(2t + 1 - t)²] with t ~ N(x, 0.3²)
    square = (x + 1).square() + 0.09
    low = 0.5 * ((0.16 + square) / 0.25 - 1) + torch.log(torch.tensor(0.5 / 0.4).double())
    z = (divergence.kl[:, 1] - low) / divergence.standard_error[:, 1]
    assert float(z.abs().max()) < STANDARD_ERRORS
    assert float(divergence.standard_error[:, 0].max()) == 0
    assert float(divergence.mean_standard_error[1]) < float(divergence.standard_error[:, 1].max())


@pytest.mark.parametrize(
    ("prior", "posterior"),
    [
        (models.VampPrior(5), models.DiagonalNormal()),
        (models.StandardNormal(), models.InverseAutoregressiveFlow(1, hidden=(4,))),
        (models.StandardNormal(), models.RankOneNormal()),
    ],
)
def test_any_family_has_parts(prior: Any, posterior: Any) -> None:
    vae = models.VAE((4,), latent_dim=3, hidden=[5], prior=prior, posterior=posterior)
    divergence = kl_per_dimension(vae.model, vae.guide, torch.zeros(6, 4), num_samples=20)
    assert divergence.kl.shape == (6, 1)
    assert divergence.names == ("z",)
    assert bool(torch.isfinite(divergence.kl).all())
