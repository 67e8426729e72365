"""Imputation against exact conditional Gaussians, with twins that must fail."""

from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from aevb import models
from aevb.evaluation import Imputation, denoise, impute, impute_hmc
from aevb.evaluation.predictive import imputation
from aevb.inference.programs.log_density import LogDensity
from aevb.inference.programs.partly_observed import observed_site, partly_observed

from oracles import STANDARD_ERRORS, linear_gaussian, mean_field_guide, simulate

NUM = 12


@pytest.fixture(scope="module", name="oracle")
def fixture_oracle() -> tuple[models.FactorAnalysis, Tensor, Tensor, Tensor]:
    """The model, data, a mask of its own for each datapoint, and E[x_m | x_o]."""
    fa = linear_gaussian()
    x = simulate(fa, NUM)
    observed = torch.rand(NUM, 6, generator=torch.Generator().manual_seed(1)) < 0.5
    observed[0], observed[1] = False, True  # all missing, none missing
    return fa, x, observed, conditional_mean(fa, x, observed)


def conditional_mean(fa: models.FactorAnalysis, x: Tensor, observed: Tensor) -> Tensor:
    with torch.no_grad():
        weight, loc = fa.decoder.weight, fa.decoder.bias
        covariance = weight @ weight.mT + torch.diag(fa.noise(torch.zeros(3)).square())
        rows = []
        for row, known in zip(x, observed, strict=True):
            gain = covariance[:, known] @ torch.linalg.inv(covariance[known][:, known])
            rows.append(torch.where(known, row, loc + gain @ (row[known] - loc[known])))
        return torch.stack(rows)


def worst(result: Imputation, exact: Tensor) -> float:
    """Largest error of a missing value, in standard errors."""
    missing = result.standard_error > 0
    return float(((result.mean - exact)[missing] / result.standard_error[missing]).abs().max())


def by_chain(oracle: Any, guide: Any = None, num_steps: int = 300) -> Imputation:
    fa, x, observed, _ = oracle
    return impute(fa.model, guide or fa.guide, x, observed, num_steps=num_steps, num_chains=100)


# Means


def test_markov_chain_with_the_exact_guide_is_a_gibbs_sampler(oracle: Any) -> None:
    fa, x, observed, exact = oracle
    result = by_chain(oracle)
    assert worst(result, exact) < STANDARD_ERRORS
    # not because errors are large: they are a small part of the prior's scale
    assert float(result.standard_error.max()) < 0.1
    assert torch.equal(result.mean[observed], x[observed])
    assert torch.equal(result.last[:, observed], x[observed].expand(100, -1))
    assert result.last.shape == (100, NUM, 6)


def test_last_draws_have_the_conditional_spread(oracle: Any) -> None:
    """The datapoint of which nothing is known is a draw of the model."""
    fa, *_ = oracle
    last = by_chain(oracle, num_steps=30).last[:, 0]
    with torch.no_grad():
        variance = fa.decoder.weight.square().sum(-1) + fa.noise(torch.zeros(3)).square()
    # the variance of 100 normal draws has a relative error of √(2/99)
    relative = last.var(0) / variance - 1
    assert float(relative.abs().max()) < STANDARD_ERRORS * (2 / 99) ** 0.5


def test_without_putting_observed_values_back_it_fails(
    oracle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imputation, "_clamped", lambda x, observed, decoded: decoded)
    assert worst(by_chain(oracle), oracle[3]) > 2 * STANDARD_ERRORS


def test_with_a_wrong_guide_it_is_off(oracle: Any) -> None:
    fa, *_, exact = oracle

    def shrunk(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * fa.posterior(x).loc, 0.3).to_event(1))

    assert worst(by_chain(oracle, shrunk), exact) > 2 * STANDARD_ERRORS


def by_hmc(oracle: Any, **settings: Any) -> Imputation:
    fa, x, observed, _ = oracle
    return impute_hmc(fa.model, x, observed, num_samples=100, num_warmup=100, **settings)


def test_hmc_needs_no_guide(oracle: Any) -> None:
    result = by_hmc(oracle, num_chains=64)
    assert worst(result, oracle[3]) < STANDARD_ERRORS
    assert float(result.standard_error.max()) < 0.1
    assert result.draws is not None
    assert int(result.draws.divergences.sum()) == 0


def test_hmc_is_not_misled_by_its_guide(oracle: Any) -> None:
    result = by_hmc(oracle, num_chains=64, guide=mean_field_guide(oracle[0], 0.5))
    assert worst(result, oracle[3]) < STANDARD_ERRORS


def test_hmc_that_believes_the_filling_fails(oracle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: no value is masked, so that draws of the model count as data."""
    monkeypatch.setattr(imputation, "partly_observed", lambda model, observed, site: model)
    assert worst(by_hmc(oracle), oracle[3]) > 2 * STANDARD_ERRORS


# What is measured and what is refused


def test_error_is_that_of_missing_values_alone(oracle: Any) -> None:
    fa, x, observed, _ = oracle
    blank = torch.where(observed, x, torch.nan)
    result = impute(fa.model, fa.guide, blank, observed, num_steps=4, truth=x)
    assert result.mse is not None
    assert bool(torch.isnan(result.mse[1]))
    for row in (0, 2, 3):
        missing = ~observed[row]
        by_hand = (result.mean[row, missing] - x[row, missing]).square().mean()
        assert float(result.mse[row]) == pytest.approx(float(by_hand))
    assert bool(torch.isfinite(result.mean).all())


def test_missing_values_are_not_looked_at(oracle: Any) -> None:
    fa, x, observed, _ = oracle
    blanks = [torch.where(observed, x, value) for value in (torch.nan, 1e6)]
    chains = [impute(fa.model, fa.guide, blank, observed, num_steps=3) for blank in blanks]
    draws = [impute_hmc(fa.model, blank, observed, num_samples=40) for blank in blanks]
    assert torch.equal(chains[0].mean, chains[1].mean)
    assert torch.equal(draws[0].mean, draws[1].mean)


def test_denoising_is_the_mean_of_what_is_decoded() -> None:
    """E[Wz + m] under the exact posterior is W E[z|x] + m."""
    fa = linear_gaussian()
    x = simulate(fa, 20)
    result = denoise(fa.model, fa.guide, x, num_chains=200, truth=x)
    with torch.no_grad():
        exact = fa.decoder(fa.posterior(x).loc)
    assert worst(result, exact) < STANDARD_ERRORS
    assert result.mse is not None
    torch.testing.assert_close(result.mse, (result.mean - x).square().mean(-1))


@pytest.mark.filterwarnings("ignore:HMC. chains of datapoints")  # 40 draws need not mix
@pytest.mark.parametrize(
    "likelihood",
    [models.Bernoulli(), models.Normal(), models.Categorical(4), models.DiscretizedLogistic()],
    ids=lambda part: type(part).__name__,
)
def test_images_of_any_likelihood(likelihood: Any) -> None:
    vae = models.VAE((4, 4), latent_dim=2, hidden=[8], likelihood=likelihood)
    x = vae.model(size=5).detach()
    observed = torch.rand(5, 4, 4) < 0.5
    result = impute(vae.model, vae.guide, x, observed, num_steps=3)
    by_hmc = impute_hmc(vae.model, x, observed, num_chains=2, num_samples=40, num_warmup=40)
    for found in (result, by_hmc):
        vae.check_data(found.last.flatten(0, 1))
        assert torch.equal(found.mean[observed], x[observed])


def test_deep_models_and_same_seed_same_chains() -> None:
    dlgm = models.DLGM((4, 4), latent_dims=[3, 2], hidden=[8]).eval()
    x, observed = torch.ones(5, 4, 4), torch.rand(4, 4) < 0.5
    before = torch.get_rng_state()
    first, again, other = (
        impute(dlgm.model, dlgm.guide, x, observed, num_steps=3, seed=seed).last
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_one_chain_has_no_known_error(oracle: Any) -> None:
    fa, x, observed, _ = oracle
    result = impute(fa.model, fa.guide, x, observed, num_steps=2, num_chains=1)
    assert bool(torch.isnan(result.standard_error[~observed]).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observed": torch.ones(6)}, "observed: expected a mask of torch.bool"),
        ({"observed": torch.ones(5, dtype=torch.bool)}, "does not broadcast"),
        ({"x": torch.full((2, 6), torch.nan).double()}, "an observed value is NaN"),
        ({"truth": torch.zeros(3, 6)}, "truth: expected shape"),
        ({"num_steps": 0}, "num_steps: must be at least 1"),
        ({"num_chains": 0}, "num_chains: must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    fa = linear_gaussian()
    settings = {"x": torch.zeros(2, 6).double(), "observed": torch.ones(6, dtype=torch.bool)}
    with pytest.raises(ValueError, match=message):
        impute(fa.model, fa.guide, **{**settings, **change})


# Partly observed models


def test_masked_density_is_that_of_the_observed_values(oracle: Any) -> None:
    fa, x, observed, _ = oracle
    u = torch.randn(7, NUM, 3, dtype=torch.float64)
    found = LogDensity(partly_observed(fa.model, observed), x).joint(u)
    with torch.no_grad():
        scale = fa.noise(torch.zeros(3))
        terms = dist.Normal(fa.decoder(u), scale).log_prob(x)
        by_hand = dist.Normal(0.0, 1.0).log_prob(u).sum(-1) + (terms * observed).sum(-1)
    torch.testing.assert_close(found, by_hand)
    everything = partly_observed(fa.model, torch.ones_like(observed))
    torch.testing.assert_close(
        LogDensity(everything, x).joint(u), LogDensity(fa.model, x).joint(u)
    )


def test_likelihoods_that_do_not_factorize_are_refused() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.MultivariateNormal(z, torch.eye(2)), obs=x)

    x, observed = torch.zeros(3, 2), torch.tensor([True, False])
    with pytest.raises(ValueError, match="MultivariateNormal is no product"):
        impute_hmc(model, x, observed)


def test_the_observed_site_must_be_the_only_one() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(0.0, 1.0), obs=x)
            pyro.sample("b", dist.Normal(0.0, 1.0), obs=x)

    with pytest.raises(ValueError, match="expected one observed site of shape"):
        observed_site(model, torch.zeros(3))
