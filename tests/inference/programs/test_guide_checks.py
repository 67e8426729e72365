"""Guides whose density may not stand against the model's are refused, and the others are not."""

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import autoguide
from torch import Tensor

from aevb.inference import (
    IWAE,
    NoDensityError,
    Program,
    ais_evidence,
    fit,
    hmc,
    importance_evidence,
)

X = torch.tensor([0.5, 1.0, -0.3, 0.8])


def model(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mu, scale), obs=x)


def half_a_point() -> Any:
    guide = autoguide.AutoGuideList(model)
    guide.append(autoguide.AutoNormal(poutine.block(model, expose=["mu"])))
    guide.append(autoguide.AutoDelta(poutine.block(model, expose=["scale"])))
    return guide


@pytest.mark.parametrize("make", [lambda: autoguide.AutoLaplaceApproximation(model), half_a_point])
def test_points_behind_auxiliary_sites_have_no_density(make: Callable[[], Any]) -> None:
    """As weights they would give evidence that is too high, with a k̂ of 0."""
    program = Program(model, make())
    fit(program, X, steps=2)
    with pytest.raises(NoDensityError, match="single points"):
        importance_evidence(program.model, program.guide, X, num_samples=10)


@pytest.mark.parametrize(
    "family",
    [
        autoguide.AutoNormal,
        autoguide.AutoDiagonalNormal,
        autoguide.AutoMultivariateNormal,
        autoguide.AutoLowRankMultivariateNormal,
        autoguide.AutoIAFNormal,
    ],
)
def test_autoguides_have_a_density(family: Any) -> None:
    program = Program(model, family(model))
    fit(program, X, steps=2)
    assert importance_evidence(program.model, program.guide, X, num_samples=10).ess.shape == (1,)


def local_model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def with_noise(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Normal(0.0, 5.0), infer={"is_auxiliary": True})
        pyro.sample("z", dist.Normal(0.5 * x + 0.01 * a, pyro.param("s", torch.tensor(0.7))))


def observing(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.5 * x, pyro.param("s", torch.tensor(0.7))))
        pyro.sample("x", dist.Normal(x.new_zeros(()), 1.0), obs=x)


def local_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.5 * x, pyro.param("s", torch.tensor(0.7))))


def in_both(function: str, program: Program, x: Tensor) -> Any:
    if function == "fit":
        return fit(program, x, steps=1)
    return importance_evidence(program.model, program.guide, x, num_samples=10)


@pytest.mark.parametrize("function", ["fit", "importance_evidence"])
@pytest.mark.parametrize(
    ("guide", "reason"),
    [(with_noise, "draws 8 random numbers for 4"), (observing, "observes 'x'")],
)
def test_guides_with_too_much_in_them_are_refused(
    guide: Callable[..., Any], reason: str, function: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        in_both(function, Program(local_model, guide), X)
    in_both(function, Program(local_model, local_guide), X)


def test_messengers_for_guides_are_refused() -> None:
    with pytest.raises(ValueError, match="observes 'x', which would cancel it"):
        fit(Program(model, autoguide.AutoNormalMessenger(model)), X, steps=1)


@pytest.mark.parametrize("function", ["fit", "importance_evidence"])
def test_a_guide_beyond_the_support_of_the_prior_is_refused(function: str) -> None:
    """Its weights would be those of densities that are not defined there."""

    def exponential(x: Tensor) -> None:
        z = pyro.sample("z", dist.Exponential(1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def normal(x: Tensor) -> None:
        pyro.sample("z", dist.Normal(pyro.param("m", torch.tensor(9.0)), 0.1))

    def lognormal(x: Tensor) -> None:
        pyro.sample("z", dist.LogNormal(pyro.param("m", torch.tensor(0.0)), 0.1))

    def shifted(x: Tensor) -> None:  # torch takes its support for the real line
        base = dist.LogNormal(pyro.param("m", torch.tensor(0.0)), 0.1)
        affine = dist.transforms.AffineTransform(0.0, 2.0)
        pyro.sample("z", dist.TransformedDistribution(base, [affine]))

    with pytest.raises(ValueError, match="beyond the support of its prior"):
        in_both(function, Program(exponential, normal), torch.tensor(1.0))
    in_both(function, Program(exponential, shifted), torch.tensor(1.0))
    in_both(function, Program(exponential, lognormal), torch.tensor(1.0))


def test_latents_masked_in_the_model_alone_are_refused() -> None:
    """Their entropy would raise the bound beyond the evidence without end."""
    known = torch.tensor([True, False, True, False])

    def masked(x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x, obs_mask=known)

    with pytest.raises(ValueError, match="masked in the model and not in the guide"):
        fit(Program(masked, autoguide.AutoNormal(masked)), X, steps=1)


def test_missing_values_may_be_nan_under_either_mask() -> None:
    known = torch.tensor([True, False, True, False])
    x = torch.where(known, X, torch.nan)

    def by_distribution(x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0).mask(known), obs=x)

    evidence = ais_evidence(by_distribution, x, num_temperatures=100, num_chains=32)
    covariance = torch.eye(2) + 1.0
    exact = dist.MultivariateNormal(torch.zeros(2), covariance).log_prob(x[known])
    assert abs(float(evidence.log_evidence - exact)) < 5 * float(evidence.standard_error)


@pytest.mark.filterwarnings("ignore:HMC:UserWarning")
def test_sites_that_come_and_go_and_shapes_without_a_plate_are_named() -> None:
    def sometimes(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        if torch.rand(()) > 0.5:
            z = z + pyro.sample("w", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def loose(x: Tensor) -> None:
        b = pyro.sample("b", dist.Normal(torch.zeros(3), 1.0))
        pyro.sample("x", dist.Normal(b.sum(), 1.0), obs=x)

    settings: dict[str, int] = {"num_chains": 2, "num_samples": 5, "num_warmup": 5}
    with pytest.raises(ValueError, match="sites .'w'. appear at some draws only"):
        hmc(sometimes, torch.tensor(1.0), **settings)
    with pytest.raises(ValueError, match="'b' has the batch shape .3,. .*to_event"):
        hmc(loose, torch.tensor(1.0), **settings)


def test_importance_weighted_objectives_beside_shared_latents_are_refused() -> None:
    def shared(x: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    with pytest.raises(ValueError, match="IWAE: sites .'x'. are scaled"):
        fit(
            Program(shared, autoguide.AutoNormal(shared)), X, steps=1, batch_size=2,
            objective=IWAE(3),
        )  # fmt: skip
