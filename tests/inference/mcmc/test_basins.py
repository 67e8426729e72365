"""Chains that fell into a basin of next to no probability leave it, and no others are moved."""

import math

import pytest
import torch
from torch import Tensor

from aevb.inference import hmc
from aevb.inference.mcmc import sampler
from aevb.inference.mcmc.basins import stand_ins
from aevb.inference.mcmc.integrators import Point
from aevb.inference.mcmc.metrics import Diagonal, Metric

from oracles import STANDARD_ERRORS

DIM = 6


class Modes:
    """Two normals far apart in each posterior.

    Args:
        scale: Of the second ones, ``(batch,)``; the first have one.
        log_odds: Of their masses, ``(batch,)``.
    """

    def __init__(self, scale: Tensor, log_odds: Tensor) -> None:
        self.scale, self.log_odds = scale, log_odds

    def __call__(self, u: Tensor) -> Tensor:
        """Log-density of ``(..., batch, dim)``."""
        first = -0.5 * (u + 20).square().sum(-1)
        other = -0.5 * ((u - 20) / self.scale.unsqueeze(-1)).square().sum(-1)
        return torch.logaddexp(first, other - DIM * self.scale.log() + self.log_odds)

    def starts(self, chains: int, others: int) -> Tensor:
        """The last ``others`` of the chains at second modes, as wide as these are."""
        noise = torch.randn(
            chains, len(self.scale), DIM, generator=torch.Generator().manual_seed(0)
        )
        u = noise - 20
        u[-others:] = noise[-others:] * self.scale.unsqueeze(-1) + 20
        return u

    def window(self, num: int, chains: int, others: int, explored: float = 1.0) -> Point:
        """What chains draw that each stay in a mode and go through a share of it."""
        second = 20 + explored * self.scale.unsqueeze(-1) * torch.randn(
            num, others, len(self.scale), DIM
        )
        first = explored * torch.randn(num, chains - others, len(self.scale), DIM) - 20
        u = torch.cat([first, second], 1).double().requires_grad_()
        density = self(u)
        (gradient,) = torch.autograd.grad(density.sum(), u)
        return Point(u.detach(), density.detach(), gradient, torch.zeros_like(density.detach()))


def unit(batch: int) -> Diagonal:
    return Diagonal(torch.ones(batch, DIM, dtype=torch.float64))


def test_only_chains_of_basins_without_weight_go_elsewhere() -> None:
    # heavier, as heavy, e⁻⁸, e⁻⁴⁰; and wide ones of low densities, which weigh as much
    scale = torch.tensor([1.0, 1.0, 1.0, 1.0, 100.0, 0.01, 100.0])
    log_odds = torch.tensor([2.0, 0.0, -8.0, -40.0, 0.0, 0.0, -60.0])
    modes = Modes(scale, log_odds)
    for explored in (1.0, 0.1):
        places = stand_ins(modes.window(30, 16, 3, explored), unit(7))
        own = torch.arange(16)
        for number in (0, 1, 2, 4, 5):
            assert torch.equal(places[:, number], own)
        for number in (3, 6):
            assert torch.equal(places[:13, number], own[:13])
            taken = places[13:, number]
            assert bool((taken < 13).all())
            assert len(taken.unique()) == 3  # each another's


def test_a_low_density_alone_is_no_reason() -> None:
    """The twin: without volumes, a mode as heavy is taken for one that weighs nothing."""
    modes = Modes(torch.tensor([100.0]), torch.tensor([0.0]))
    window = modes.window(30, 16, 3)
    mean = window.log_density.mean(0)
    assert float(mean[:13].mean() - mean[13:].mean()) > 25
    assert torch.equal(stand_ins(window, unit(1)).squeeze(-1), torch.arange(16))
    still = window._replace(gradient=torch.zeros_like(window.gradient))
    assert not torch.equal(stand_ins(still, unit(1)).squeeze(-1), torch.arange(16))


def test_few_draws_tell_nothing() -> None:
    modes = Modes(torch.tensor([1.0]), torch.tensor([-40.0]))
    assert torch.equal(stand_ins(modes.window(5, 4, 1), unit(1)).squeeze(-1), torch.arange(4))


LONELY = Modes(torch.ones(2), torch.tensor([-40.0, 0.0]))
STARTS = LONELY.starts(16, 3)


def drawn(modes: Modes = LONELY) -> Tensor:
    draws = hmc(log_density=modes, start=STARTS, num_samples=40, num_warmup=60)
    return draws.samples["u"]


@pytest.mark.filterwarnings("ignore:HMC")  # of the second, whose modes are as heavy
def test_chains_leave_what_weighs_nothing_and_stay_where_it_counts() -> None:
    draws = drawn()
    means = draws[:, :, 0].mean((1, 2))
    assert bool((draws[:, :, 0] < 0).all())
    error = float(means.std()) / math.sqrt(len(means))
    assert abs(float(means.mean()) + 20) < STANDARD_ERRORS * error
    assert int((draws[:, -1, 1] > 0).all(-1).sum()) == 3  # of which R̂ tells


@pytest.mark.filterwarnings("ignore:HMC")
def test_they_would_not_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    def own(window: Point, metric: Metric) -> Tensor:
        del metric
        chains, batch = window.log_density.shape[1:]
        return torch.arange(chains).unsqueeze(-1).expand(chains, batch)

    monkeypatch.setattr(sampler, "stand_ins", own)
    assert int((drawn()[:, -1, 0] > 0).all(-1).sum()) == 3


@pytest.mark.filterwarnings("ignore:HMC")
def test_what_happens_to_one_posterior_leaves_the_others() -> None:
    alone = Modes(torch.ones(2), torch.tensor([0.0, 0.0]))
    assert torch.equal(drawn()[:, :, 1], drawn(alone)[:, :, 1])
