"""What the pictures of the papers are judged by: grids of the plane, neighbours, labels."""

import math
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from aevb import data
from aevb.experiments.papers.aevb_full_vb import at_drawn_weights, weight_divergence
from aevb.experiments.papers.autoencoder import fitted_normal
from aevb.experiments.papers.dlgm_pictures import principal_components
from aevb.experiments.reproduction.labels import labels
from aevb.experiments.reproduction.neighbours import nearest_distance, vote
from aevb.experiments.reproduction.plane import (
    disc,
    log_evidence_on,
    posterior_on_grid,
    total_variation,
)
from aevb.inference import importance_evidence
from aevb.models import VAE, FactorAnalysis, LatentWeights

from oracles import STANDARD_ERRORS


def linear(scale: float = 1.0) -> tuple[FactorAnalysis, Tensor, MultivariateNormal, Any]:
    """A factor analysis in the plane, one datapoint, its posterior, and a wrong guide."""
    torch.manual_seed(0)
    fa = FactorAnalysis((5,), 2).requires_grad_(False)
    with torch.no_grad():
        for parameter in fa.parameters():
            parameter.copy_(0.7 * torch.randn_like(parameter))
    x = fa.model(size=1).detach()
    exact = fa.posterior(x)
    q = dist.Normal(exact.loc + 0.2, scale * exact.covariance_matrix.diagonal(0, -1, -2).sqrt())

    def guide(x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            return pyro.sample("z", q.to_event(1))

    truth = MultivariateNormal(exact.loc[0].double(), exact.covariance_matrix[0].double())
    return fa, x, truth, guide


def test_the_grid_knows_evidence_and_divergences_in_closed_form() -> None:
    fa, x, truth, guide = linear()
    grid, log_guide, log_prior = posterior_on_grid(fa.model, x, guide)
    assert float(fa.log_evidence(x)) == pytest.approx(grid.log_evidence, abs=1e-4)
    assert torch.allclose(grid.log_posterior, truth.log_prob(grid.points), atol=1e-3)
    variance = truth.covariance_matrix.diagonal()
    q = MultivariateNormal(truth.loc + 0.2, variance.diag())
    assert grid.divergence_from(log_guide) == pytest.approx(float(kl_divergence(q, truth)), 1e-3)
    assert torch.allclose(log_prior, -0.5 * grid.points.square().sum(-1) - math.log(2 * math.pi))
    # the twin: the posterior of another datapoint
    other, _, _ = posterior_on_grid(fa.model, x + 0.5, guide)
    assert other.log_evidence != pytest.approx(grid.log_evidence, abs=1e-2)


def test_draws_of_the_grid_come_as_near_to_it_as_chance_allows() -> None:
    fa, x, truth, guide = linear()
    grid, log_guide, _ = posterior_on_grid(fa.model, x, guide)
    num, blocks = 4000, 10
    masses = grid.blocks(blocks)
    assert float(masses.sum()) == pytest.approx(1, abs=1e-3)
    # E|share - mass| of a binomial is at most its deviation; McDiarmid: one draw moves TV by 1/n
    most = 0.5 * float((masses * (1 - masses)).clamp(min=0).sqrt().sum()) / math.sqrt(num)
    most += STANDARD_ERRORS * 0.5 / math.sqrt(num) + 1e-3
    exact = grid.draw(num, torch.Generator().manual_seed(0))
    assert total_variation(grid.shares(exact, blocks), masses) < most
    torch.manual_seed(0)
    assert total_variation(grid.shares(truth.sample((num,)), blocks), masses) < most
    # the twin: draws of the wrong guide are as far off as densities say, give or take
    wrong = guide_draws_of(guide, x, num)
    assert total_variation(grid.shares(wrong, blocks), masses) > most
    assert grid.variation_from(log_guide) > 0.05
    assert grid.variation_from(grid.log_posterior) == pytest.approx(0, abs=1e-6)


def guide_draws_of(guide: Any, x: Tensor, num: int) -> Tensor:
    with torch.no_grad():
        return guide(x.expand(num, -1)).double()


def test_what_lies_off_the_grid_is_missed() -> None:
    assert total_variation(torch.tensor([0.0, 0.0]), torch.tensor([0.5, 0.5])) == 1.0
    assert total_variation(torch.tensor([0.5, 0.0]), torch.tensor([1.0, 0.0])) == 0.5


def test_evidence_on_the_disc_agrees_with_importance_sampling() -> None:
    torch.manual_seed(0)
    vae = VAE((4, 4), latent_dim=2, hidden=[8])
    with torch.no_grad():
        for parameter in vae.decoder.parameters():
            parameter.mul_(2)
    x = torch.bernoulli(torch.full((20, 4, 4), 0.5))
    found = log_evidence_on(*disc(0.1), vae.decoder, x)
    sampled = importance_evidence(vae.model, vae.guide, x, num_samples=20_000)
    wide = STANDARD_ERRORS * sampled.standard_error + 1e-4
    assert bool(((found - sampled.log_evidence).abs() < wide).all())
    assert torch.allclose(found, log_evidence_on(*disc(0.1, 0.5), vae.decoder, x), atol=1e-5)
    # the twin: a grid that forgets the prior
    points, log_mass = disc(0.1)
    forgetful = log_evidence_on(
        points, torch.full_like(log_mass, 2 * math.log(0.1)), vae.decoder, x
    )
    assert not bool(((forgetful - sampled.log_evidence).abs() < wide).any())


def test_drawn_weights_have_the_posteriors_scale_and_leave_the_model_alone() -> None:
    torch.manual_seed(0)
    vae = VAE((8, 8), latent_dim=2, hidden=[50], weights=LatentWeights(initial_scale=0.3))
    assert vae.weights is not None
    means = list(vae.at_mean_weights().decoder.parameters())
    drawn = list(at_drawn_weights(vae, 0).decoder.parameters())
    moves = (
        torch.cat([(a - b).detach().flatten() for a, b in zip(drawn, means, strict=True)]) / 0.3
    )
    assert abs(float(moves.square().mean()) - 1) < STANDARD_ERRORS * math.sqrt(2 / len(moves))
    again = list(at_drawn_weights(vae, 0).decoder.parameters())
    assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))
    other = list(at_drawn_weights(vae, 1).decoder.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(drawn, other, strict=True))


def test_the_divergence_of_weights_is_that_of_the_programs() -> None:
    torch.manual_seed(0)
    vae = VAE((4, 4), latent_dim=2, hidden=[5], weights=LatentWeights(2.0, 0.3)).double()
    assert vae.weights is not None
    closed = sum(
        math.log(2.0 / 0.3) + (0.3**2 + float(w) ** 2) / (2 * 2.0**2) - 0.5
        for loc in vae.weights.loc.values() for w in loc.detach().flatten()
    )  # fmt: skip
    assert weight_divergence(vae.weights) == pytest.approx(closed, rel=1e-6)


def test_neighbours_tell_digits_apart_with_labels_in_the_order_of_the_rows() -> None:
    digits = data.load("digits")
    train, _, test = labels("digits")
    assert (len(train), len(test)) == (len(digits.train), len(digits.test))
    votes = vote(digits.test.evaluation(), digits.train.evaluation(), train, k=5)
    assert float(votes.accuracy(test).mean()) > 0.95
    assert torch.allclose(votes.shares.sum(-1), torch.ones(len(test), dtype=torch.float64))
    # the twin: labels one row further on
    moved = vote(digits.test.evaluation(), digits.train.evaluation(), train.roll(1), k=5)
    assert float(moved.accuracy(test).mean()) < 0.3


def test_neighbours_agree_with_a_naive_loop() -> None:
    torch.manual_seed(0)
    known, asked = torch.randn(40, 3), torch.randn(1200, 3)
    classes = torch.randint(0, 10, (40,))
    votes = vote(asked, known, classes, k=3)
    for number in (0, 499, 500, 1199):
        distances = (known - asked[number]).square().sum(-1).sqrt()
        chosen = classes[distances.argsort()[:3]]
        assert torch.allclose(votes.shares[number], chosen.bincount(minlength=10).double() / 3)
        assert float(votes.nearest[number]) == pytest.approx(float(distances.min()), rel=1e-4)
    assert torch.allclose(votes.nearest, nearest_distance(asked, known))
    with pytest.raises(ValueError, match="k: expected at most"):
        vote(asked, known, classes, k=41)


def test_mnist_labels_are_in_the_order_of_the_rows(data_folder: Any) -> None:
    from torchvision.datasets import MNIST

    ours = data.load("mnist", root=data_folder)
    train, validation, test = labels("mnist", data_folder)
    theirs = MNIST(data_folder, train=True, download=False)
    assert torch.equal(theirs.data[50_000:], ours.validation.values)
    assert torch.equal(theirs.targets[50_000:], validation)
    assert (len(train), len(test)) == (50_000, 10_000)


def test_no_labels_are_made_up() -> None:
    with pytest.raises(ValueError, match="labels are known"):
        labels("frey-face")


def test_principal_components_are_those_of_the_singular_values() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 6, dtype=torch.float64) * torch.arange(1, 7)
    train, test = principal_components(x, x[:5])
    _, values, _ = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    assert torch.allclose(train.square().sum(0).sqrt(), values[:2])
    assert torch.allclose(train[:5], test)


def test_the_fitted_normal_has_the_moments_of_the_codes() -> None:
    torch.manual_seed(0)
    codes = torch.randn(5000, 2) @ torch.tensor([[2.0, 0.5], [0.0, 0.1]]) + 3
    drawn = fitted_normal(codes, 20_000)
    error = codes.std(0) * STANDARD_ERRORS / math.sqrt(20_000)
    assert bool(((drawn.mean(0) - codes.mean(0)).abs() < error).all())
    assert torch.allclose(torch.cov(drawn.T), torch.cov(codes.T), rtol=0.1, atol=0.02)
