"""Densities and masses of every part sum to one, and draws follow them."""

import math
from typing import Any

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor, nn

from aevb import models
from aevb.models.supports import REAL, UNIT_INTERVAL, meet

from model_parts import DISTRIBUTIONS, LIKELIHOODS, SHAPE, build, doubled
from oracles import STANDARD_ERRORS


def on_real_line(part: Any) -> tuple[Any, int]:
    """The distribution of one draw in float64, carried over to the reals, and its event rank."""
    torch.manual_seed(3)
    module, args, event_dim = build(part)
    distribution = doubled(module)(*(a[0].double() for a in args))
    if isinstance(part, models.Prior | models.Posterior):
        distribution = meet(distribution, part.support, REAL)
    if part == models.ContinuousBernoulli():
        distribution = meet(distribution, UNIT_INTERVAL, REAL)
    return distribution, event_dim


def weighted(part: Any, shift: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Draws of a wide t distribution, their importance weights, and draws of the part itself."""
    distribution, event_dim = on_real_line(part)
    with torch.no_grad():
        own = distribution.sample((20_000,)).flatten(-event_dim)
        wide = torch.distributions.StudentT(
            torch.tensor(3.0).double(), own.mean(0), 1.2 * own.std(0)
        )
        x = wide.sample((200_000,))
        log_p = distribution.log_prob(x.reshape(-1, *distribution.event_shape))
        return x, torch.exp(log_p + shift - wide.log_prob(x).sum(-1)), own


def total_mass(part: Any, shift: float = 0.0) -> tuple[float, float]:
    """Mass of a density by importance sampling, with its standard error."""
    _, weights, _ = weighted(part, shift)
    return float(weights.mean()), float(weights.std() / math.sqrt(len(weights)))


DISCRETE = (
    models.Bernoulli,
    models.Binomial,
    models.Categorical,
    models.DirichletMultinomial,
    models.DiscretizedLogistic,
    models.DiscretizedLogisticMixture,
    models.Multinomial,
    models.NegativeBinomial,
    models.Poisson,
)

CONTINUOUS = [
    p
    for p in DISTRIBUTIONS
    if not isinstance(p, DISCRETE) and getattr(p, "scores_any_value", True)
]


@pytest.mark.parametrize("part", CONTINUOUS, ids=repr)
def test_continuous_densities_integrate_to_one(part: Any) -> None:
    mass, error = total_mass(part)
    assert error < 0.02
    assert abs(mass - 1) < STANDARD_ERRORS * error


@pytest.mark.parametrize("part", CONTINUOUS[:1], ids=repr)
def test_a_density_off_by_two_percent_is_found_out(part: Any) -> None:
    mass, error = total_mass(part, shift=math.log(1.02))
    assert abs(mass - 1) > STANDARD_ERRORS * error


def moments_apart(part: Any, stretch: float = 1.0) -> float:
    """Largest difference of draws and density, in standard errors, over bounded moments."""
    x, weights, own = weighted(part)
    own = own * stretch
    centre, width = own.mean(0), own.std(0)
    largest = 0.0
    for moment in (torch.tanh, lambda u: torch.exp(-u.square())):
        by_density = weights.unsqueeze(-1) * moment((x - centre) / width)
        by_draws = moment((own - centre) / width)
        error = (by_density.var(0) / len(x) + by_draws.var(0) / len(own)).sqrt()
        apart = (by_density.mean(0) - by_draws.mean(0)).abs() / error
        largest = max(largest, float(apart.max()))
    return largest


@pytest.mark.parametrize("part", CONTINUOUS, ids=repr)
def test_draws_follow_the_density(part: Any) -> None:
    assert moments_apart(part) < STANDARD_ERRORS + 1  # the largest of a dozen


def test_draws_a_tenth_too_wide_are_found_out() -> None:
    assert moments_apart(models.StandardNormal(), stretch=1.1) > STANDARD_ERRORS + 1


LEVELS = {
    models.Bernoulli: torch.arange(2.0),
    models.Binomial: torch.arange(4.0) / 3,
    models.Categorical: torch.arange(3.0),
    models.DiscretizedLogistic: torch.arange(4.0) / 3,
    models.DiscretizedLogisticMixture: torch.arange(4.0) / 3,
    models.NegativeBinomial: torch.arange(400.0),
    models.Poisson: torch.arange(400.0),
}


@pytest.mark.parametrize(
    "part", [p for p in LIKELIHOODS if type(p) in LEVELS and p != models.Bernoulli(True)], ids=repr
)
def test_masses_sum_to_one_and_draws_follow_them(part: models.Likelihood) -> None:
    torch.manual_seed(3)
    levels = LEVELS[type(part)]
    distribution = part.build(7, (1,))(torch.randn(7))
    masses = distribution.log_prob(levels.unsqueeze(-1)).exp().detach()
    assert float(masses.sum()) == pytest.approx(1.0, abs=1e-5)
    draws = distribution.sample((20_000,)).flatten()
    counts = torch.stack([(draws - level).abs() < 1e-4 for level in levels]).sum(1)
    assert int(counts.sum()) == len(draws)
    expected = masses * len(draws)
    often = expected > 5
    square = ((counts - expected).square() / expected)[often].sum()
    degrees = int(often.sum()) - 1
    assert float(chi2.sf(float(square), degrees)) > 1e-6


def test_bernoulli_masses_sum_to_one_over_all_images() -> None:
    module, args, _ = build(models.Bernoulli())
    images = torch.tensor([[(n >> i) & 1 for i in range(6)] for n in range(64)]).float()
    log_prob = module(args[0][:1]).log_prob(images.reshape(64, *SHAPE))
    assert float(torch.logsumexp(log_prob, 0).detach()) == pytest.approx(0.0, abs=1e-5)


def test_relaxed_bernoulli_is_the_cross_entropy() -> None:
    module, args, _ = build(models.Bernoulli(relaxed=True))
    x = torch.rand(5, *SHAPE)
    distribution = module(*args)
    logits = distribution.base_dist.logits
    expected = -nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
    torch.testing.assert_close(distribution.log_prob(x), expected.flatten(1).sum(1))
