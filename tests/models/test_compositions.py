"""Counts that share out a total: what they are given it, their totals, and their draws."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from aevb import inference, models

from oracles import STANDARD_ERRORS

PARTS: list[Any] = [
    models.Multinomial(total=5.0, dispersion=2.0),
    models.DirichletMultinomial(total=5.0, dispersion=2.0, concentration=4.0),
]


def at(part: Any, shape: tuple[int, ...] = (3,), batch: int = 1) -> Any:
    torch.manual_seed(0)
    module = part.build(2, shape).double().requires_grad_(False)
    return module(torch.randn(batch, 2).double())


def logs_of_totals(x: Tensor, distribution: Any) -> Tensor:
    r, mean = distribution.log_dispersion.exp(), distribution.log_total.exp()
    totals = dist.NegativeBinomial(r, logits=(mean / r).log())
    result: Tensor = totals.log_prob(x.sum(-1))
    return result


@pytest.mark.parametrize("part", PARTS, ids=repr)
def test_masses_sum_to_one(part: Any) -> None:
    distribution = at(part, (2,))
    every = torch.tensor(list(product(range(60), repeat=2))).double()
    kept = every[every.sum(-1) < 60]
    with torch.no_grad():
        mass = float(distribution.log_prob(kept).exp().sum())
        totals = torch.arange(60).double().unsqueeze(-1)
        wanted = float(logs_of_totals(totals, distribution).exp().sum())
    assert wanted > 1 - 1e-6
    assert mass == pytest.approx(wanted, abs=1e-10)


def test_given_its_total_a_multinomial_is_poissons_of_library_size_times_softmax() -> None:
    distribution = at(PARTS[0])
    x = torch.tensor([[3.0, 0.0, 9.0]]).double()
    for size in (2.0, 700.0):  # whatever the library size, which cancels
        shares = distribution.log_shares.exp()
        joint = dist.Poisson(size * shares).log_prob(x).sum(-1)
        given = joint - dist.Poisson(size).log_prob(x.sum(-1))
        found = distribution.log_prob(x) - logs_of_totals(x, distribution)
        torch.testing.assert_close(found, given, rtol=1e-10, atol=1e-10)


def test_given_its_total_a_dirichlet_multinomial_is_negative_binomials() -> None:
    distribution = at(PARTS[1])
    x = torch.tensor([[3.0, 0.0, 9.0]]).double()
    for logit in (-1.0, 2.0):  # any common one
        r = distribution.log_concentration.exp() * distribution.log_shares.exp()
        logits = torch.tensor(logit).double()
        joint = dist.NegativeBinomial(r, logits=logits).log_prob(x).sum(-1)
        given = joint - dist.NegativeBinomial(r.sum(-1), logits=logits).log_prob(x.sum(-1))
        found = distribution.log_prob(x) - logs_of_totals(x, distribution)
        torch.testing.assert_close(found, given, rtol=1e-10, atol=1e-10)


def test_totals_say_nothing_about_the_latents() -> None:
    distribution = at(PARTS[0], batch=2)
    x = torch.tensor([4.0, 1.0, 0.0]).double()
    ratio = [float(distribution.log_prob(k * x).diff()) / k for k in (1, 1000)]
    # of two latents for k times the counts: k times that of their shares alone
    assert ratio[0] == pytest.approx(ratio[1], rel=1e-9)
    module = models.Poisson().build(2, (3,)).double().requires_grad_(False)
    poisson = module(torch.randn(2, 2).double())
    assert abs(float(poisson.log_prob(1000 * x).diff()) / 1000 - float(
        poisson.log_prob(x).diff()
    )) > 1e-3  # fmt: skip


@pytest.mark.parametrize("part", PARTS, ids=repr)
def test_draws_have_the_moments_that_are_said(part: Any) -> None:
    distribution = at(part, (2, 2))
    torch.manual_seed(1)
    draws = distribution.sample((100_000,))[:, 0]
    assert draws.shape == (100_000, 2, 2)
    error = (distribution.variance / 100_000).sqrt()[0]
    assert bool(((draws.mean(0) - distribution.mean[0]).abs() < STANDARD_ERRORS * error).all())
    squares = (draws - distribution.mean[0]).square()
    error = squares.std(0) / math.sqrt(100_000)
    apart = (squares.mean(0) - distribution.variance[0]).abs()
    assert bool((apart < STANDARD_ERRORS * error).all())
    # the twin whose variance is a Poisson's is found out
    assert not bool(
        ((squares.mean(0) - distribution.mean[0]).abs() < STANDARD_ERRORS * error).all()
    )


def test_many_draws_are_dealt_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    distribution = at(PARTS[0], batch=50)
    monkeypatch.setattr("aevb.models.likelihoods.compositions._DRAWN_AT_ONCE", 30)
    torch.manual_seed(0)
    draws = distribution.sample((40,))
    assert draws.shape == (40, 50, 3)
    assert float(draws.sum(-1).mean()) == pytest.approx(5.0, abs=5 * math.sqrt(17.5 / 2000))


def test_large_totals_keep_their_digits() -> None:
    module = models.DirichletMultinomial(total=50_000.0).build(2, (3,))
    features, x = torch.zeros(1, 2), torch.tensor([[20_000.0, 1.0, 30_001.0]])
    single, double = module(features).log_prob(x), module.double()(features.double())
    wanted = double.log_prob(x.double())
    torch.testing.assert_close(single.double(), wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("part", PARTS, ids=repr)
def test_evidence_of_a_model_of_shares_is_that_of_quadrature(part: Any) -> None:
    torch.manual_seed(0)
    vae = models.VAE((3,), 1, [4], likelihood=part).double().eval()
    x = torch.tensor([[3.0, 0.0, 9.0], [1.0, 1.0, 0.0]]).double()
    z = torch.linspace(-9, 9, 4001).double().unsqueeze(-1)
    logs = vae.decoder(z).log_prob(x.unsqueeze(1)) + dist.Normal(0.0, 1.0).log_prob(z.squeeze(-1))
    truth = torch.logsumexp(logs, -1) + math.log(18 / 4000)
    found = inference.importance_evidence(vae.model, vae.guide, x, num_samples=4000)
    apart = (found.log_evidence - truth).abs()
    assert bool((apart < STANDARD_ERRORS * found.standard_error).all())
