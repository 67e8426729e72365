"""Posteriors repaired, against exact ones: each source where it is the cheapest that passes."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from aevb import evaluation, inference
from aevb.inference import SOURCES, Program, bounded_evidence, posterior
from aevb.inference.evidence import repair

from oracles import STANDARD_ERRORS, linear_gaussian, mean_field_guide, simulate


def pair(model: Callable[..., Any], guide: Callable[..., Any]) -> Program:
    return Program(model, guide)


def assert_moments(found: inference.Posterior, mean: Tensor, covariance: Tensor) -> None:
    """Means and standard deviations within five standard errors, as the effective sample tells."""
    scale = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    noise = found.ess.rsqrt().unsqueeze(-1)
    assert float(((found.mean - mean) / (scale * noise)).abs().max()) < STANDARD_ERRORS
    ratio = (found.standard_deviation / scale).log()
    # of a normal's sd; the effective sample of squares is smaller, by half at the most here
    assert float((ratio / noise).abs().max()) < STANDARD_ERRORS


@pytest.mark.parametrize(
    ("make", "source"),
    [
        (lambda fa: fa.guide, "guide"),
        (lambda fa: mean_field_guide(fa, 1.3), "guide, reweighted"),
        (lambda fa: mean_field_guide(fa, 0.4), "fitted, reweighted"),
    ],
)
def test_cheapest_source_that_passes_gives_the_exact_moments(make: Any, source: str) -> None:
    fa = linear_gaussian()
    x = simulate(fa, 40)
    found = posterior(pair(fa.model, make(fa)), x, num_samples=2000)
    assert bool(found.is_passed.all())
    assert {SOURCES[place] for place in found.source.tolist()} == {source}
    exact = fa.posterior(x)
    assert_moments(found, exact.mean.detach(), exact.covariance_matrix.detach())
    cost = {"guide": 2000, "guide, reweighted": 2000}.get(source, 10_000)
    assert bool((found.num_evaluations <= cost).all())


def test_guide_that_is_too_narrow_is_not_passed_as_it_is() -> None:
    """The broken twin of the above: without the test, the moments are wrong."""
    fa = linear_gaussian()
    x = simulate(fa, 40)
    program = pair(fa.model, mean_field_guide(fa, 0.4))
    found = posterior(program, x, num_samples=2000)
    exact = fa.posterior(x)
    with torch.no_grad():
        u = inference.guide_draws(program.model, program.guide, x, num_draws=2000)
    broken = replace(
        found, unconstrained=u, log_weights=torch.full_like(found.log_weights, -math.log(2000)),
        ess=torch.full((40,), 2000.0).double(),
    )  # fmt: skip
    with pytest.raises(AssertionError):
        assert_moments(broken, exact.mean.detach(), exact.covariance_matrix.detach())


def funnel(x: Tensor) -> None:
    """A scale that a neck of the other latent depends on: no normal fits it."""
    with pyro.plate("data", len(x)):
        v = pyro.sample("v", dist.Normal(torch.zeros(len(x)).double(), 2.0))
        z = pyro.sample(
            "z",
            dist.Normal(torch.zeros(len(x), 8).double(), (0.5 * v).exp().unsqueeze(-1)).to_event(
                1
            ),
        )
        pyro.sample("x", dist.Normal(z[..., 0], 1.0), obs=x)


def funnel_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("v", dist.Normal(torch.zeros(len(x)).double(), 0.5))
        pyro.sample("z", dist.Normal(torch.zeros(len(x), 8).double(), 1.0).to_event(1))


def test_what_nothing_repairs_is_said_to_have_failed() -> None:
    x = torch.tensor([0.0, 3.0]).double()
    found = posterior(pair(funnel, funnel_guide), x, num_samples=160, num_warmup=20)
    bad = ~found.is_passed
    assert bool(bad.any())
    assert bool((found.source[bad] == SOURCES.index("hmc")).all())
    assert "did not mix" in found.unproved
    assert found.summary()["verdict"] == f"{int(bad.sum())} of 2 did not pass"


def test_chains_take_over_where_weights_are_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    fa = linear_gaussian()
    x = simulate(fa, 6)
    # no weights are trusted
    monkeypatch.setattr(repair, "khat_limit", lambda num: -1.0)
    found = posterior(pair(fa.model, mean_field_guide(fa)), x, num_samples=2000)
    assert bool((found.source == SOURCES.index("hmc")).all())
    assert bool(found.is_passed.all())
    assert bool((found.rhat <= 1.01).all())
    exact = fa.posterior(x)
    assert_moments(found, exact.mean.detach(), exact.covariance_matrix.detach())


def test_only_what_failed_is_repaired_and_order_is_kept() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 30)
    narrow = torch.arange(30) % 3 == 0

    def guide(x: Tensor) -> None:
        exact = fa.posterior(x)
        which = narrow if len(x) == 30 else torch.ones(len(x), dtype=torch.bool)
        factor = torch.where(which, 0.3, 1.0).double()
        with pyro.plate("data", len(x)):
            scale = exact.scale_tril.detach() * factor[:, None, None]
            pyro.sample("z", dist.MultivariateNormal(exact.mean.detach(), scale_tril=scale))

    found = posterior(pair(fa.model, guide), x, num_samples=2000)
    assert torch.equal(found.source == SOURCES.index("guide"), ~narrow)
    exact = fa.posterior(x)
    assert_moments(found, exact.mean.detach(), exact.covariance_matrix.detach())


def test_joint_posterior_of_plain_regression() -> None:
    generator = torch.Generator().manual_seed(0)
    design = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    y = design @ torch.tensor([1.0, -2.0, 0.5]).double()
    y = y + torch.randn(40, generator=generator, dtype=torch.float64)

    def model(design: Tensor, y: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(3).double(), 2.0).to_event(1))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(design @ w, 1.0), obs=y)

    def guide(design: Tensor, y: Tensor) -> None:
        pyro.sample("w", dist.Normal(torch.zeros(3).double(), 0.3).to_event(1))

    precision = design.T @ design + torch.eye(3).double() / 4
    covariance = torch.linalg.inv(precision)
    found = posterior(pair(model, guide), design, y)
    assert bool(found.is_passed.all())
    assert_moments(found, (covariance @ design.T @ y).unsqueeze(0), covariance.unsqueeze(0))
    assert found.samples["w"].shape == (4000, 3)
    assert found.resampled(50)["w"].shape == (50, 3)


def test_resampled_draws_have_the_weighted_moments_and_go_to_arviz() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 4)
    found = posterior(pair(fa.model, mean_field_guide(fa, 1.3)), x, num_samples=2000)
    z = found.resampled(1000)["z"]
    error = (z.mean(0) - found.mean) / found.standard_deviation
    assert float(error.abs().max()) < STANDARD_ERRORS / math.sqrt(1000)
    unweighted = (found.samples["z"].square().mean(0) / z.square().mean(0)).log()
    assert float(unweighted.abs().max()) > STANDARD_ERRORS * math.sqrt(2 / 1000)
    tree = evaluation.posterior_to_arviz(found, num_draws=100)
    assert dict(tree["posterior"]["z"].sizes)["datapoint"] == 4
    assert tree["constant_data"]["source"].values.tolist() == found.source.tolist()


def test_bounds_of_real_data_hold_the_exact_evidence_between_them() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 30)
    program = pair(fa.model, mean_field_guide(fa))
    exact = fa.log_evidence(x).detach()
    bounds = bounded_evidence(program, x, num_temperatures=20)
    assert bounds.summary()["verdict"] == "trusted from below, conditional from above"
    assert "passed their test at 30 of 30" in bounds.summary()["condition"]
    covered = (bounds.interval[:, 0] <= exact) & (exact <= bounds.interval[:, 1])
    assert float(covered.double().mean()) > 0.95 - 5 * math.sqrt(0.05 * 0.95 / 30)
    # the broken twin: draws that are not the posterior's but all of them its mode
    mode = bounds.posterior.mean.expand_as(bounds.posterior.unconstrained)
    broken = replace(bounds.posterior, unconstrained=mode)
    wrong = bounded_evidence(program, x, draws=broken, num_temperatures=1)
    covered = (wrong.interval[:, 0] <= exact) & (exact <= wrong.interval[:, 1])
    assert float(covered.double().mean()) < 0.5
    few = posterior(program, x[:3])
    with pytest.raises(ValueError, match="draws: of 3 datapoints with 3 latent numbers"):
        bounded_evidence(program, x, draws=few)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"num_samples": 1.5}, "num_samples: must be a whole number; got 1.5"),
        ({"seed": "a"}, "seed: expected a whole number or None; got 'a'"),
        ({}, "hold no datapoints"),
    ],
)
def test_what_is_no_number_of_draws_no_seed_or_no_data_is_refused(given: Any, said: str) -> None:
    fa = linear_gaussian()
    x = simulate(fa, 1)[: 1 if given else 0]
    program = pair(fa.model, mean_field_guide(fa))
    with pytest.raises(ValueError, match=said):
        posterior(program, x, **given)
    with pytest.raises(ValueError, match=said):
        inference.importance_evidence(fa.model, mean_field_guide(fa), x, **given)
