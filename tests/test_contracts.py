"""What every prior, likelihood, posterior and scale must do; an unlisted part fails."""

import copy
import dataclasses
import inspect
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aevb import models

from oracles import STANDARD_ERRORS

SHAPE = (2, 3)
PRIORS: list[models.Prior] = [models.StandardNormal()]
POSTERIORS: list[models.Posterior] = [models.DiagonalNormal()]
SCALES: list[models.Scale] = [
    models.FixedScale(0.3),
    models.LearnedScale(0.3),
    models.PerPixelScale(0.3),
    models.PredictedScale(),
]
LIKELIHOODS: list[models.Likelihood] = [
    models.Bernoulli(),
    models.Bernoulli(relaxed=True),
    *[models.Normal(scale=scale) for scale in SCALES],
    models.Normal(mean=nn.Sigmoid),
]


def build(part: Any) -> tuple[nn.Module, tuple[Tensor, ...], int]:
    """The module of a part, what its ``forward`` takes, and the rank of its events."""
    features = torch.randn(5, 7)
    if isinstance(part, models.Prior):
        return part.build(4), (), 1
    if isinstance(part, models.Posterior):
        return part.build(7, 4), (features,), 1
    return part.build(7, SHAPE), (features,), len(SHAPE)


DISTRIBUTIONS = [*PRIORS, *POSTERIORS, *LIKELIHOODS]


@pytest.fixture(params=DISTRIBUTIONS, ids=repr, name="part")
def fixture_part(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize(
    ("base", "listed"),
    [
        (models.Prior, PRIORS),
        (models.Posterior, POSTERIORS),
        (models.Scale, SCALES),
        (models.Likelihood, LIKELIHOODS),
    ],
)
def test_every_exported_part_is_listed(base: type, listed: list[Any]) -> None:
    exported = {
        name
        for name in models.__all__
        if issubclass(getattr(models, name), base)
        and not inspect.isabstract(getattr(models, name))
    }
    assert exported == {type(part).__name__ for part in listed}


@pytest.mark.parametrize("part", [*DISTRIBUTIONS, *SCALES], ids=repr)
def test_parts_are_frozen_and_hold_no_tensors(part: Any) -> None:
    assert dataclasses.is_dataclass(part)
    with pytest.raises(dataclasses.FrozenInstanceError):
        part.anything = 1
    values = [getattr(part, field.name) for field in dataclasses.fields(part)]
    assert not any(isinstance(value, Tensor | nn.Module) for value in values)


@pytest.mark.parametrize("part", [*DISTRIBUTIONS, *SCALES], ids=repr)
def test_one_part_builds_two_modules_without_shared_weights(part: Any) -> None:
    first, second = (
        part.build(7, 6) if isinstance(part, models.Scale) else build(part)[0] for _ in range(2)
    )
    shared = {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
    assert not shared


def test_shapes(part: Any) -> None:
    module, args, event_dim = build(part)
    distribution = module(*args)
    assert distribution.batch_shape == ((5,) if args else ())
    assert len(distribution.event_shape) == event_dim
    assert distribution.sample().shape == distribution.batch_shape + distribution.event_shape


def test_gradients_reach_every_parameter(part: Any) -> None:
    module, args, _ = build(part)
    distribution = module(*args)
    if next(module.parameters(), None) is not None:
        distribution.log_prob(distribution.sample()).sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


def test_batched_equals_looped(part: Any) -> None:
    module, args, _ = build(part)
    if not args:
        pytest.skip("a prior has no batch")
    value = module(*args).sample()
    together = module(*args).log_prob(value)
    apart = [module(args[0][i]).log_prob(value[i]) for i in range(5)]
    torch.testing.assert_close(together, torch.stack(apart))


def test_leading_sample_dimensions_broadcast(part: Any) -> None:
    module, args, event_dim = build(part)
    if not args:
        pytest.skip("a prior has no batch")
    stacked = module(args[0].expand(3, 5, 7))
    assert stacked.batch_shape == (3, 5)
    assert len(stacked.event_shape) == event_dim


def test_float32_agrees_with_float64(part: Any) -> None:
    module, args, _ = build(part)
    value = module(*args).sample()
    double = copy.deepcopy(module).double()
    wide = double(*(a.double() for a in args)).log_prob(value.double())
    torch.testing.assert_close(module(*args).log_prob(value).double(), wide, rtol=1e-4, atol=1e-4)


def test_state_dict_round_trip(part: Any) -> None:
    module, args, _ = build(part)
    twin, _, _ = build(part)
    twin.load_state_dict(module.state_dict())
    value = module(*args).sample()
    torch.testing.assert_close(twin(*args).log_prob(value), module(*args).log_prob(value))


def total_mass(part: Any, shift: float = 0.0) -> tuple[float, float]:
    """Mass of a density by importance sampling from a wider normal, with its standard error."""
    module, args, event_dim = build(part)
    distribution = module.double()(*(a[0].double() for a in args))
    draws = distribution.sample((10_000,))
    proposal = torch.distributions.Normal(draws.mean(0), 1.3 * draws.std(0))
    x = proposal.sample((100_000,))
    log_q = proposal.log_prob(x).flatten(-event_dim).sum(-1)
    weights = torch.exp(distribution.log_prob(x).detach() + shift - log_q)
    return float(weights.mean()), float(weights.std() / math.sqrt(len(weights)))


CONTINUOUS = [p for p in DISTRIBUTIONS if not isinstance(p, models.Bernoulli)]


@pytest.mark.parametrize("part", CONTINUOUS, ids=repr)
def test_continuous_densities_integrate_to_one(part: Any) -> None:
    mass, error = total_mass(part)
    assert abs(mass - 1) < STANDARD_ERRORS * error


@pytest.mark.parametrize("part", CONTINUOUS[:1], ids=repr)
def test_a_density_off_by_two_percent_is_found_out(part: Any) -> None:
    mass, error = total_mass(part, shift=math.log(1.02))
    assert abs(mass - 1) > STANDARD_ERRORS * error


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


@pytest.mark.parametrize("part", LIKELIHOODS, ids=repr)
def test_draws_pass_the_check_and_foreign_data_do_not(part: models.Likelihood) -> None:
    module, args, _ = build(part)
    part.check(module(*args).sample())
    for bad in (torch.full((1, *SHAPE), math.nan), torch.full((1, *SHAPE), math.inf)):
        with pytest.raises(ValueError, match="NaN or infinite"):
            part.check(bad)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        (models.Bernoulli(), 0.5, r"values in \{0, 1\}; got 1 distinct value from 0.5.*binarize"),
        (models.Bernoulli(relaxed=True), 1.5, r"values in \[0, 1\]; got .* to 1.5: scale"),
        (models.Bernoulli(relaxed=True), -0.1, r"values in \[0, 1\]"),
    ],
)
def test_errors_name_need_finding_and_remedy(
    part: models.Likelihood, value: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        part.check(torch.full((1, *SHAPE), value))


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_fixed_scale_must_be_positive(value: float) -> None:
    with pytest.raises(ValueError, match="value must be positive"):
        models.FixedScale(value)


def test_scales_start_where_they_are_told() -> None:
    for scale in SCALES[:3]:
        torch.testing.assert_close(scale.build(7, 6)(torch.zeros(5, 7)), torch.full((6,), 0.3))
