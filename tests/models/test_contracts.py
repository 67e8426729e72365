"""What every prior, likelihood, posterior and scale must do; an unlisted part fails."""

import dataclasses
import inspect
import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aevb import inference, models
from aevb.models import likelihoods, posteriors, priors

from model_parts import (
    DISTRIBUTIONS,
    LIKELIHOODS,
    POSTERIORS,
    PRIORS,
    SCALES,
    SHAPE,
    build,
    doubled,
)


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
        value
        for module in (models, priors, likelihoods, posteriors)
        for value in (getattr(module, name) for name in module.__all__)
        if inspect.isclass(value) and issubclass(value, base) and not inspect.isabstract(value)
    }
    assert exported == {type(part) for part in listed}


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
    if isinstance(part, models.Posterior):
        value = distribution.rsample()
    else:
        value = distribution.sample().clone()  # what a flow remembers of its draw is a constant
    if next(module.parameters(), None) is not None:
        (distribution.log_prob(value).sum() + value.sum()).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


def test_batched_equals_looped(part: Any) -> None:
    module, args, _ = build(part)
    if not args:
        pytest.skip("a prior has no batch")
    if not getattr(part, "scores_any_value", True):
        pytest.skip("scores nothing but its own draws")
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
    if not getattr(part, "scores_any_value", True):
        pytest.skip("scores nothing but its own draws")
    module, args, _ = build(part)
    value = module(*args).sample()
    double = doubled(module)
    wide = double(*(a.double() for a in args)).log_prob(value.double())
    torch.testing.assert_close(module(*args).log_prob(value).double(), wide, rtol=1e-4, atol=1e-4)


def test_state_dict_round_trip(part: Any) -> None:
    module, args, _ = build(part)
    twin, _, _ = build(part)
    twin.load_state_dict(module.state_dict())
    torch.manual_seed(0)
    value = module(*args).sample()
    torch.manual_seed(0)
    torch.testing.assert_close(twin(*args).sample(), value)


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


@pytest.mark.parametrize("prior", PRIORS, ids=repr)
def test_posteriors_under_every_prior_can_be_sampled_and_annealed(prior: models.Prior) -> None:
    vae = models.VAE(SHAPE, 2, [4], prior=prior, likelihood=models.Normal()).eval()
    x = torch.rand(3, *SHAPE)
    settings: dict[str, Any] = {"num_chains": 8, "seed": 0}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "HMC")
        draws = inference.hmc(vae.model, x, num_samples=10, num_warmup=20, **settings)
    assert draws.samples["z"].shape == (8, 10, 3, 2)
    annealed = inference.ais_evidence(
        vae.model, x, guide=vae.guide, num_temperatures=5, **settings
    )
    assert bool(torch.isfinite(annealed.log_evidence).all())


@pytest.mark.parametrize("posterior", POSTERIORS, ids=repr)
def test_annealing_begins_at_every_posterior_that_has_a_density(
    posterior: models.Posterior,
) -> None:
    vae = models.VAE(SHAPE, 2, [4], posterior=posterior, likelihood=models.Normal()).eval()
    x = torch.rand(3, *SHAPE)
    settings: dict[str, Any] = {"guide": vae.guide, "num_chains": 8, "num_temperatures": 5}
    if isinstance(posterior, models.Delta) or not posterior.scores_any_value:
        for estimate in (inference.ais_evidence, inference.bdmc_evidence):
            with pytest.raises(ValueError, match="anneal from the prior instead"):
                estimate(vae.model, x, **settings)
    else:
        annealed = inference.ais_evidence(vae.model, x, **settings)
        assert bool(torch.isfinite(annealed.log_evidence).all())
