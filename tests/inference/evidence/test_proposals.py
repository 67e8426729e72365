"""Proposals fitted to each datapoint, and verdicts in view of all, against exact posteriors."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from aevb import inference
from aevb.inference import importance_evidence, pareto_khat, pooled_khat
from aevb.inference.evidence import proposals
from aevb.inference.evidence.proposals import fit_proposal
from aevb.inference.evidence.psis import khat_limit
from aevb.inference.programs.joint import Joint

from oracles import STANDARD_ERRORS, linear_gaussian, mean_field_guide, simulate


def narrow(dim: int, num: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Log-weights of posteriors for which a mean-field guide is too narrow, and the covariance."""
    generator = torch.Generator().manual_seed(seed)
    covariance = torch.full((dim, dim), 0.7).double().fill_diagonal_(1.0)
    precision = torch.linalg.inv(covariance)
    scale = precision.diagonal().rsqrt()
    z = scale * torch.randn(1000, num, dim, generator=generator, dtype=torch.float64)
    log_q = torch.distributions.Normal(0.0, scale).log_prob(z).sum(-1)
    target = torch.distributions.MultivariateNormal(torch.zeros(dim).double(), covariance)
    return target.log_prob(z) - log_q, covariance


@pytest.mark.parametrize("dim", [10, 20])
def test_what_misses_its_tail_is_not_trusted_in_view_of_all(dim: int) -> None:
    weights, _ = narrow(dim, 400)
    khat = pareto_khat(weights)
    alone = khat <= 0.7
    error = torch.logsumexp(weights, 0).numpy() - math.log(len(weights))
    # the broken twin: those that pass alone are too low, which is why they pass
    assert alone.mean() > 0.1
    assert error[alone].mean() < -0.3
    assert not (pooled_khat(khat, 1000) <= khat_limit(1000)).any()


def test_datapoints_that_differ_are_not_taken_for_alike() -> None:
    generator = np.random.default_rng(0)
    true = np.repeat([0.1, 1.0], 200)
    khat = true + 0.12 * generator.standard_normal(400)
    trusted = pooled_khat(khat, 1000) <= khat_limit(1000)
    # by the rule, with its mean and variances known, a k̂ of at most 0.144 passes
    expected = torch.distributions.Normal(0.1, 0.12).cdf(torch.tensor(0.144)).item()
    error = math.sqrt(expected * (1 - expected) / 200)
    assert abs(trusted[:200].mean() - expected) < STANDARD_ERRORS * error
    assert not trusted[200:].any()


def test_a_single_datapoint_has_its_own_error_for_a_margin() -> None:
    alone = pooled_khat(np.array([0.3]), 1000)
    num_tail = math.ceil(3 * 1000**0.5)
    error = 1.15 * 1.3 * num_tail**0.5 / (num_tail + 10)
    assert alone[0] == pytest.approx(0.3 + 1.645 * error, rel=1e-6)
    assert np.isnan(pooled_khat(np.array([math.nan, 0.1]), 1000)[0])
    assert pooled_khat(np.array([math.inf, 0.1]), 1000)[0] == math.inf


def test_datapoints_unlike_the_others_are_not_trusted_for_their_company() -> None:
    for odd in (0.6, 0.8, 3.0):
        for others in (19, 99, 999):
            khat = np.append(np.zeros(others), odd)
            trusted = pooled_khat(khat, 1000) <= khat_limit(1000)
            assert trusted[:-1].all()
            assert not trusted[-1]
            # the broken twin: the mean of all, to which empirical Bayes alone would pull it
            assert khat.mean() <= khat_limit(1000)


def test_a_guide_of_lighter_tails_is_not_trusted_for_its_many_effective_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    z = 0.9 * torch.randn(1000, 300, generator=generator, dtype=torch.float64)
    log_q = torch.distributions.Normal(0.0, 0.9).log_prob(z)
    # t of 10 degrees with the normal's inverse scale: weights without a variance
    weights = torch.distributions.StudentT(10.0, 0.0, 0.88).log_prob(z).double() - log_q
    ess = torch.logsumexp(weights, 0).mul(2).sub(torch.logsumexp(2 * weights, 0)).exp()
    assert (ess > 900).double().mean() > 0.5  # by which the broken twin would pass
    trusted = pooled_khat(pareto_khat(weights), 1000) <= khat_limit(1000)
    assert trusted.mean() < 0.05


def fitted(guide: Callable[..., Any], fa: Any, x: Tensor, seed: int = 3) -> Any:
    with torch.no_grad(), inference.seeded(seed, torch.device("cpu")):
        return fit_proposal(Joint(fa.model, x, guide=guide))


def test_fit_finds_mean_and_covariance_of_normal_posteriors() -> None:
    fa = linear_gaussian(features=20, latent_dim=8)
    x = simulate(fa, 30)
    proposal = fitted(mean_field_guide(fa, 0.7), fa, x)
    exact = fa.posterior(x)
    mean, covariance = exact.mean.detach(), exact.covariance_matrix.detach()
    scale = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    # by weights of 2,000 draws, most of which count, beside the normal itself
    tolerance = STANDARD_ERRORS / math.sqrt(1000)
    assert float(((proposal.mean - mean) / scale).abs().max()) < tolerance
    wide = scale.unsqueeze(-1) * scale.unsqueeze(-2)
    assert float(((proposal.covariance - covariance) / wide).abs().max()) < 2 * tolerance
    # the broken twin: what it started from, which is the guide
    start = torch.diag_embed(
        (0.7 * torch.linalg.inv(covariance).diagonal(dim1=-2, dim2=-1).rsqrt()) ** 2
    )
    assert float(((start - covariance) / wide).abs().max()) > 2 * tolerance


@pytest.mark.parametrize("latent_dim", [1, 8, 30])
def test_refined_evidence_covers_the_exact_one_where_the_guide_does_not(latent_dim: int) -> None:
    fa = linear_gaussian(features=2 * latent_dim, latent_dim=latent_dim)
    x, guide = simulate(fa, 60), mean_field_guide(fa, 0.5)
    exact = fa.log_evidence(x).detach()
    refined = importance_evidence(fa.model, guide, x, proposal="refined", num_samples=2000)
    assert bool(refined.is_trusted.all())
    error = (refined.log_evidence - exact) / refined.standard_error
    assert float(error.abs().max()) < STANDARD_ERRORS
    assert float((error.abs() <= 2).double().mean()) > 0.95 - 5 * math.sqrt(0.05 * 0.95 / 60)
    assert refined.summary()["verdict"] == "trusted"
    plain = importance_evidence(fa.model, guide, x, num_samples=2000)
    assert plain.summary()["verdict"] == "lower bound"


def test_result_depends_on_the_seed_alone() -> None:
    fa = linear_gaussian()
    x, guide = simulate(fa, 5), mean_field_guide(fa)
    one, two, other = (
        importance_evidence(
            fa.model, guide, x, proposal="refined", num_samples=200, seed=seed,
            memory_budget=budget,
        ).log_evidence
        for seed, budget in ((1, 2**27), (1, 2**14), (2, 2**27))
    )  # fmt: skip
    torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)
    assert not torch.equal(one, other)


def skewed(x: Tensor) -> None:
    """A latent on a half line, whose posterior is no normal, exact by quadrature below."""
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0).double(), 1.0))
        pyro.sample("x", dist.Poisson(rate), obs=x)


def log_normal_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("rate", dist.LogNormal(torch.zeros(len(x)).double() + 1.0, 0.3))


def test_constrained_latents_have_their_jacobian() -> None:
    x = torch.arange(8.0).double()
    # a gamma prior and Poisson counts: negative binomial
    exact = torch.distributions.NegativeBinomial(2.0, torch.tensor(0.5).double()).log_prob(x)
    found = importance_evidence(skewed, log_normal_guide, x, proposal="refined", num_samples=4000)
    error = (found.log_evidence - exact) / found.standard_error
    assert int(found.is_trusted.sum()) >= 6  # at 0 the posterior of the log is far from normal
    assert float(error.abs().max()) < STANDARD_ERRORS
    # the broken twin: log q in the other coordinates
    twin = found.log_evidence + x.clamp(min=1.0).log()
    assert float(((twin - exact) / found.standard_error).abs().max()) > STANDARD_ERRORS


def test_guide_that_sees_the_other_mode_keeps_it() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)).double(), 1.0))
            pyro.sample("x", dist.Normal(z.square(), 0.1), obs=x)

    def both(x: Tensor) -> None:
        mode = x.clamp(min=0.0).sqrt()
        means = torch.stack([mode, -mode], -1)
        share = dist.Categorical(torch.full((len(x), 2), 0.5).double())
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MixtureSameFamily(share, dist.Normal(means, 0.1)))

    x = torch.tensor([1.0, 2.0]).double()
    grid = torch.linspace(-4, 4, 40_001).double().unsqueeze(-1)
    density = dist.Normal(0.0, 1.0).log_prob(grid) + dist.Normal(grid.square(), 0.1).log_prob(x)
    exact = torch.logsumexp(density, 0) + math.log(8 / 40_000)
    found = importance_evidence(model, both, x, proposal="refined", num_samples=4000)
    error = (found.log_evidence - exact) / found.standard_error
    assert float(error.abs().max()) < STANDARD_ERRORS


def test_too_many_dimensions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fa = linear_gaussian()
    monkeypatch.setattr(proposals, "_MOST_DIMENSIONS", 2)
    with pytest.raises(ValueError, match="use ais_evidence or hmc"):
        importance_evidence(fa.model, fa.guide, simulate(fa, 3), proposal="refined")
    with pytest.raises(ValueError, match="proposal: expected 'guide' or 'refined'; got 'laplace'"):
        importance_evidence(fa.model, fa.guide, simulate(fa, 3), proposal="laplace")  # type: ignore[arg-type]
