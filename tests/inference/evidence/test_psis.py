"""Pareto k̂ against both lines of ArviZ, and where they differ or fail."""

import math
import warnings

import numpy as np
import pytest
import torch

from aevb.inference import pareto_khat
from aevb.inference.evidence import psis

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz as az

# Where a fifth of the samples or three times their root is whole, the lines' tails are the same.
SAME_TAILS = (25, 30, 100, 225, 400, 900, 2500)


def weights_of(kind: str, num: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    normal = random.normal(size=num)
    if kind == "normal":
        return normal * random.choice([0.01, 1.0, 5.0, 50.0])
    if kind == "pareto":
        return -random.uniform(0.1, 3.0) * np.log(random.random(num))
    if kind == "tied":
        return normal.round(1)
    if kind == "zero":
        return np.where(random.random(num) < 0.3, -np.inf, normal)
    return 100 * random.standard_cauchy(num)


def khat(weights: np.ndarray) -> float:
    return float(pareto_khat(torch.from_numpy(weights)))


@pytest.mark.parametrize("kind", ["normal", "pareto", "tied", "zero", "cauchy"])
@pytest.mark.filterwarnings("ignore:overflow")  # of ArviZ
def test_khat_is_that_of_the_old_line(kind: str) -> None:
    for seed in range(60):
        num = int(np.random.default_rng(seed).integers(25, 3000))
        num = SAME_TAILS[seed % 7] if seed % 3 == 0 else num
        weights = weights_of(kind, num, seed)
        theirs = float(az.psislw(weights)[1])
        np.testing.assert_allclose(khat(weights), theirs, rtol=0.0, atol=1e-10)


@pytest.mark.parametrize("kind", ["normal", "pareto", "zero"])
def test_khat_is_that_of_the_new_line_where_its_tail_is_ours(kind: str) -> None:
    base = pytest.importorskip("arviz_stats.base", reason="ArviZ 1.x is absent")
    for seed in range(60):
        weights = weights_of(kind, SAME_TAILS[seed % 7], seed)
        theirs = float(base.array_stats.psislw(-weights)[1])  # it takes log-likelihoods
        np.testing.assert_allclose(khat(weights), theirs, rtol=0.0, atol=1e-10)
        if kind == "normal" and seed == 0:  # the twin: the other tail
            assert abs(khat(-weights) - theirs) > 1e-3


def test_khat_does_not_ask_which_line_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.randn(100, 3)
    wanted = pareto_khat(weights)
    for name in ("arviz", "arviz_stats"):
        monkeypatch.setitem(__import__("sys").modules, name, None)  # an import would fail
    np.testing.assert_array_equal(pareto_khat(weights), wanted)


@pytest.mark.parametrize("num", [1, 5, 20, 24])
def test_khat_of_few_samples_is_undefined(num: int) -> None:
    assert np.isnan(pareto_khat(torch.randn(num, 3))).all()


@pytest.mark.parametrize("num", [25, 26, 27, 29, 31])
def test_khat_is_defined_from_25_samples_on(num: int) -> None:
    assert np.isfinite(pareto_khat(torch.randn(num, 3))).all()


def test_khat_without_a_tail_is_infinite() -> None:
    """The new line refuses such weights; loo and the old line call them infinite."""
    base = pytest.importorskip("arviz_stats.base", reason="ArviZ 1.x is absent")
    two = (torch.rand(1000) < 0.5).double()
    with pytest.raises(ValueError, match="All tail values are the same"):
        base.array_stats.psislw(-two.numpy())
    top = torch.randn(1000, dtype=torch.float64).sort().values
    top[-95:] = top[-1].clone()  # as many as are in the tail, none of the others
    few = torch.full((1000,), -math.inf, dtype=torch.float64)
    few[:50] = torch.randn(50, dtype=torch.float64)
    none = torch.full((1000,), -math.inf, dtype=torch.float64)
    assert (pareto_khat(torch.stack([two, top, few, none], -1)) == math.inf).all()


def test_khat_of_equal_weights_is_zero_and_of_unknown_ones_unknown() -> None:
    weights = torch.zeros(100, 4, dtype=torch.float64) + 1e5
    weights[:, 1] += 1e-6 * torch.rand(100)
    weights[3, 2], weights[3, 3] = math.nan, math.inf
    found = pareto_khat(weights)
    assert found[:2].tolist() == [0.0, 0.0]
    assert np.isnan(found[2:]).all()


def test_blocks_of_columns_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.randn(200, 2, 5) * 3
    whole = pareto_khat(weights)
    monkeypatch.setattr(psis, "_NUMBERS_AT_ONCE", 400)
    np.testing.assert_array_equal(pareto_khat(weights), whole)
    assert whole.shape == (2, 5)
