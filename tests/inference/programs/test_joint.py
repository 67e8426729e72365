"""Several draws of any program at once: under an outer plate, by vmap, or refused."""

import functools
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from torch import Tensor, nn

from aevb import inference, models
from aevb.inference import ais_evidence, hmc, importance_evidence
from aevb.inference.process.devices import device_of, modules_of, moved
from aevb.inference.programs.joint import Joint

GROUPS = torch.tensor([0, 1, 1, 2, 0])


def reducing(y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(y.new_zeros(2), 1.0).to_event(1))
    pyro.sample("y", dist.Normal(w.sum(), 0.5), obs=y)


def indexing(y: Tensor) -> None:
    with pyro.plate("groups", 3):
        b = pyro.sample("b", dist.Normal(y.new_zeros(()), 1.0))
    with pyro.plate("obs", len(y)):
        pyro.sample("y", dist.Normal(b[GROUPS], 0.5), obs=y)


def multiplying(y: Tensor) -> None:
    x = torch.arange(10.0, dtype=y.dtype).reshape(5, 2) / 10
    b = pyro.sample("b", dist.Normal(y.new_zeros(2), 1.0).to_event(1))
    with pyro.plate("obs", len(y)):
        pyro.sample("y", dist.Normal(x @ b, 0.5), obs=y)


def broadcasting(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(y.new_zeros(()), 1.0))
    with pyro.plate("obs", len(y)):
        pyro.sample("y", dist.Normal(mean, 0.5), obs=y)


def filling(y: Tensor) -> None:
    states = torch.zeros(5, dtype=y.dtype)
    for number in range(5):
        before = states[number - 1] if number else y.new_zeros(())
        states[number] = pyro.sample(f"z{number}", dist.Normal(before, 1.0))
    pyro.sample("y", dist.Normal(states, 0.5).to_event(1), obs=y)


def branching(y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(y.new_zeros(()), 1.0))
    pyro.sample("y", dist.Normal(w if w > 0 else -w, 0.5), obs=y)


def noisy(y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(y.new_zeros(()), 1.0))
    pyro.sample("y", dist.Normal(w + torch.randn(()), 0.5), obs=y)


def five() -> Tensor:
    return torch.tensor([0.3, -1.0, 2.0, 0.5, 1.0], dtype=torch.float64)


def looped(model: Callable[..., Any], latents: dict[str, Tensor], *args: Any) -> Tensor:
    """Each draw by itself, as Pyro scores it."""
    sums = []
    for number in range(len(next(iter(latents.values())))):
        given = {name: value[number] for name, value in latents.items()}
        trace = poutine.trace(poutine.condition(model, data=given)).get_trace(*args)
        sums.append(trace.log_prob_sum())
    return torch.stack(sums).unsqueeze(-1)


@pytest.mark.parametrize(
    ("model", "site", "shape", "way"),
    [
        (indexing, "b", (3,), "vmap"),
        (multiplying, "b", (2,), "vmap"),
        (broadcasting, "mean", (), "plate"),
    ],
)
def test_many_draws_at_once_are_scored_as_each_alone(
    model: Callable[..., Any], site: str, shape: tuple[int, ...], way: str
) -> None:
    values = torch.randn(7, *shape, dtype=torch.float64)
    joint = Joint(model, five())
    padded = {site: values if values.ndim > 1 else values.unsqueeze(-1)}
    assert joint.way == way
    torch.testing.assert_close(
        joint.log_joint(padded), looped(model, {site: values}, five()), rtol=1e-12, atol=1e-12
    )


def test_programs_that_fill_tensors_in_place_are_run_draw_by_draw() -> None:
    values = torch.randn(7, 5, dtype=torch.float64)
    latents = {f"z{number}": values[:, number] for number in range(5)}
    joint = Joint(filling, five())
    assert joint.way == "loop"
    truth = looped(filling, latents, five())
    torch.testing.assert_close(joint.log_joint(latents), truth, rtol=1e-12, atol=1e-12)
    draws = hmc(filling, five(), num_chains=4, num_samples=5, num_warmup=5)
    assert draws.unconstrained.shape == (4, 5, 1, 5)


def test_a_reduction_is_not_taken_over_the_draws() -> None:
    """Two chains' latents must not be added up: the fault that no error shows."""
    y = torch.tensor(4.0, dtype=torch.float64)
    values = torch.randn(7, 2, dtype=torch.float64)
    joint = Joint(reducing, y)
    truth = looped(reducing, {"w": values}, y)
    torch.testing.assert_close(joint.log_joint({"w": values}), truth, rtol=1e-12, atol=1e-12)
    joint._way = "plate"  # as it was evaluated before both ways were compared
    assert not torch.allclose(joint.log_joint({"w": values}), truth)


def test_sums_of_latents_are_sampled_and_integrated() -> None:
    """Posterior means 16/9 each, and log N(4; 0, 2.25)."""
    y = torch.tensor(4.0, dtype=torch.float64)
    draws = hmc(reducing, y, num_chains=8, num_samples=300, num_warmup=300)
    spread = draws.samples["w"].mean(1).std(0) / 8**0.5
    error = (draws.samples["w"].mean((0, 1)) - 16 / 9).abs()
    assert bool((error < 5 * spread + 1e-3).all())
    exact = float(dist.Normal(y.new_zeros(()), 1.5).log_prob(y))
    annealed = ais_evidence(reducing, y, num_temperatures=200)
    assert abs(float(annealed.log_evidence) - exact) < 5 * float(annealed.standard_error)

    def guide(y: Tensor) -> None:
        covariance = torch.eye(2, dtype=torch.float64) - 1 / 2.25
        mean = y.new_full((2,), 16 / 9)
        pyro.sample("w", dist.MultivariateNormal(mean, covariance))

    weighed = importance_evidence(reducing, guide, y, num_samples=10)
    assert float(weighed.log_evidence) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (branching, "after site 'w': .* needs the value of a tensor.* torch.where"),
        (noisy, "its log-density is another at each call"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_for_its_reason(
    model: Callable[..., Any], reason: str
) -> None:
    y = torch.tensor(4.0)
    with pytest.raises(ValueError, match=reason):
        hmc(model, y, num_chains=2, num_samples=5, num_warmup=5)
    with pytest.raises(ValueError, match=reason):
        ais_evidence(model, y, num_temperatures=5)


def test_a_guide_that_does_not_broadcast_is_drawn_from_singly() -> None:
    """A guide whose second latent depends on a sum of its first."""

    def model(y: Tensor) -> None:
        a = pyro.sample("a", dist.Normal(y.new_zeros(2), 1.0).to_event(1))
        b = pyro.sample("b", dist.Normal(a.sum(), 1.0))
        pyro.sample("y", dist.Normal(b, 0.5), obs=y)

    def guide(y: Tensor) -> None:
        a = pyro.sample("a", dist.Normal(y.new_full((2,), 1.0), 1.0).to_event(1))
        pyro.sample("b", dist.Normal(0.2 * a.sum() + 0.8 * y, (1 / 5) ** 0.5))

    y = torch.tensor(2.0, dtype=torch.float64)
    joint = Joint(model, y, guide=guide)
    assert (joint.way, joint.guide_way) == ("vmap", "loop")
    latents, log_q = joint.draw(5)
    torch.testing.assert_close(log_q, looped(guide, latents, y))
    evidence = importance_evidence(model, guide, y, num_samples=4000)
    exact = dist.Normal(0.0, 3.25**0.5).log_prob(y)
    assert abs(float(evidence.log_evidence - exact)) < 5 * float(evidence.standard_error)


def test_finding_the_way_moves_no_random_state() -> None:
    joint = Joint(indexing, five())
    before = torch.get_rng_state()
    assert joint.way == "vmap"
    assert torch.equal(torch.get_rng_state(), before)


def test_a_vae_is_evaluated_under_the_plate() -> None:
    vae = models.VAE((4, 4), latent_dim=2)
    joint = Joint(vae.model, torch.zeros(3, 4, 4), guide=vae.guide)
    assert (joint.way, joint.guide_way) == ("plate", "plate")


def test_data_follow_the_program_to_its_device() -> None:
    """The device of a method's module, through the handlers around it, and of nested data."""
    vae = models.VAE((4, 4), latent_dim=2).to("meta")
    wrapped = functools.partial(poutine.condition(vae.model, data={}))
    assert device_of(wrapped, args=torch.zeros(1)).type == "meta"
    assert device_of(lambda x: x, args=({"x": torch.zeros(1)},)).type == "cpu"
    nested = moved(({"x": [torch.zeros(1)]}, 3), torch.device("meta"))
    assert nested[0]["x"][0].device.type == "meta"
    assert nested[1] == 3


def test_modules_are_found_inside_functions() -> None:
    layer = nn.Linear(2, 2)

    def closure(x: Tensor) -> Tensor:
        return layer(x)

    for program in (layer, layer.forward, closure, functools.partial(closure)):
        assert layer in list(modules_of(program))


def test_programs_take_lists_and_dictionaries() -> None:
    def model(batch: dict[str, Any]) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("obs", 5):
            pyro.sample("y", dist.Normal(mean + batch["shifts"][0], 0.5), obs=batch["y"])

    batch = {"y": five().float(), "shifts": [torch.zeros(5)]}
    draws = hmc(model, batch, num_chains=4, num_samples=50, num_warmup=50)
    assert draws.samples["mean"].shape == (4, 50)
    guide = pyro.infer.autoguide.AutoNormal(model)
    program = inference.Program(model, guide)
    inference.fit(program, (batch,), steps=5)
    evidence = importance_evidence(program.model, program.guide, batch, num_samples=10)
    assert evidence.log_evidence.shape == (1,)


def large_beside_small(y: Tensor) -> None:
    """A reduction in a small site, beside one of twenty thousand terms that hides it."""
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    pyro.factor("penalty", -0.5 * w.pow(2).sum())
    with pyro.plate("obs", len(y)):
        pyro.sample("y", dist.Normal(0.0, 1.0), obs=y)


def mean_of_groups(y: Tensor) -> None:
    with pyro.plate("groups", 4):
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
    mean = b.mean()
    with pyro.plate("obs", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def narrow(y: Tensor) -> None:
    with pyro.plate("groups", 4):
        pyro.sample("b", dist.Normal(0.0, 0.01))


def some_guide(y: Tensor) -> None:
    pyro.sample("w", dist.Normal(torch.zeros(3), 0.7).to_event(1))


@pytest.mark.parametrize(
    ("model", "guide"), [(large_beside_small, some_guide), (mean_of_groups, narrow)]
)
def test_cross_talk_of_draws_is_seen_in_small_sites_and_under_narrow_guides(
    model: Callable[..., Any], guide: Callable[..., Any]
) -> None:
    """In float32, where rounding of the large site is larger than what goes wrong."""
    y = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    assert Joint(model, y, guide=guide).way == "vmap"


def test_one_decision_for_all_draws_is_refused() -> None:
    """Under a plate `all` looks at every draw, and seldom at another value than in two."""

    def model(y: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        scale = 1.0 if bool((z.abs() < 5).all()) else 10.0
        pyro.sample("y", dist.Normal(z, scale), obs=y)

    with pytest.raises(ValueError, match="needs the value of a tensor"):
        hmc(model, torch.tensor(1.0), num_chains=2, num_samples=5, num_warmup=5)


def test_guides_with_noise_of_their_own_are_drawn_from_singly() -> None:
    """What they draw later depends on sums over earlier latents, which a plate would mix."""

    def model(y: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        v = pyro.sample("v", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(w.sum(-1) + v, 1.0), obs=y)

    def guide(y: Tensor) -> None:
        noisy = y + 0.1 * torch.randn(())
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 0.9).to_event(1))
        pyro.sample("v", dist.Normal((noisy - w.sum()) / 2, 0.8))

    y = torch.tensor(1.0)
    assert Joint(model, y, guide=guide).guide_way == "loop"
    evidence = importance_evidence(model, guide, y, num_samples=3000)
    exact = dist.Normal(0.0, 2.0).log_prob(y)
    assert abs(float(evidence.log_evidence - exact)) < 5 * float(evidence.standard_error)


def test_unseen_random_state_stays_where_it_was() -> None:
    before = torch.get_rng_state()
    inference.LogDensity(indexing, five())
    assert torch.equal(torch.get_rng_state(), before)
