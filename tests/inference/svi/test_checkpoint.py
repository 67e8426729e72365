"""Checkpoints: what goes in comes out, a crash costs nothing, and nothing is unpickled."""

import io
import math
import os
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from aevb.inference import load_checkpoint, save_checkpoint

OLD = {"weights": torch.arange(3.0), "epoch": 1}
NEW = {"weights": torch.arange(5.0), "epoch": 2}

TREES: dict[str, dict[Any, Any]] = {
    "nothing": {},
    "nested containers": {"a": {"b": {"c": [1, [2, [3]]]}, "empty": {}}, "none": []},
    "integer keys": {"state": {0: {"step": torch.tensor(3.0)}, 1: {"step": torch.tensor(4.0)}}},
    "other plain keys": {None: 1, False: 2, 0.5: 3, -1: 4},
    "keys that read alike": {
        1: torch.tensor([1.0]),
        "1": torch.tensor([2.0]),
        "a": {"b": torch.tensor([3.0])},
        "a.b": torch.tensor([4.0]),
    },
    "tuples": {"betas": (0.9, 0.999), "mixed": [(1, [2, (3,)]), (), []]},
    "plain values": {"none": None, "yes": True, "no": False, "one": 1, "big": -(2**80)},
    "floats": {"third": 1 / 3, "tiny": 5e-324, "huge": 1.7e308, "zero": 0.0, "negative": -0.0},
    "floats that are not finite": {"up": math.inf, "down": -math.inf, "nan": math.nan},
    "strings": {"": "", "unicode": "η → ∞", "escapes": 'a"b\\c\n\x00', "key.with.dots": "x"},
    "scalars of every kind": {
        "float": torch.tensor(2.5),
        "int": torch.tensor(7),
        "bool": torch.tensor(True),
    },
    "tensors of odd shapes": {"none": torch.empty(0, 3), "ones": torch.ones(1, 1, 1, 1)},
    "tensors that are not finite": {"x": torch.tensor([math.nan, math.inf, -math.inf, -0.0])},
    "tensors that are not contiguous": {"t": torch.arange(6).reshape(2, 3).mT},
}
DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int8,
    torch.uint8,
    torch.bool,
]
# What may stop a write, from the first byte to the last.
CRASHES = ["before the first byte", "in the middle of the file", "before the flush", "at the swap"]


def identical(a: Any, b: Any) -> bool:
    """Equal to the last bit, types of containers, keys and values included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        same_kind = (a.dtype, a.shape) == (b.dtype, b.shape)
        return same_kind and torch.equal(_bits(a), _bits(b))
    if isinstance(a, dict):
        keys = identical(list(a), list(b))
        return keys and all(identical(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(identical, a, b))
    return repr(a) == repr(b)


def round_trip(state: dict[Any, Any], folder: Path) -> dict[Any, Any]:
    """What is read after ``state`` was written."""
    save_checkpoint(folder / "state.safetensors", state)
    return load_checkpoint(folder / "state.safetensors")


def crash(*_: object, **__: object) -> NoReturn:
    """Stand in for a call that never returns."""
    raise OSError("no space left on device")


def write_half_and_crash(tensors: dict[str, Tensor], path: Path, **kwargs: Any) -> NoReturn:
    """Stand in for a write that is cut off."""
    whole = safetensors.torch.save(tensors, **kwargs)
    path.write_bytes(whole[: len(whole) // 2])
    crash()


def break_writing(where: str, patch: pytest.MonkeyPatch) -> None:
    """Make the next write fail at one of ``CRASHES``."""
    module = "aevb.inference.svi.checkpoint"
    replacements: dict[str, tuple[Any, str, Callable[..., Any]]] = {
        CRASHES[0]: (module, "save_file", crash),
        CRASHES[1]: (module, "save_file", write_half_and_crash),
        CRASHES[2]: (os, "fsync", crash),
        CRASHES[3]: (Path, "replace", crash),
    }
    target, name, replacement = replacements[where]
    if isinstance(target, str):
        patch.setattr(f"{target}.{name}", replacement)
    else:
        patch.setattr(target, name, replacement)


@pytest.mark.parametrize("tree", list(TREES))
def test_tree_comes_back_to_the_last_bit(tree: str, tmp_path: Path) -> None:
    assert identical(round_trip(TREES[tree], tmp_path), TREES[tree])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensor_of_every_dtype_comes_back_to_the_last_bit(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    values = torch.tensor([[0.0, 1.0, 2.7], [3.1, 100.0, 0.1]]).to(dtype)
    state = {"matrix": values, "scalar": values[1, 0].clone()}
    assert identical(round_trip(state, tmp_path), state)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ([1], (1,)),
        ({1: 0}, {"1": 0}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (torch.zeros(2), torch.zeros(2, 1)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (torch.tensor(0.0), torch.tensor(-0.0)),
        (torch.ones(2), torch.ones(2) + 2**-23),
    ],
)
def test_comparison_tells_near_misses_apart(a: Any, b: Any) -> None:
    assert identical(a, a)
    assert not identical(a, b)


def test_tensors_that_share_memory_come_back_equal(tmp_path: Path) -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    tied = nn.Sequential(first, second).state_dict()
    base = torch.arange(6.0)
    state: dict[str, Any] = {"tied": dict(tied), "whole": base, "part": base[2:4]}
    assert state["tied"]["0.weight"].data_ptr() == state["tied"]["1.weight"].data_ptr()
    assert identical(round_trip(state, tmp_path), state)


def test_parameters_come_back_as_tensors_without_gradient(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.ones(2))
    loaded = round_trip({"weight": weight}, tmp_path)["weight"]
    assert identical(loaded, weight.detach())
    assert not loaded.requires_grad


def test_optimizer_state_loads_into_an_optimizer(tmp_path: Path) -> None:
    weights = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer, twin = (torch.optim.Adam(weights, lr=0.1) for _ in range(2))
    weights[0].square().sum().backward()
    optimizer.step()
    twin.load_state_dict(round_trip({"optimizer": optimizer.state_dict()}, tmp_path)["optimizer"])
    assert identical(twin.state_dict(), optimizer.state_dict())


def test_saving_replaces_the_file_and_leaves_no_other(tmp_path: Path) -> None:
    round_trip(OLD, tmp_path)
    assert identical(round_trip(NEW, tmp_path), NEW)
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


@pytest.mark.parametrize("where", CRASHES)
def test_crash_while_writing_leaves_the_old_file(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.safetensors"
    save_checkpoint(path, OLD)
    with monkeypatch.context() as patch:
        break_writing(where, patch)
        with pytest.raises(OSError, match="no space left"):
            save_checkpoint(path, NEW)
    assert identical(load_checkpoint(path), OLD)


@pytest.mark.parametrize("where", CRASHES)
def test_crash_of_the_first_write_leaves_no_file(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.safetensors"
    with monkeypatch.context() as patch:
        break_writing(where, patch)
        with pytest.raises(OSError, match="no space left"):
            save_checkpoint(path, NEW)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_checkpoint(path)


@pytest.mark.parametrize("where", CRASHES)
def test_saving_works_again_after_a_crash(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        break_writing(where, patch)
        with pytest.raises(OSError, match="no space left"):
            save_checkpoint(tmp_path / "state.safetensors", OLD)
    assert identical(round_trip(NEW, tmp_path), NEW)
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_writing_over_the_old_file_would_lose_it(tmp_path: Path) -> None:
    """The broken twin of the crash tests: without the swap, the old state is gone."""
    path = tmp_path / "state.safetensors"
    save_checkpoint(path, OLD)
    with pytest.raises(OSError, match="no space left"):
        write_half_and_crash({"weights": torch.ones(5)}, path)
    with pytest.raises(ValueError, match="truncated or corrupt"):
        load_checkpoint(path)


def test_content_is_flushed_before_the_swap_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to see which file is flushed")
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        fsync(descriptor)

    def watched_replace(self: Path, target: Path) -> Path:
        events.append("swap")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    save_checkpoint(tmp_path / "state.safetensors", OLD)
    assert events == [".state.safetensors.partial", "swap", tmp_path.name]


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*absent\.safetensors"):
        load_checkpoint(tmp_path / "absent.safetensors")


def test_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 60, -100, -1])
def test_truncated_file_is_refused(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_checkpoint(path, {"weights": torch.arange(1000.0)})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"state\.safetensors: truncated or corrupt checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "content", [b"hello", bytes(1000), b"\xff" * 1000, b"PK\x03\x04" + bytes(500)]
)
def test_file_of_another_kind_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="truncated or corrupt checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "aevb-checkpoint-0"}])
def test_safetensors_of_another_program_are_refused(
    metadata: dict[str, str] | None, tmp_path: Path
) -> None:
    path = tmp_path / "state.safetensors"
    safetensors.torch.save_file({"weights": torch.ones(2)}, path, metadata=metadata)
    found = None if metadata is None else metadata["format"]
    with pytest.raises(ValueError, match=f"expected format 'aevb-checkpoint-1'; got {found!r}"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": object()}, r"cannot save state\.a: object is neither"),
        ({"a": [0, {"b": {1, 2}}]}, r"cannot save state\.a\.1\.b: set is neither"),
        ({"a": (1, (2, b"x"))}, r"cannot save state\.a\.1\.1: bytes is neither"),
        ({0: {"f": math.sqrt}}, r"cannot save state\.0\.f: builtin_function_or_method is neither"),
        ({"a": np.ones(2)}, r"cannot save state\.a: ndarray is neither"),
        ({"a": torch.float32}, r"cannot save state\.a: dtype is neither"),
        ({"a": {(1, 2): 3}}, r"cannot save state\.a: its key \(1, 2\) is no plain value"),
    ],
)
def test_value_that_cannot_be_saved_is_named_by_its_place(
    state: dict[Any, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match=message):
        save_checkpoint(tmp_path / "state.safetensors", state)


def test_value_that_cannot_be_saved_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_checkpoint(path, OLD)
    with pytest.raises(TypeError, match="cannot save"):
        save_checkpoint(path, {**NEW, "bad": object()})
    assert identical(load_checkpoint(path), OLD)
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_loading_calls_nothing_that_unpickles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pickled = tmp_path / "state.safetensors", io.BytesIO()
    save_checkpoint(path, TREES["keys that read alike"])
    torch.save({"weights": torch.ones(2)}, pickled)

    def refuse(name: str, *_: object, **__: object) -> NoReturn:
        raise AssertionError(f"{name} was called")

    for module, names in (
        (pickle, ("load", "loads", "Unpickler", "_Unpickler")),
        (torch, ("load",)),
        (np, ("load",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, partial(refuse, f"{module.__name__}.{name}"))
    assert identical(load_checkpoint(path), TREES["keys that read alike"])
    with pytest.raises(AssertionError, match=r"torch\.load was called"):  # the wires are live
        torch.load(pickled)


def test_pickle_in_the_place_of_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    path, proof = tmp_path / "state.safetensors", tmp_path / "executed"
    # protocol 0: "call pathlib.Path.touch on this path"
    code = f"cpathlib\nPath.touch\n(cpathlib\nPath\n(S'{proof}'\ntRtR."
    path.write_bytes(b"\x80\x04" + code.encode())
    pickle.loads(path.read_bytes())
    assert proof.exists()  # it would have run
    proof.unlink()
    with pytest.raises(ValueError, match="truncated or corrupt checkpoint"):
        load_checkpoint(path)
    assert not proof.exists()


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
