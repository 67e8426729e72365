"""Binarization: draws with the right means, the same copy for every evaluation."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from aevb.data import Split, load, splits

from small_datasets import GREY

# Binarization


def _z_scores(draws: list[Tensor], pixels: Tensor) -> tuple[float, float]:
    """Standard errors between the means of draws and of pixels, plain and weighted by pixel."""
    pixels = pixels.double()
    error = sum(draws, torch.zeros(())).double() / len(draws) - pixels
    variance = pixels * (1 - pixels) / len(draws)
    plain = error.sum() / variance.sum().sqrt()
    weighted = (pixels * error).sum() / (pixels**2 * variance).sum().sqrt()
    return abs(plain.item()), abs(weighted.item())


def _redraw(split: Split, seed: int = 0) -> tuple[float, float]:
    generator, everything = torch.Generator().manual_seed(seed), torch.arange(len(split))
    draws = [split.gather(everything, generator) for _ in range(50)]
    return _z_scores(draws, split.values / split.divisor)


def test_dynamic_draws_have_the_pixels_as_their_means() -> None:
    assert max(_redraw(load("digits", binarize="dynamic").train)) < 5


@pytest.mark.parametrize(
    "broken",
    [
        lambda p: (p > 0.5).to(p.dtype),
        lambda p: torch.bernoulli(1 - p),
        lambda p: torch.bernoulli(p**1.1),
        lambda p: torch.bernoulli(p.flip(0)),
    ],
    ids=["threshold", "inverted", "power", "shuffled"],
)
def test_broken_draws_are_told_from_dynamic_ones(
    broken: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits, "bernoulli", lambda pixels, generator: broken(pixels))
    torch.manual_seed(0)
    assert max(_redraw(load("digits", binarize="dynamic").train)) > 5


def test_evaluation_draws_have_the_pixels_as_their_means() -> None:
    pixels = load("digits").train.evaluation()
    draws = [load("digits", binarize="dynamic", seed=s).train.evaluation() for s in range(30)]
    assert max(_z_scores(draws, pixels)) < 5


def test_dynamic_draws_anew_from_the_generator_given() -> None:
    split, indices = load("digits", binarize="dynamic").train, torch.arange(50)
    generator = torch.Generator().manual_seed(3)
    first, second = split.gather(indices, generator), split.gather(indices, generator)
    assert not torch.equal(first, second)
    assert torch.equal(split.gather(indices, generator.manual_seed(3)), first)
    torch.manual_seed(3)
    assert torch.equal(split.gather(indices), first)


@pytest.mark.parametrize("binarize", ["fixed", "dynamic"])
def test_certain_pixels_stay_what_they_are(binarize: str) -> None:
    values = GREY > 100
    dataset = load(values, binarize=binarize)
    assert torch.equal(dataset.train.evaluation(), load(values).train.evaluation())
    assert torch.equal(dataset.train.gather(torch.arange(32)), load(values).train.evaluation())


@pytest.mark.parametrize("binarize", ["fixed", "dynamic"])
def test_evaluation_copy_is_the_same_at_every_call_and_in_every_process(binarize: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = load("digits", binarize=binarize).test
    assert torch.equal(first.evaluation(), first.evaluation())
    assert torch.equal(torch.get_rng_state(), before)
    drawn = first.evaluation().to(torch.uint8).numpy().tobytes()
    assert (
        hashlib.sha256(drawn).hexdigest()
        == "62c3771be1ecb6a51ccd41826e387cefb6b31fb565f70802a69c1ab796276531"
    )


def test_evaluation_copy_follows_the_seed_and_the_name_of_the_split() -> None:
    half = torch.full((500, 2), 0.5)
    copies = [
        Split(half, name, binarize="dynamic", seed=seed).evaluation()
        for name, seed in [("train", 0), ("train", 1), ("test", 0), ("test", 1)]
    ]
    pairs = [(a, b) for i, a in enumerate(copies) for b in copies[:i]]
    assert not any(torch.equal(a, b) for a, b in pairs)


def test_fixed_trains_on_the_draw_that_both_binarizations_evaluate() -> None:
    fixed = load("digits", binarize="fixed", seed=4)
    dynamic = load("digits", binarize="dynamic", seed=4)
    for name in ("train", "validation", "test"):
        split = getattr(fixed, name)
        assert (split.values.dtype, split.divisor) == (torch.uint8, 1)
        assert torch.equal(split.gather(torch.arange(len(split))), split.evaluation())
        assert torch.equal(split.evaluation(), getattr(dynamic, name).evaluation())


def test_draw_does_not_depend_on_the_chunks_it_is_made_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = load("digits", binarize="fixed").train.values
    monkeypatch.setattr("aevb.data.binarization.CHUNK", 100)
    assert torch.equal(load("digits", binarize="fixed").train.values, whole)


def test_binarized_values_keep_their_precision() -> None:
    values = np.full((20, 3), 0.25)
    split = load(values, binarize="dynamic").train
    assert split.gather(torch.arange(3)).dtype == split.evaluation().dtype == torch.float64
    assert load(GREY, binarize="dynamic").train.evaluation().dtype == torch.float32


@pytest.mark.parametrize("binarize", ["fixed", "dynamic"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.arange(60).reshape(20, 3),
            r"values: between \d+ and 59; expected values in \[0, 1",
        ),
        (np.linspace(-0.5, 1, 60).reshape(20, 3), r"values: between -0.5 and"),
        (np.full((20, 3), 1.5, dtype=np.float32), "values: between 1.5 and 1.5"),
    ],
)
def test_binarizing_what_is_no_probability_is_an_error(
    values: NDArray[Any], message: str, binarize: str
) -> None:
    with pytest.raises(ValueError, match=message + f".*binarize='{binarize}'"):
        load(values, binarize=binarize)


def test_unknown_binarization_is_an_error_that_lists_them() -> None:
    message = "binarize: 'static'; expected one of none, fixed, dynamic"
    with pytest.raises(ValueError, match=message):
        load("digits", binarize="static")
    with pytest.raises(ValueError, match=message):
        Split(torch.zeros(3, 2), binarize="static")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": torch.zeros(3)}, r"values: shape \(3,\); expected \(N, \*shape\)"),
        ({"values": torch.zeros(0, 2)}, r"values: shape \(0, 2\)"),
        ({"values": torch.zeros(3, 2), "divisor": 0.0}, "divisor: 0.0; expected a positive"),
        ({"values": torch.zeros(3, 2), "binarize": "fixed"}, "expected the draw itself"),
    ],
)
def test_impossible_split_is_an_error(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Split(**arguments)
