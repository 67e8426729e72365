"""Run state on disk: one safetensors file, written atomically, read without pickle."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["load_checkpoint", "save_checkpoint"]

_FORMAT = "aevb-checkpoint-1"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a tree of tensors and plain values; a crash leaves the old file or the new one.

    Args:
        path: File to create or replace.
        state: Nested dicts, lists and tuples of tensors, numbers, strings, booleans and None.

    Raises:
        TypeError: If a leaf is none of these; names the place of it in the tree.

    Example:
        >>> import tempfile, torch
        >>> path = Path(tempfile.mkdtemp()) / "state.safetensors"
        >>> save_checkpoint(path, {"weights": torch.ones(2), "epoch": 3, "betas": (0.9, 0.999)})
        >>> load_checkpoint(path)
        {'weights': tensor([1., 1.]), 'epoch': 3, 'betas': (0.9, 0.999)}
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_encode(state, "state", tensors))
    partial = path.with_name(f".{path.name}.partial")
    save_file(tensors, partial, metadata={"format": _FORMAT, "tree": tree})
    _flush(partial)
    partial.replace(path)
    _flush(path.parent)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what :func:`save_checkpoint` wrote.

    Args:
        path: The file.
        device: Where the tensors go.

    Returns:
        The same tree.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is truncated, corrupt or of another format.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "state.safetensors"
        >>> save_checkpoint(path, {"step": 3, "weights": [torch.ones(2)]})
        >>> load_checkpoint(path)
        {'step': 3, 'weights': [tensor([1., 1.])]}
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path}: truncated or corrupt checkpoint ({error})") from error
    if metadata.get("format") != _FORMAT:
        raise ValueError(f"{path}: expected format {_FORMAT!r}; got {metadata.get('format')!r}")
    try:
        state: dict[str, Any] = _decode(json.loads(metadata["tree"]), tensors)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: truncated or corrupt checkpoint ({error!r:.200})") from error
    return state


def _encode(node: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """The JSON form of ``node``; tensors are moved to ``tensors`` under their place."""
    if isinstance(node, Tensor):
        # safetensors refuses tensors that share memory, as tied weights do; the number tells
        # apart places that read alike, such as keys 1 and "1"
        name = f"{place} #{len(tensors)}"
        tensors[name] = node.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(node, dict):
        for key in node:
            if not (key is None or isinstance(key, bool | int | float | str)):
                raise TypeError(f"cannot save {place}: its key {key!r} is no plain value")
        # as pairs, because JSON keys are strings and an optimizer's are integers
        items = [[key, _encode(value, f"{place}.{key}", tensors)] for key, value in node.items()]
        return {"dict": items}
    if isinstance(node, list | tuple):
        items = [_encode(value, f"{place}.{i}", tensors) for i, value in enumerate(node)]
        return {"tuple" if isinstance(node, tuple) else "list": items}
    if node is None or isinstance(node, bool | int | float | str):
        return node
    raise TypeError(
        f"cannot save {place}: {type(node).__name__} is neither tensor nor plain value"
    )


def _decode(node: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(node, dict):
        return node
    ((kind, value),) = node.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: _decode(child, tensors) for key, child in value}
    children = [_decode(child, tensors) for child in value]
    return tuple(children) if kind == "tuple" else children


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
