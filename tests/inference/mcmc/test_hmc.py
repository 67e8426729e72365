"""Batched HMC as users rely on it: isolation, continuation, seeds, settings."""

import warnings
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from aevb import inference, models
from aevb.inference import hmc
from aevb.inference.mcmc.adaptation import DualAveraging
from aevb.inference.mcmc.path_gradients import PathGradient
from aevb.inference.programs.log_density import LogDensity

from oracles import linear_gaussian, mean_field_guide, simulate

# What users rely on


def few(model: Callable[..., Any], *args: Any, **kwargs: Any) -> inference.Draws:
    """So few that they cannot mix: a draw in six is effective."""
    settings = {"num_chains": 6, "num_samples": 20, "num_warmup": 60, "seed": 5, **kwargs}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "HMC: chains of .* have not mixed")
        return hmc(model, *args, **settings)


@pytest.mark.filterwarnings("ignore:HMC")
def test_lost_posterior_leaves_its_neighbours_alone() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 6)
    good = few(fa.model, x)
    x[2] = 1e200
    with pytest.warns(UserWarning, match="chains of datapoints 2 are stuck"):
        spoilt = few(fa.model, x)
    assert spoilt.suspicious.tolist() == [False, False, True, False, False, False]
    others = [0, 1, 3, 4, 5]
    assert torch.equal(good.unconstrained[:, :, others], spoilt.unconstrained[:, :, others])


@pytest.mark.filterwarnings("ignore:HMC")
def test_singular_matrix_is_a_divergence_of_its_own() -> None:
    times = torch.linspace(0, 1, 6, dtype=torch.float64)
    distance = (times[:, None] - times).square()

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            log_length = pyro.sample("log_length", dist.Normal(x.new_tensor(-1.0), 1.0))
            kernel = (-0.5 * distance * (-2 * log_length[..., None, None]).exp()).exp()
            noisy = kernel + 1e-17 * torch.eye(6, dtype=torch.float64)
            normal = dist.MultivariateNormal(torch.zeros_like(times), noisy)
            pyro.sample("x", normal, obs=x)

    with pytest.raises(torch.linalg.LinAlgError):  # at long lengths, which constant data ask for
        torch.linalg.cholesky((-0.5 * distance / 4e6).exp() + 1e-17 * torch.eye(6).double())
    x = torch.stack([torch.sin(6 * times), torch.ones(6), torch.sin(40 * times)])
    draws = few(model, x)
    assert int(draws.divergences[1]) > 0
    other = few(model, torch.stack([x[0], x[0], x[2]])).unconstrained
    assert torch.equal(draws.unconstrained[:, :, [0, 2]], other[:, :, [0, 2]])


def test_masked_data_may_be_nan() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            known = x.detach() < 50
            with pyro.poutine.mask(mask=known):
                pyro.sample("x", dist.Normal(z, 0.5), obs=torch.where(known, x, torch.nan))

    x = torch.tensor([0.3, 99.0, -1.0])
    draws = few(model, x)
    assert int(draws.divergences.sum()) == 0
    assert torch.equal(
        few(model, torch.tensor([0.3, 77.0, -1.0])).unconstrained, draws.unconstrained
    )


def test_deterministic_site_outside_the_plate_leaves_posteriors_local() -> None:
    def model(x: Tensor) -> None:
        scale = pyro.deterministic("scale", torch.tensor(0.5))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, scale), obs=x)

    assert few(model, torch.zeros(3)).is_local


def test_state_of_other_posteriors_is_refused() -> None:
    fa = linear_gaussian()
    draws = few(fa.model, simulate(fa, 6))
    with pytest.raises(ValueError, match="state: is of 6 posteriors of 3 dimensions"):
        few(fa.model, simulate(fa, 4), state=draws.state)


def test_same_seed_same_draws_and_nothing_else_changes() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 3)
    before = torch.get_rng_state()
    first, second = few(fa.model, x), few(fa.model, x)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.unconstrained, second.unconstrained)
    assert not torch.equal(first.unconstrained, few(fa.model, x, seed=6).unconstrained)


def test_chains_in_parts_are_the_chains_at_once() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 3)
    whole, parts = few(fa.model, x), few(fa.model, x, chain_batch_size=4)
    torch.testing.assert_close(whole.unconstrained, parts.unconstrained, rtol=1e-6, atol=1e-6)


def test_draws_can_be_continued() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 3)
    whole = few(fa.model, x, num_samples=30)
    first = few(fa.model, x, num_samples=10)
    rest = few(fa.model, x, num_samples=20, num_warmup=0, state=first.state)
    assert torch.equal(whole.unconstrained[:, 10:], rest.unconstrained)
    longer = few(fa.model, x, num_warmup=60, state=first.state)
    assert not torch.equal(longer.step_size, first.step_size)


def test_starts_and_masses_may_come_from_the_guide() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 3)
    guide = mean_field_guide(fa)
    start = LogDensity.guide_draws
    draws = few(fa.model, x, num_warmup=0, num_samples=1, guide=guide, start=start)
    scale = 1 / fa.posterior(x).precision_matrix.diagonal(dim1=-2, dim2=-1).detach()
    torch.testing.assert_close(draws.inverse_mass, scale.expand(3, 3), rtol=0.6, atol=0.0)
    with pytest.raises(ValueError, match="guide: none was given"):
        few(fa.model, x, start=start)


def test_chains_may_start_anywhere() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 3)
    starts = []

    def far(density: LogDensity, num: int) -> Tensor:
        starts.append(torch.full((num, density.batch, density.dim), 30.0, dtype=density.dtype))
        return starts[0]

    draws = few(fa.model, x, start=far)
    assert starts[0].shape == (6, 3, 3)
    assert float(draws.unconstrained.abs().max()) < 10.0
    with pytest.raises(ValueError, match=r"start: expected positions \(6, 3, 3\); got \(3, 3\)"):
        few(fa.model, x, start=lambda density, num: far(density, num)[0, :3])


def test_graph_and_program_give_the_same_gradients() -> None:
    vae = models.VAE((8, 8), 3, [16])
    x = (torch.rand(5, 8, 8) > 0.5).float()
    alone, guided = (LogDensity(vae.model, x, guide=guide) for guide in (None, vae.guide))
    temperature = torch.rand(5).double()
    u = alone.prior_draws(4)
    for density, given in ((alone, ()), (alone, (temperature,)), (guided, (temperature,))):
        plain = PathGradient(density)(u, *given)
        graph = PathGradient(density, num_evaluations=10_000)(u, *given)
        torch.testing.assert_close(plain.log_density, graph.log_density)
        torch.testing.assert_close(plain.gradient, graph.gradient, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(plain.tilt, graph.tilt)


def test_step_sizes_reach_the_wanted_acceptance() -> None:
    steps = DualAveraging(torch.zeros(2, dtype=torch.float64), target=0.8)
    for _ in range(300):
        steps.update(1 / (1 + steps.log_step.exp() * torch.tensor([1.0, 100.0])))
    rate = 1 / (1 + steps.average.exp() * torch.tensor([1.0, 100.0]))
    torch.testing.assert_close(rate, torch.full_like(rate, 0.8), rtol=0.0, atol=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_chains": 0}, "num_chains"),
        ({"num_samples": 0}, "num_samples"),
        ({"num_warmup": -1}, "num_warmup"),
        ({"thinning": 0}, "thinning"),
        ({"start": "mode"}, "start: expected a function .*; got 'mode'"),
        ({"mass": "heavy"}, "mass: expected one of auto, diagonal, dense, low-rank; got 'heavy'"),
        ({"covariance": torch.eye(3)}, r"covariance: expected \(2, 3, 3\); got \(3, 3\)"),
        ({"covariance": -torch.eye(3).expand(2, 3, 3)}, "covariance: must be positive definite"),
        ({"target_acceptance": 1.0}, "target_acceptance"),
        ({"chain_batch_size": 0}, "chain_batch_size"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    fa = linear_gaussian()
    with pytest.raises(ValueError, match=message):
        few(fa.model, simulate(fa, 2), **settings)
