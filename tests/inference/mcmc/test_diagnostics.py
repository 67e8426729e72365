"""R̂ and effective draws of many numbers at once, against ArviZ one by one; the alarm's size."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from aevb.inference.mcmc import diagnostics as mcmc_diagnostics
from aevb.inference.mcmc.diagnostics import (
    RHAT_LIMIT,
    bulk_ess,
    rank_rhat,
    rhat_limit,
    tail_ess,
    unmixed,
)

from oracles import STANDARD_ERRORS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz as az

SIZES = [(2, 40), (3, 41), (4, 101), (16, 200)]


def chains_of_every_kind(chains: int, num: int) -> Tensor:
    """Slow, antithetic, apart, wide, repeated, stuck, heavy-tailed; ``(chains, num, 8)``."""
    draws = torch.randn(chains, num, 8)
    for column, memory in ((0, 0.9), (1, -0.6), (2, 0.5)):
        for step in range(1, num):
            draws[:, step, column] += memory * draws[:, step - 1, column]
    draws[0, :, 3] += 1.0
    draws[0, :, 4] *= 2.0
    for step in range(1, num):
        refused = torch.rand(chains) < 0.3
        draws[:, step, 5] = torch.where(refused, draws[:, step - 1, 5], draws[:, step, 5])
    draws[0, :, 6] = 0.3
    draws[..., 7] /= torch.randn(chains, num)
    return draws


def old_line(name: str, values: np.ndarray, **options: Any) -> np.ndarray:
    found = getattr(az, name)(xr.Dataset({"u": (("chain", "draw", "n"), values)}), **options)
    return np.asarray(found["u"])


def new_line(name: str, values: np.ndarray, **options: Any) -> np.ndarray:
    base = pytest.importorskip("arviz_stats.base", reason="ArviZ 1.x is absent")
    one = getattr(base.array_stats, name)
    if options.get("method") == "tail":
        options["prob"] = (0.05, 0.95)
    return np.array([one(values[..., n], **options) for n in range(values.shape[-1])])


@pytest.mark.parametrize("line", [old_line, new_line])
@pytest.mark.parametrize(("chains", "num"), SIZES)
def test_figures_are_those_of_arviz(line: Any, chains: int, num: int) -> None:
    draws = chains_of_every_kind(chains, num)
    values = draws.double().numpy()
    for ours, theirs in (
        (rank_rhat(draws), line("rhat", values)),
        (bulk_ess(draws), line("ess", values, method="bulk")),
        (tail_ess(draws), line("ess", values, method="tail")),
    ):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-9)


def test_blocks_and_shapes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = chains_of_every_kind(4, 60)
    whole = [figure(draws) for figure in (rank_rhat, bulk_ess, tail_ess)]
    monkeypatch.setattr(mcmc_diagnostics, "_NUMBERS_AT_ONCE", 3 * 4 * 60)
    for figure, wanted in zip((rank_rhat, bulk_ess, tail_ess), whole, strict=True):
        assert torch.equal(figure(draws), wanted)
        assert torch.equal(figure(draws.unflatten(-1, (2, 4))), wanted.view(2, 4))


def test_what_stands_still_is_not_independent() -> None:
    """ArviZ counts equal draws as effective, every one of them."""
    draws = torch.randn(4, 50, 4)
    draws[:, :, 0] = 1.0
    draws[:, :, 1] = torch.arange(4.0)[:, None]
    draws[0, :, 2] = 9.0  # more than a twentieth of all draws, and above the others
    assert rank_rhat(draws).isnan().tolist() == [True, False, False, False]
    assert rank_rhat(draws)[1] == math.inf
    assert bulk_ess(draws).isnan().tolist() == [True, False, False, False]
    assert tail_ess(draws).isnan().tolist() == [True, True, True, False]
    assert float(bulk_ess(draws)[1]) < 10
    assert old_line("ess", draws.double().numpy(), method="bulk")[0] == 200


def test_too_few_chains_or_draws_have_no_figures() -> None:
    assert bool(rank_rhat(torch.randn(1, 50, 2)).isnan().all())
    assert bool(bulk_ess(torch.randn(1, 50, 2)).isfinite().all())
    for figure in (rank_rhat, bulk_ess, tail_ess):
        assert bool(figure(torch.randn(4, 3, 2)).isnan().all())
    assert len(unmixed(torch.randn(4, 3, 2, 2))[0]) == 0
    assert len(unmixed(torch.randn(1, 50, 2, 2))[0]) == 0


@pytest.mark.parametrize(("chains", "num"), [(2, 8), (4, 20), (16, 60)])
def test_limit_is_exceeded_as_often_as_it_says(
    chains: int, num: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At chances that can be counted: of both kinds of ranks of one number together."""
    draws, repeats = torch.randn(chains, num, 20_000), 20_000
    found = rank_rhat(draws)
    monkeypatch.setattr(mcmc_diagnostics, "RHAT_LIMIT", 1.0)
    for chance in (0.1, 0.01, 0.001):
        monkeypatch.setattr(mcmc_diagnostics, "_FALSE_ALARM_RATE", chance)
        rate = float((found > rhat_limit(chains, num, 1)).double().mean())
        error = math.sqrt(chance * (1 - chance) / repeats)
        assert rate < chance + STANDARD_ERRORS * error
        if num > 10:  # ranks of so few draws are bounded
            assert rate > 0.5 * chance - STANDARD_ERRORS * error
    monkeypatch.undo()
    assert not bool((found > rhat_limit(chains, num, 1)).any())
    # the twin: of these draws, of which nothing is wrong, many are beyond 1.01
    assert float((found > RHAT_LIMIT).double().mean()) > 0.03


def test_fast_chains_are_not_called_unmixed() -> None:
    """Half of each draw is the last one's, so that a third of them are effective."""
    draws = torch.randn(8, 100, 2000, 1)
    for step in range(1, 100):
        draws[:, step] = 0.5 * draws[:, step - 1] + math.sqrt(0.75) * draws[:, step]
    beyond = rank_rhat(draws)[:, 0] > rhat_limit(8, 100, 1)
    # R̂ is beyond what independent draws may have, which the estimate of how many draws are
    # effective, with its own error, explains nearly everywhere
    assert int(beyond.sum()) > 200
    assert len(unmixed(draws)[0]) < 10


@pytest.mark.parametrize("fault", ["one chain apart", "one chain wide", "heavy tails", "slow"])
@pytest.mark.parametrize("num", [100, 500])
def test_faults_of_one_number_are_found(fault: str, num: int) -> None:
    draws = torch.randn(4, num, 200, 3)
    wrong = draws[:, :, 7, 1]
    if fault == "one chain wide":
        wrong[0] *= 4
    elif fault == "slow":
        wrong.copy_(torch.randn(4, num).cumsum(1))
    else:
        if fault == "heavy tails":
            wrong /= torch.randn(4, num)
        wrong[0] += 4.0
    places, rhat = unmixed(draws)
    assert places.tolist() == [7]
    torch.testing.assert_close(rhat, rank_rhat(draws[:, :, 7:8]).amax(-1))
