"""Splits: their sizes, order and chunks."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from aevb.data import load

from small_datasets import GREY, everything, sorted_rows

# Splits


@pytest.mark.parametrize(
    ("count", "sizes"), [(10, [8, 1, 1]), (40, [32, 4, 4]), (1999, [1601, 199, 199])]
)
def test_own_data_are_shuffled_and_split_80_10_10(count: int, sizes: list[int]) -> None:
    values = torch.arange(2 * count).reshape(count, 2)
    dataset = load(values)
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == sizes
    assert sorted_rows(everything(dataset)) == sorted_rows(values)
    assert not torch.equal(everything(dataset), values)
    assert f"fixed permutation (PCG64, seed 0) of all {count:,}" in dataset.split_rule


def test_evaluation_chunks_join_to_the_evaluation_copy() -> None:
    for binarize in ("none", "fixed", "dynamic"):
        split = load("digits", binarize=binarize).test
        chunks = list(split.batches(64))
        assert [len(chunk) for chunk in chunks] == [64, 64, 64, 58]
        assert torch.equal(torch.cat(chunks), split.evaluation())
        assert torch.equal(torch.cat(list(split.batches(64, limit=100))), split.evaluation(100))


@pytest.mark.parametrize("binarize", ["none", "fixed", "dynamic"])
def test_limited_evaluation_is_a_prefix(binarize: str) -> None:
    split = load("digits", binarize=binarize).train
    full = split.evaluation()
    for limit in (1, 17, 1297, 5000):
        fresh = load("digits", binarize=binarize).train
        assert torch.equal(fresh.evaluation(limit), full[:limit])


@pytest.mark.parametrize("source", [GREY, GREY / 255, GREY.astype(np.float32)])
def test_changing_what_was_presented_does_not_change_the_split(source: NDArray[Any]) -> None:
    split = load(source).train
    before = split.values.clone()
    split.evaluation().zero_()
    split.gather(torch.arange(5)).zero_()
    next(split.batches(3)).zero_()
    assert torch.equal(split.values, before)


def test_gather_presents_the_datapoints_asked_for_in_order() -> None:
    split = load(GREY).train
    indices = torch.tensor([7, 0, 7, 31])
    expected = split.values[indices].numpy().astype(np.float32) / np.float32(255)
    assert np.array_equal(split.gather(indices).numpy(), expected)
    assert torch.equal(split.gather(indices.int()), split.gather(indices))
    assert split.gather(indices[:0]).shape == (0, 6, 5)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (torch.tensor([0, 32]), r"indices: between 0 and 32; expected 0\.\.31"),
        (torch.tensor([-1, 3]), "indices: between -1 and 3"),
        (torch.tensor([[0]]), r"indices: shape \(1, 1\)"),
        (torch.tensor([0.0]), "dtype torch.float32"),
        (torch.ones(32, dtype=torch.bool), "dtype torch.bool"),
    ],
)
def test_impossible_indices_are_an_error(indices: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(GREY).train.gather(indices)


def test_limits_and_batch_sizes_below_one_are_errors() -> None:
    split = load(GREY).train
    with pytest.raises(ValueError, match="limit: 0; expected at least 1"):
        split.evaluation(0)
    with pytest.raises(ValueError, match="limit: -1; expected at least 1"):
        split.batches(3, limit=-1)
    with pytest.raises(ValueError, match="batch_size: 0; expected at least 1"):
        split.batches(0)
