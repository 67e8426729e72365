"""Arrays in files: read, split, and refused when damaged."""

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from aevb.data import DATASETS, load

from small_datasets import GREY

# Files and folders


def test_npy_file_holds_one_array(tmp_path: Path) -> None:
    path = tmp_path / "faces.npy"
    np.save(path, np.asfortranarray(GREY))
    for source in (path, str(path)):
        dataset = load(source)
        assert dataset.sha256 == load(GREY).sha256
        assert (dataset.name, dataset.source) == ("faces", str(path))


def test_npz_file_of_one_array_is_split_like_that_array(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", images=GREY)
    assert load(tmp_path / "x.npz").sha256 == load(GREY).sha256


def test_npz_file_may_hold_the_three_splits(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", test=GREY[:3], train=GREY[3:20], validation=GREY[20:])
    dataset = load(tmp_path / "x.npz")
    assert np.array_equal(dataset.train.values, GREY[3:20])
    assert np.array_equal(dataset.validation.values, GREY[20:])
    assert np.array_equal(dataset.test.values, GREY[:3])
    assert dataset.split_rule == "the file's own train, validation and test"


def test_npz_file_without_validation_gives_the_last_tenth_of_train(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", train=GREY[:25], test=GREY[25:])
    dataset = load(tmp_path / "x.npz")
    assert np.array_equal(dataset.train.values, GREY[:23])
    assert np.array_equal(dataset.validation.values, GREY[23:25])
    assert np.array_equal(dataset.test.values, GREY[25:])
    assert "first 23 train, last 2 validation; test file: 15 test" in dataset.split_rule


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, r"x.npz: the arrays \[\]; expected exactly one array, or the arrays train, test"),
        ({"train": GREY, "validation": GREY}, r"x.npz: the arrays \['train', 'validation'\]"),
        ({"train": GREY, "test": GREY, "labels": GREY}, "'labels'.*expected exactly one array"),
        ({"train": GREY, "test": GREY / 255}, "train uint8.*test float64.*expected one dtype"),
        ({"train": GREY, "test": GREY > 9}, "train uint8.*test bool.*expected one dtype"),
        ({"train": GREY, "test": GREY[:, :3]}, r"\(6, 5\), test uint8 \(3, 5\); expected one"),
        ({"train": GREY[:9], "test": GREY}, r"x.npz \[train\]: 9 datapoints"),
        ({"train": GREY, "test": GREY[:0]}, r"x.npz \[test\]: 0 datapoints; expected .* 1"),
        ({"images": GREY[:9]}, r"x.npz \[images\]: 9 datapoints"),
        ({"train": np.full((20, 3), None), "test": GREY}, "x.npz: cannot be decoded.*pickle"),
    ],
)
def test_npz_file_of_another_form_is_an_error(
    arrays: dict[str, NDArray[Any]], message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "x.npz")


class _Bomb:
    """What makes a folder when it is unpickled, as a malicious file would do worse."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_pickled_objects_are_refused_and_never_run(name: str, tmp_path: Path) -> None:
    path, bomb = tmp_path / name, _Bomb(tmp_path / "exploded")
    objects = np.full((20, 3), bomb)
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "x.npz", objects)
    with pytest.raises(ValueError, match=f"{name}: cannot be decoded.*without pickled objects"):
        load(path)
    path.write_bytes(pickle.dumps(bomb))
    with pytest.raises(ValueError, match=f"{name}: cannot be decoded.*without pickled objects"):
        load(path)
    assert not bomb.folder.exists()


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize("keep", [0.0, 0.05, 0.5, 0.99])
def test_truncated_file_is_an_error_that_names_it(name: str, keep: float, tmp_path: Path) -> None:
    path = tmp_path / name
    np.save(tmp_path / "x.npy", GREY)
    np.savez_compressed(tmp_path / "x.npz", GREY)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: cannot be decoded"):
        load(path)


def test_damaged_archive_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, GREY)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match="x.npz: cannot be decoded"):
        load(path)


def test_archive_named_npy_is_an_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", GREY, GREY)
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    with pytest.raises(ValueError, match="x.npy: archive of arrays; expected one array"):
        load(tmp_path / "x.npy")


UNKNOWN: list[str | Path] = ["minst", "no/such/file.npy", Path("mnist"), Path("x.npz")]


@pytest.mark.parametrize("source", UNKNOWN)
def test_unknown_source_is_an_error_that_lists_the_names(
    source: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ", ".join(DATASETS)
    with pytest.raises(ValueError, match=f"{source}' does not exist.*; expected one of {names}"):
        load(source)


def test_file_of_another_kind_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("1,2")
    with pytest.raises(ValueError, match=r"x.txt' is no such file; .* the path of an .npy file"):
        load(tmp_path / "x.txt")
