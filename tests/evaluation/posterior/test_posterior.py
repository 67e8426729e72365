"""Chains compared with a guide: draws of every chain, from beginning to end."""

import math

import pytest
import torch
from torch import Tensor

from aevb.evaluation.posterior.errors import _thinned, energy_distance_test


@pytest.mark.parametrize(("num_chains", "length"), [(16, 500), (16, 800), (3, 1000), (1, 400)])
def test_thinned_draws_are_spread_over_all_chains(num_chains: int, length: int) -> None:
    chain = torch.arange(num_chains).view(-1, 1, 1).expand(-1, length, 1)
    time = torch.arange(length).view(1, -1, 1).expand(num_chains, -1, 1)
    thinned = _thinned(torch.stack([chain, time], -1).squeeze(-2).unsqueeze(2), 200)
    which, when = thinned[:, 0, 0], thinned[:, 0, 1]
    counts = which.bincount(minlength=num_chains)
    assert int(counts.max() - counts.min()) <= 1
    for number in range(num_chains):
        times = when[which == number]
        assert int(times.min()) <= length * num_chains / 200 + 1
        assert int(times.max()) >= length * (1 - num_chains / 200) - 1


def autoregressive(num_chains: int, length: int, rho: float, batch: int) -> Tensor:
    """Stationary chains of a standard normal, ``(chains, draws, batch, 1)``."""
    x = torch.randn(num_chains, batch, 1)
    kept = []
    for _ in range(length):
        x = rho * x + math.sqrt(1 - rho**2) * torch.randn_like(x)
        kept.append(x)
    return torch.stack(kept, 1)


def rejected(chains: Tensor) -> float:
    """Share of datapoints with p at most 0.05 against exact draws."""
    guide = torch.randn(200, chains.shape[2], 1)
    _, p = energy_distance_test(guide, _thinned(chains, 200), num_permutations=199)
    return float((p <= 0.05).double().mean())


def test_p_values_keep_their_size_where_chains_are_correlated() -> None:
    """16 chains of 500 draws, 400 of them effective: twice as many as are compared."""
    torch.manual_seed(0)
    share = rejected(autoregressive(16, 500, 0.9, 400))
    assert share < 0.05 + 5 * math.sqrt(0.05 * 0.95 / 400)


def test_one_strange_chain_cannot_hide_the_others() -> None:
    torch.manual_seed(0)
    chains = autoregressive(16, 500, 0.5, 20)
    chains[1:] += 1.0
    assert rejected(chains) == 1.0
