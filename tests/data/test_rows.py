"""Where each datapoint comes from: indices, names, all rows in their order, new rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from aevb.data import Split, Table, load

from small_datasets import GREY

VALUES = np.arange(80.0, dtype=np.float32).reshape(40, 2)


def test_recorded_rule_reproduces_the_permutation() -> None:
    dataset = load(GREY)
    rule = dataset.record()["split_rule"]
    order = eval(rule.rpartition(" test of ")[2], {"numpy": np})
    splits = (dataset.train, dataset.validation, dataset.test)
    assert np.array_equal(torch.cat([split.indices for split in splits]), order)
    for split in splits:
        assert np.array_equal(split.values, GREY[split.indices])


def test_indices_of_parts_of_their_own_begin_anew(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", train=GREY[:25], test=GREY[25:])
    dataset = load(tmp_path / "x.npz")
    assert dataset.train.indices.tolist() == list(range(23))
    assert dataset.validation.indices.tolist() == [23, 24]
    assert dataset.test.indices.tolist() == list(range(15))
    found = dataset.datapoints("all")
    assert found.splits.tolist() == ["train"] * 23 + ["validation"] * 2 + ["test"] * 15
    assert np.allclose(found.values, GREY / np.float32(255))


@pytest.mark.parametrize("binarize", ["none", "fixed", "dynamic"])
def test_all_rows_are_in_the_order_of_the_file(binarize: str) -> None:
    dataset = load(GREY, binarize=binarize)
    found = dataset.datapoints("all")
    assert found.indices.tolist() == list(range(40))
    for split in (dataset.train, dataset.validation, dataset.test):
        assert torch.equal(found.values[split.indices], split.evaluation())
        assert set(found.splits[split.indices]) == {split.name}
    few = dataset.datapoints("all", limit=7)
    assert torch.equal(few.values, found.values[:7])
    first = dataset.datapoints("test", limit=2)
    assert torch.equal(first.values, dataset.test.evaluation(2))
    assert torch.equal(first.indices, dataset.test.indices[:2])


def test_unknown_split_is_an_error() -> None:
    with pytest.raises(ValueError, match="split: 'tset'; expected train, validation, test or all"):
        load(GREY).datapoints("tset")


def test_indices_and_names_follow_their_datapoints() -> None:
    names = np.array([f"row {place}" for place in range(40)])
    whole = Split(torch.from_numpy(VALUES), ids=names)
    cut = whole.first(3)
    assert cut.indices.tolist() == [0, 1, 2]
    assert cut.ids is not None
    assert cut.ids.tolist() == ["row 0", "row 1", "row 2"]
    both = cut.joined(Split(torch.ones(1, 2), indices=torch.tensor([9]), ids=names[9:10]))
    assert both.indices.tolist() == [0, 1, 2, 9]
    assert both.ids is not None
    assert both.ids[-1] == "row 9"
    assert both.to("cpu").ids is both.ids
    assert cut.joined(Split(torch.ones(1, 2))).ids is None
    with pytest.raises(ValueError, match="ids: 40; expected one for each datapoint"):
        Split(torch.ones(1, 2), ids=names)


def test_images_are_named_by_their_paths(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for place in range(20):
        Image.fromarray(np.full((2, 2), place, np.uint8)).save(tmp_path / f"a/{place:02}.png")
    test = load(tmp_path).test
    assert test.ids is not None
    assert test.ids.tolist() == [f"a/{int(place):02}.png" for place in test.indices]
    assert test.values[:, 0, 0].tolist() == test.indices.tolist()


# New rows


@pytest.mark.parametrize(
    ("source", "new", "presented"),
    [
        (GREY, GREY[:1], GREY[:1] / np.float32(255)),
        (GREY, GREY[:1].astype(np.int64), GREY[:1] / np.float32(255)),
        (GREY, GREY[:1] / 255, GREY[:1] / np.float32(255)),
        (GREY.astype(np.int32), GREY[:1], GREY[:1]),
        (GREY.astype(np.int32), GREY[:1].astype(np.float64), GREY[:1]),
        (GREY > 99, (GREY[:1] > 99).astype(np.uint8), GREY[:1] > 99),
        (GREY / 7, GREY[:1], GREY[:1].astype(np.float64)),
        (GREY.astype(np.float32) - 0.5, torch.from_numpy(GREY[:1] - 0.5), GREY[:1] - 0.5),
    ],
)
def test_new_rows_are_prepared_as_the_dataset_was(source: Any, new: Any, presented: Any) -> None:
    dataset = load(source)
    shown = dataset.new(new).evaluation()
    assert shown.dtype == dataset.test.evaluation().dtype
    assert np.allclose(shown, presented, atol=1e-7)


@pytest.mark.parametrize("binarize", ["fixed", "dynamic"])
def test_new_rows_are_binarized_once(binarize: str) -> None:
    dataset = load(GREY, binarize=binarize)
    shown = dataset.new(GREY).evaluation()
    assert shown.unique().tolist() == [0, 1]
    assert torch.equal(shown, dataset.new(GREY).evaluation())
    assert not torch.equal(shown, load(GREY, binarize=binarize, seed=1).new(GREY).evaluation())
    # five standard errors of the mean of 1,200 draws
    error = np.sqrt((GREY / 255 * (1 - GREY / 255)).sum()) / GREY.size
    assert abs(float(shown.mean()) - float(GREY.mean()) / 255) < 5 * error


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (GREY[:, :3], r"source: datapoints of shape \(3, 5\); expected \(6, 5\)"),
        (GREY / 2, "decimals from 0 to 127.5; expected whole numbers from 0 to 255"),
        (GREY.astype(int) * 2, "whole numbers from 0 to 510; expected 0 to 255"),
        (np.full((2, 6, 5), np.nan), "values that are NaN or infinite"),
        ("no-such.npy", "'no-such.npy' does not exist"),
    ],
)
def test_new_rows_of_another_kind_are_an_error(new: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(GREY).new(new)


def test_columns_of_new_rows_are_found_by_name(tmp_path: Path) -> None:
    rows = "".join(f"r{n},{n},{2 * n},z\n" for n in range(20))
    (tmp_path / "x.csv").write_text("name,a,b,label\n" + rows)
    dataset = load(tmp_path / "x.csv", table=Table(id_column="name", ignore=["label"]))
    (tmp_path / "new.csv").write_text("more,b,name,a\n0.5,7,q,3\n")
    new = dataset.new(tmp_path / "new.csv")
    assert new.evaluation().tolist() == [[3, 7]]
    assert new.ids is not None
    assert new.ids.tolist() == ["q"]
    (tmp_path / "less.csv").write_text("name,b\nq,7\n")
    with pytest.raises(ValueError, match="less.csv: has no column a; it has name, b"):
        dataset.new(tmp_path / "less.csv")


# 8-bit counts


def test_8_bit_counts_are_told_from_pixels() -> None:
    assert load(GREY, kind="counts").divisor == 1
    counts = load(GREY).as_counts()
    assert torch.equal(counts.test.evaluation(), load(GREY, kind="counts").test.evaluation())
    assert counts.divisor == 1
    assert load("digits").as_counts().divisor == 16
    with pytest.raises(ValueError, match="would take counts for pixels; use binarize='none'"):
        load(GREY, binarize="dynamic").as_counts()


@pytest.mark.parametrize("values", [GREY.astype(float), GREY.astype(np.int64), GREY])
def test_whole_numbers_of_any_type_may_be_pixels_or_counts(values: Any) -> None:
    pixels = load(values, kind="pixels")
    assert (pixels.divisor, pixels.train.values.dtype) == (255, torch.uint8)
    counts = load(values, kind="counts")
    assert (counts.divisor, counts.train.values.dtype) == (1, torch.int32)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            GREY - 0.5,
            "not all whole; expected whole numbers from 0 to 16777216 with kind='counts'",
        ),
        (GREY.astype(int) - 1, "values from -1 to"),
        (np.full((20, 2), "a"), "dtype <U1"),
    ],
)
def test_what_are_no_counts_are_refused(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(values, kind="counts")
