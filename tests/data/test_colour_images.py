"""CIFAR-10 and SVHN."""

import hashlib
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from aevb.data import DATASETS, load

# CIFAR-10 and SVHN


@pytest.fixture
def colour_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: tuple[int, ...]) -> Path:
    """CIFAR-10 and SVHN in their own formats, of 10 training and 4 test images."""
    from scipy.io import savemat
    from torchvision.datasets import CIFAR10, SVHN

    images = _colours()
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    contents = {
        "data_batch_1": {"data": images[:6].reshape(6, -1), "labels": [0] * 6},
        "data_batch_2": {"data": images[6:10].reshape(4, -1), "labels": [0] * 4},
        "test_batch": {"data": images[10:].reshape(4, -1), "labels": [0] * 4},
        "batches.meta": {"label_names": ["frog"]},
    }
    digests = {}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
        digests[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [*digests.items()][:2])
    monkeypatch.setattr(CIFAR10, "test_list", [*digests.items()][2:3])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": digests["batches.meta"]})

    lists = {}
    for split, part in (("train", images[:10]), ("test", images[10:])):
        path = tmp_path / f"{split}_32x32.mat"
        savemat(path, {"X": part.transpose(2, 3, 1, 0), "y": np.ones((len(part), 1))})
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        lists[split] = [f"file:///no-such-server/{path.name}", path.name, md5]
    monkeypatch.setattr(SVHN, "split_list", lists)
    return tmp_path


def _colours() -> NDArray[np.uint8]:
    count = sum((7, 3, 4)) * 3 * 32 * 32
    return (np.arange(count) * 7 % 251).astype(np.uint8).reshape(-1, 3, 32, 32)


@pytest.mark.parametrize("name", ["cifar10", "svhn"])
def test_colour_images_are_split_by_position_with_channels_first(
    name: str, colour_root: Path
) -> None:
    dataset = load(name, root=colour_root, download=False)
    images = _colours()
    assert dataset.shape == (3, 32, 32)
    assert np.array_equal(dataset.train.values, images[:7])
    assert np.array_equal(dataset.validation.values, images[7:10])
    assert np.array_equal(dataset.test.values, images[10:])
    assert (dataset.source, dataset.divisor) == (str(colour_root), 255)


@pytest.mark.parametrize(
    ("name", "file"),
    [("cifar10", "cifar-10-batches-py/data_batch_2"), ("svhn", "test_32x32.mat")],
)
def test_damaged_or_missing_colour_file_is_an_error_that_names_it(
    name: str, file: str, colour_root: Path
) -> None:
    path = colour_root / file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: MD5 .*; expected .*delete"):
        load(name, root=colour_root, download=False)
    path.unlink()
    message = f"{name}: not in root={re.escape(str(colour_root))}; expected {file}: put"
    with pytest.raises(FileNotFoundError, match=message):
        load(name, root=colour_root, download=False)


def test_colour_file_that_its_reader_rejects_is_an_error(
    colour_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import SVHN

    path = colour_root / "train_32x32.mat"
    path.write_bytes(b"no MATLAB file")
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    lists = {**SVHN.split_list, "train": ["", path.name, md5]}
    monkeypatch.setattr(SVHN, "split_list", lists)
    with pytest.raises(ValueError, match="svhn: cannot be decoded in "):
        load("svhn", root=colour_root, download=False)


@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"digits"}))
def test_missing_dataset_is_an_error_that_names_the_folder_and_the_remedy(
    name: str, tmp_path: Path
) -> None:
    message = (
        rf"{name}: not in root={re.escape(str(tmp_path))}; expected .*root= or \$AEVB_DATA, "
        rf'or let load\("{name}", download=True\)'
    )
    with pytest.raises(FileNotFoundError, match=message):
        load(name, root=tmp_path, download=False)
    assert not list(tmp_path.iterdir())


def test_failed_colour_download_is_an_error_that_says_why(colour_root: Path) -> None:
    (colour_root / "test_32x32.mat").unlink()
    with pytest.raises(FileNotFoundError, match="svhn: not in .*the download failed: .*urlopen"):
        load("svhn", root=colour_root)
