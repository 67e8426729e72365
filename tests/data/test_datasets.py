"""Sources, splits, binarization and records: `aevb.data.load`, `Dataset` and `Split`."""

import ast
import gzip
import hashlib
import json
import os
import pickle
import re
import struct
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from aevb import data
from aevb.data import DATASETS, Dataset, Split, load, sources, splits
from aevb.data.binarization import bernoulli
from aevb.data.partitions import by_permutation
from aevb.data.readers import frey

GREY = np.random.RandomState(0).randint(0, 256, size=(40, 6, 5)).astype(np.uint8)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Keeps threads that wait for a busy core from slowing these small tensors a hundredfold."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _everything(dataset: Dataset) -> Tensor:
    return torch.cat([part.values for part in (dataset.train, dataset.validation, dataset.test)])


def _sorted_rows(values: Tensor | NDArray[Any]) -> list[tuple[float, ...]]:
    return sorted(tuple(row) for row in torch.as_tensor(values).flatten(1).tolist())


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
    assert _everything(digits).dtype == torch.uint8
    assert digits.train.divisor == 16
    levels = set(digits.train.evaluation().flatten().tolist())
    assert levels == {level / 16 for level in range(17)}


def test_digits_are_each_image_of_scikit_learn_once() -> None:
    from sklearn.datasets import load_digits

    assert _sorted_rows(_everything(load("digits"))) == _sorted_rows(load_digits().data)


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


# Values: what a dtype means


@pytest.mark.parametrize(
    ("values", "stored", "divisor", "presented"),
    [
        (GREY, torch.uint8, 255, torch.float32),
        (GREY > 100, torch.uint8, 1, torch.float32),
        (GREY.astype(np.int8), torch.int8, 1, torch.float32),
        (GREY.astype(np.int16), torch.int16, 1, torch.float32),
        (GREY.astype(np.uint16), torch.int32, 1, torch.float32),
        (GREY.astype(np.uint32), torch.int32, 1, torch.float32),
        (GREY.astype(np.int64), torch.int32, 1, torch.float32),
        (GREY.astype(">i2"), torch.int16, 1, torch.float32),
        (GREY.astype(np.float16), torch.float32, 1, torch.float32),
        (GREY.astype(np.float32) - 0.5, torch.float32, 1, torch.float32),
        (GREY.astype(">f4"), torch.float32, 1, torch.float32),
        (GREY.astype(np.float64) / 7, torch.float64, 1, torch.float64),
    ],
)
def test_dtype_tells_how_values_are_stored_and_presented(
    values: NDArray[Any], stored: torch.dtype, divisor: float, presented: torch.dtype
) -> None:
    dataset = load(values)
    assert (dataset.train.values.dtype, dataset.divisor) == (stored, divisor)
    shown = torch.cat([part.evaluation() for part in (dataset.train, dataset.validation)])
    shown = torch.cat([shown, dataset.test.gather(torch.arange(4))])
    assert shown.dtype == presented
    exact = torch.from_numpy(values.astype(np.float64)).to(presented) / divisor
    assert _sorted_rows(shown) == _sorted_rows(exact)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_tensor_and_array_of_the_same_numbers_are_the_same_data(dtype: torch.dtype) -> None:
    tensor = torch.from_numpy(GREY).to(dtype).requires_grad_()
    array = GREY.astype(np.float32)
    if dtype == torch.bfloat16:
        array = torch.from_numpy(GREY).bfloat16().float().numpy()
    assert load(tensor).sha256 == load(array).sha256
    assert not load(tensor).train.values.requires_grad


def test_changing_the_source_does_not_change_the_dataset() -> None:
    tensor = torch.ones(20, 3)
    dataset = load(tensor)
    tensor.zero_()
    assert _everything(dataset).min() == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(20), r"source: shape \(20,\); expected \(N, \*shape\)"),
        (torch.tensor(1.0), r"source: shape \(\); expected \(N, \*shape\)"),
        (np.zeros((9, 3)), "source: 9 datapoints; expected at least 10"),
        (np.zeros((0, 3)), "source: 0 datapoints"),
        (np.zeros((20, 0, 3)), r"shape \(20, 0, 3\), whose datapoints are empty"),
        (np.zeros((20, 3), dtype=complex), "source: dtype complex128; expected uint8"),
        (torch.zeros(20, 3, dtype=torch.complex64), "source: dtype complex64"),
        (np.full((20, 3), "a"), "source: dtype <U1; expected uint8"),
        (np.full((20, 3), None), "source: dtype object; expected uint8"),
        (np.zeros((20, 3), dtype="M8[s]"), "dtype datetime64"),
        (np.zeros((20, 3), dtype=np.longdouble), "source: dtype"),
        (torch.zeros(20, 3).to_sparse(), "source: layout torch.sparse_coo"),
        (torch.zeros(20, 3).to(torch.float8_e5m2), "source: dtype torch.float8_e5m2"),
        (np.ma.masked_less(GREY, 9), "source: masked array"),
        (np.full((20, 3), 2**24 + 1), r"integers from 16777217 to 16777217; expected .* 2\*\*24"),
        (np.full((20, 3), -(2**40)), "integers from -1099511627776"),
        ((GREY > 9).astype(np.uint8), "uint8 values that are all 0 or 1; expected pixels 0..255"),
        ([[1.0, 2.0]] * 20, "source: list; expected one of digits, mnist"),
        (None, "source: NoneType; expected one of digits"),
    ],
)
def test_values_that_are_no_data_are_an_error(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(values)


@pytest.mark.parametrize(("value", "name"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_values_that_are_not_finite_are_counted_and_located(value: float, name: str) -> None:
    values = np.zeros((20, 3, 2))
    values[[4, 7, 9], 1, 0] = value
    message = rf"source: 3 values .* the first \({name}\) at index \(4, 1, 0\)"
    with pytest.raises(ValueError, match=message):
        load(values)


# Splits


@pytest.mark.parametrize(
    ("count", "sizes"), [(10, [8, 1, 1]), (40, [32, 4, 4]), (1999, [1601, 199, 199])]
)
def test_own_data_are_shuffled_and_split_80_10_10(count: int, sizes: list[int]) -> None:
    values = torch.arange(2 * count).reshape(count, 2)
    dataset = load(values)
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == sizes
    assert _sorted_rows(_everything(dataset)) == _sorted_rows(values)
    assert not torch.equal(_everything(dataset), values)
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
        "train, next 250 validation, last 250 test",
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
    with pytest.raises(ValueError, match=f"{source}' does not exist; expected one of {names}"):
        load(source)


def test_file_of_another_kind_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"x.csv' is no such file; .* the path of an .npy file"):
        load(tmp_path / "x.csv")


def _save_images(folder: Path, images: NDArray[Any], mode: str, suffix: str = ".png") -> None:
    for index, image in enumerate(images):
        path = folder / f"{index % 3}" / f"{index:03d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).convert(mode).save(path)


def test_folder_of_grey_images_is_read_in_sorted_order(tmp_path: Path) -> None:
    _save_images(tmp_path, GREY, "L")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_text("no image")
    in_order = np.concatenate([GREY[0::3], GREY[1::3], GREY[2::3]])
    dataset = load(tmp_path)
    assert dataset.shape == (6, 5)
    assert dataset.sha256 == load(in_order).sha256
    assert (dataset.name, dataset.source) == (tmp_path.name, str(tmp_path))


@pytest.mark.parametrize("suffix", [".png", ".BMP"])
def test_folder_of_colour_images_has_channels_first(suffix: str, tmp_path: Path) -> None:
    colours = np.stack([GREY, GREY // 2, 255 - GREY], axis=-1)
    for index, image in enumerate(colours):
        Image.fromarray(image).save(tmp_path / f"{index:03d}{suffix}")
    dataset = load(tmp_path)
    assert dataset.shape == (3, 6, 5)
    assert dataset.sha256 == load(colours.transpose(0, 3, 1, 2)).sha256


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".gif", ".webp", ".tif"])
def test_folder_may_hold_any_usual_image_format(suffix: str, tmp_path: Path) -> None:
    colours = np.full((12, 8, 7, 3), (250, 120, 3), dtype=np.uint8)
    _save_images(tmp_path, colours, "RGB", suffix)
    dataset = load(tmp_path)
    assert dataset.shape == (3, 8, 7)
    error = dataset.train.values.float() - torch.tensor([250.0, 120.0, 3.0])[:, None, None]
    assert error.abs().max() < 8  # lossy formats round a flat colour by a few of 255 levels


def test_folder_of_one_bit_images_is_binary(tmp_path: Path) -> None:
    bits = GREY > 100
    for index, image in enumerate(bits):
        Image.fromarray(image).save(tmp_path / f"{index:03d}.png")
    assert load(tmp_path).sha256 == load(bits).sha256


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("L", (6, 6)), r"odd.png: image of shape \(6, 6\) .* expected .*\(6, 5\)"),
        (Image.new("RGB", (5, 6)), r"odd.png: image of shape \(3, 6, 5\)"),
        (Image.new("1", (5, 6)), "odd.png: image of .* dtype bool; expected .* uint8"),
        (Image.new("RGBA", (5, 6)), "odd.png: mode RGBA; expected one opaque"),
        (Image.new("I;16", (5, 6)), "odd.png: mode I;16"),
    ],
)
def test_folder_of_mixed_images_is_an_error(
    image: Image.Image, message: str, tmp_path: Path
) -> None:
    _save_images(tmp_path, GREY, "L")
    image.save(tmp_path / "odd.png")
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_image_with_several_frames_or_transparency_is_an_error(tmp_path: Path) -> None:
    frames = [Image.fromarray(image) for image in GREY]
    (tmp_path / "film").mkdir()
    frames[0].save(tmp_path / "film" / "x.gif", save_all=True, append_images=frames[1:3])
    with pytest.raises(ValueError, match="x.gif: several frames; expected one"):
        load(tmp_path / "film")
    (tmp_path / "glass").mkdir()
    frames[0].save(tmp_path / "glass" / "x.png", transparency=0)
    with pytest.raises(ValueError, match="x.png: transparency; expected one"):
        load(tmp_path / "glass")


@pytest.mark.parametrize("keep", [0, 20, 60])
def test_truncated_image_is_an_error_that_names_it(keep: int, tmp_path: Path) -> None:
    _save_images(tmp_path, GREY, "L")
    path = tmp_path / "1" / "004.png"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: cannot be decoded"):
        load(tmp_path)


def test_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no image; expected files with .png, .jpg"):
        load(tmp_path)


def test_folder_named_like_a_dataset_is_reached_as_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _save_images(tmp_path / "digits", GREY, "L")
    assert load("digits").shape == (8, 8)
    assert load("./digits").shape == load(Path("digits")).shape == (6, 5)


# MNIST and its kin


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> tuple[int, int, int]:
    """Lets the downloaded datasets be a few images of the test's own."""
    sizes = (7, 3, 4)
    for name in set(DATASETS) - {"digits", "frey-face"}:
        monkeypatch.setitem(sources.SIZES, name, sizes)
    return sizes


def _idx(images: NDArray[Any]) -> bytes:
    return struct.pack(">4I", 0x803, *images.shape) + images.tobytes()


def _write_idx(root: Path, folder: str = "MNIST") -> Path:
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(_idx(GREY[:10]))
    (raw / "t10k-images-idx3-ubyte").write_bytes(_idx(GREY[10:14]))
    return raw


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("name", "folder"),
    [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")],
)
def test_idx_files_are_split_by_position(name: str, folder: str, tmp_path: Path) -> None:
    raw = _write_idx(tmp_path, folder)
    dataset = load(name, root=tmp_path, download=False)
    assert np.array_equal(dataset.train.values, GREY[:7])
    assert np.array_equal(dataset.validation.values, GREY[7:10])
    assert np.array_equal(dataset.test.values, GREY[10:14])
    assert (dataset.name, dataset.source, dataset.divisor) == (name, str(raw), 255)
    assert dataset.split_rule == (
        "training file in its order: first 7 train, last 3 validation; test file: 4 test"
    )


@pytest.mark.usefixtures("small")
def test_root_defaults_to_the_environment_then_to_the_cache_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_idx(tmp_path)
    monkeypatch.setenv("AEVB_DATA", str(tmp_path))
    assert load("mnist", download=False).shape == (6, 5)
    monkeypatch.setenv("AEVB_DATA", "")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda app: tmp_path / f"cache-{app}")
    with pytest.raises(FileNotFoundError, match="mnist: not in root=.*cache-aevb; expected"):
        load("mnist", download=False)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-1], r"315 bytes .*shape '\[10, 6, 5\]' is invalid"),
        (lambda content: content + b"x", r"317 bytes .*shape '\[10, 6, 5\]' is invalid"),
        (lambda content: content[:16], "16 bytes"),
        (lambda content: content[:7], "7 bytes"),
        (lambda content: b"", "0 bytes"),
        (lambda content: b"\x1f\x8b" + content, "318 bytes .*AssertionError"),
        (lambda content: content[:3] + b"\x02" + content[4:], "316 bytes"),
        (lambda content: content[:2] + b"\x0d" + content[3:], "316 bytes"),
        (lambda content: content[:4] + b"\xff" * 12 + content[16:], "316 bytes"),
        (lambda content: content[:4] + bytes(4) + content[8:], "316 bytes"),
    ],
)
@pytest.mark.parametrize("download", [False, True])
def test_damaged_idx_file_is_an_error_that_names_it(
    change: Callable[[bytes], bytes], message: str, download: bool, tmp_path: Path
) -> None:
    path = _write_idx(tmp_path) / "train-images-idx3-ubyte"
    path.write_bytes(change(path.read_bytes()))
    expected = f"{re.escape(str(path))}: {message}.*; expected idx images: delete"
    with pytest.raises(ValueError, match=expected):
        load("mnist", root=tmp_path, download=download)


def test_idx_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = _write_idx(tmp_path) / "train-images-idx3-ubyte"
    with path.open("ab") as file:
        file.truncate(2**40)  # sparse: reading it would need a terabyte
    with pytest.raises(ValueError, match="1,099,511,627,776 bytes .*are not read"):
        load("mnist", root=tmp_path, download=False)


def test_idx_file_of_other_images_is_an_error(tmp_path: Path) -> None:
    _write_idx(tmp_path)
    message = "10 training and 4 test datapoints; expected 60000 and 10000"
    with pytest.raises(ValueError, match=message):
        load("mnist", root=tmp_path, download=False)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Address of a server of this computer for the files in `tmp_path`."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """Keeps the output of the tests clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("small")
def test_mnist_is_downloaded_with_its_checksums(
    served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import MNIST

    root = tmp_path / "root"
    resources = []
    for part, images in (("train", GREY[:10]), ("t10k", GREY[10:14])):
        labels = struct.pack(">2I", 0x801, len(images)) + bytes(len(images))
        for kind, content in (("images-idx3", _idx(images)), ("labels-idx1", labels)):
            packed = gzip.compress(content)
            (tmp_path / f"{part}-{kind}-ubyte.gz").write_bytes(packed)
            resources.append((f"{part}-{kind}-ubyte.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(MNIST, "mirrors", [served + "/"])
    monkeypatch.setattr(MNIST, "resources", [(name, "0" * 32) for name, _ in resources])
    with pytest.raises(
        FileNotFoundError, match="the download failed: .*File not found or corrupted"
    ):
        load("mnist", root=root)
    monkeypatch.setattr(MNIST, "resources", resources)
    dataset = load("mnist", root=root)
    assert dataset.sha256 == load("mnist", root=root, download=False).sha256
    assert np.array_equal(dataset.test.values, GREY[10:14])


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


# The Frey faces


@pytest.fixture
def faces(monkeypatch: pytest.MonkeyPatch) -> NDArray[np.uint8]:
    """Stand-ins for the frames, (1965, 560), which are made to have the expected checksum."""
    frames = (np.arange(1965 * 560) * 13 % 241).astype(np.uint8).reshape(1965, 560)
    monkeypatch.setattr(frey, "SHA256", hashlib.sha256(frames.tobytes()).hexdigest())
    return frames


def _save_faces(path: Path, frames: NDArray[Any], name: str = "ff") -> None:
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {name: frames.T}, do_compression=True)


@pytest.mark.parametrize("folder", ["", "FreyFace"])
def test_frey_faces_are_found_in_the_root_or_its_folder(
    folder: str, faces: NDArray[np.uint8], tmp_path: Path
) -> None:
    path = tmp_path / folder / "frey_rawface.mat"
    _save_faces(path, faces)
    dataset = load("frey-face", root=tmp_path, download=False)
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [1565, 200, 200]
    assert (dataset.shape, dataset.source, dataset.divisor) == ((28, 20), str(path), 255)
    assert _sorted_rows(_everything(dataset)) == _sorted_rows(faces)


def test_frey_faces_are_downloaded_once(
    faces: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, root = tmp_path / "server.mat", tmp_path / "root"
    _save_faces(server, faces)
    monkeypatch.setattr(frey, "URL", server.as_uri())
    dataset = load("frey-face", root=root)
    server.unlink()
    assert load("frey-face", root=root).sha256 == dataset.sha256
    assert os.listdir(root / "FreyFace") == ["frey_rawface.mat"]


def test_failed_or_wrong_download_of_the_frey_faces_leaves_nothing_behind(
    faces: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, root = tmp_path / "server.mat", tmp_path / "root"
    monkeypatch.setattr(frey, "URL", server.as_uri())
    with pytest.raises(FileNotFoundError, match="frey-face: not in .*the download failed"):
        load("frey-face", root=root)
    _save_faces(server, 255 - faces)
    with pytest.raises(ValueError, match="file://.*server.mat: pixels with SHA-256"):
        load("frey-face", root=root)
    server.write_bytes(server.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="file://.*server.mat: cannot be decoded"):
        load("frey-face", root=root)
    assert os.listdir(root / "FreyFace") == []


def test_frey_faces_with_other_pixels_are_an_error(
    faces: NDArray[np.uint8], tmp_path: Path
) -> None:
    path = tmp_path / "frey_rawface.mat"
    faces[1000, 300] ^= 1
    _save_faces(path, faces)
    message = f"{re.escape(str(path))}: pixels with SHA-256 .*; expected {frey.SHA256}"
    with pytest.raises(ValueError, match=message):
        load("frey-face", root=tmp_path)
    _save_faces(path, faces[:100])
    with pytest.raises(ValueError, match=r"ff of shape \(560, 100\) and dtype uint8; expected"):
        load("frey-face", root=tmp_path)
    _save_faces(path, faces, name="gg")
    with pytest.raises(ValueError, match="cannot be decoded .*'ff'.*expected .* variable ff"):
        load("frey-face", root=tmp_path)


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
