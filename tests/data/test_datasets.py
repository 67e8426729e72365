"""Named datasets, devices and records: `aevb.data.load` and `Dataset`."""

import ast
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from aevb import data
from aevb.data import DATASETS, load
from aevb.data.binarization import bernoulli
from aevb.data.partitions import by_permutation

from small_datasets import GREY, everything, sorted_rows


@pytest.fixture
def real_root() -> Path:
    root = Path(os.environ.get("AEVB_DATA", ""))
    if not (root / "MNIST" / "raw").is_dir() or not (root / "FreyFace").is_dir():
        pytest.skip("AEVB_DATA names no folder that holds MNIST/raw and FreyFace")
    return root


# The digits, the named dataset that is always there


def test_digits_have_their_sizes_shape_and_sixteen_levels() -> None:
    digits = load("digits")
    assert [len(digits.train), len(digits.validation), len(digits.test)] == [1297, 250, 250]
    assert digits.shape == digits.train.shape == (8, 8)
    assert everything(digits).dtype == torch.uint8
    assert digits.train.divisor == 16
    levels = set(digits.train.evaluation().flatten().tolist())
    assert levels == {level / 16 for level in range(17)}


def test_digits_are_each_image_of_scikit_learn_once() -> None:
    from sklearn.datasets import load_digits

    assert sorted_rows(everything(load("digits"))) == sorted_rows(load_digits().data)


def test_digits_never_change() -> None:
    # A change of the permutation or of scikit-learn's file would make old results incomparable.
    digest = "620b99dbc6a3e1e23b14212d892cb4e915e57b022701d1c364e987a46e8bab04"
    assert load("digits", seed=5, binarize="fixed").sha256 == digest


def test_permutation_is_pinned_to_the_raw_stream_of_pcg64() -> None:
    parts = by_permutation(np.arange(10)[:, None], (6, 2, 2), "test")
    found = np.concatenate([parts.train, parts.validation, parts.test])
    assert found.ravel().tolist() == [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]


def test_splits_do_not_follow_the_seed() -> None:
    first, second = load("digits", seed=0), load("digits", seed=1)
    assert torch.equal(first.test.values, second.test.values)
    assert first.sha256 == second.sha256


def test_names_are_the_seven_datasets() -> None:
    expected = "digits mnist fashion-mnist kmnist cifar10 svhn frey-face"
    assert expected.split() == list(DATASETS)


def test_importing_the_package_loads_no_heavy_reader() -> None:
    heavy = {"torchvision", "sklearn", "scipy", "PIL", "platformdirs"}
    for path in Path(data.__path__[0]).glob("*.py"):
        for node in ast.parse(path.read_text()).body:  # at the top level of the module
            names = [alias.name for alias in getattr(node, "names", [])]
            module = getattr(node, "module", None)
            found = {name.split(".")[0] for name in [*names, module or ""]}
            assert not found & heavy, f"{path}:{node.lineno}"


# Devices. "meta" stands in for a GPU where only the device itself matters.
def test_moving_a_dataset_moves_every_split_and_nothing_else() -> None:
    dataset = load("digits", binarize="dynamic", seed=2)
    moved = dataset.to("cpu")
    assert torch.equal(moved.test.evaluation(), dataset.test.evaluation())
    assert moved.record() == dataset.record()
    away = load(GREY).to("meta")
    assert {str(s.device) for s in (away.train, away.validation, away.test)} == {"meta"}


def test_generator_on_another_device_is_an_error() -> None:
    away = load(GREY, binarize="none").train.to("meta")
    message = "generator: on cpu; expected the values' meta"
    with pytest.raises(ValueError, match=message):
        bernoulli(away.values, torch.Generator())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("binarize", ["none", "fixed", "dynamic"])
@pytest.mark.parametrize("source", ["digits", GREY, GREY / 255])
def test_evaluation_copy_is_the_same_on_a_gpu(source: str | NDArray[Any], binarize: str) -> None:
    split = load(source, binarize=binarize).train
    copy = split.to("cuda").evaluation()
    assert copy.device.type == "cuda"
    assert torch.equal(copy.cpu(), split.evaluation())
    indices, generator = torch.arange(5), torch.Generator("cuda")
    assert split.to("cuda").gather(indices, generator).shape == (5, *split.shape)


# The record


def test_record_is_json_and_says_which_data() -> None:
    record = load("digits", binarize="dynamic", seed=7).record()
    assert json.loads(json.dumps(record)) == record
    assert record == {
        "name": "digits",
        "source": "scikit-learn load_digits",
        "sizes": {"train": 1297, "validation": 250, "test": 250},
        "split_rule": "fixed permutation (PCG64, seed 0) of all 1,797 datapoints: first 1,297 "
        "train, next 250 validation, last 250 test of "
        "numpy.argsort(numpy.random.PCG64(0).random_raw(1797), kind='stable')",
        "binarize": "dynamic",
        "seed": 7,
        "divisor": 16.0,
        "dtype": "uint8",
        "shape": [8, 8],
        "sha256": load("digits").sha256,
    }


def test_fingerprint_tells_values_dtypes_shapes_and_splits_apart(tmp_path: Path) -> None:
    changed = GREY.copy()
    changed[3, 2, 1] ^= 1
    np.savez(tmp_path / "own.npz", train=GREY[:32], validation=GREY[32:36], test=GREY[36:])
    variants: list[Any] = [
        GREY,
        changed,
        GREY.astype(np.int16),
        GREY.reshape(40, 5, 6),
        tmp_path / "own.npz",
    ]
    digests = [load(values).sha256 for values in variants]
    assert len(set(digests)) == len(digests)
    assert load(GREY).sha256 == load(GREY, binarize="fixed", seed=3).sha256 == digests[0]


def test_reprs_are_one_line() -> None:
    digits = load("digits")
    assert repr(digits) == (
        "Dataset('digits': train 1297, validation 250, test 250, shape (8, 8), binarize='none')"
    )
    assert repr(digits.test) == (
        "Split('test', 250 x (8, 8), torch.uint8, divisor=16, binarize='none', device='cpu')"
    )


# The real files


def test_real_mnist_has_its_sizes_pixels_and_order(real_root: Path) -> None:
    mnist = load("mnist", root=real_root, download=False, binarize="dynamic")
    assert [len(mnist.train), len(mnist.validation), len(mnist.test)] == [50_000, 10_000, 10_000]
    assert (mnist.shape, mnist.train.values.dtype) == ((28, 28), torch.uint8)
    content = (real_root / "MNIST" / "raw" / "train-images-idx3-ubyte").read_bytes()
    assert hashlib.md5(content).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"
    joined = np.concatenate([mnist.train.values, mnist.validation.values])
    assert joined.tobytes() == content[16:]
    assert set(mnist.test.evaluation(100).flatten().tolist()) == {0, 1}


def test_real_frey_faces_have_the_checksum_of_the_original(real_root: Path) -> None:
    faces = load("frey-face", root=real_root, download=False)
    assert [len(faces.train), len(faces.validation), len(faces.test)] == [1565, 200, 200]
    assert (faces.shape, faces.train.values.dtype) == ((28, 20), torch.uint8)
    assert (
        0.5 < faces.train.evaluation().mean() < 0.7
    )  # the frames are lit, 150 of 255 grey levels
