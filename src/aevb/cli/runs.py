"""Run folders: what a training run leaves behind, and how it is taken up again."""

import json
import math
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from aevb import data, inference, models

__all__ = [
    "CONFIG",
    "PICTURES",
    "REPORT",
    "SavedRun",
    "as_json",
    "build_model",
    "destination",
    "open_run",
    "refuse_read_only",
    "replace_whole",
    "save_weights",
    "set_reports_aside",
    "write_json",
    "write_record",
    "write_text",
]

CONFIG = "config.yaml"
RECORD = "record.json"
WEIGHTS = "weights.safetensors"
REPORT = ("report.html", "report.json", "draws.nc")
PICTURES = (".png", ".jpg", ".jpeg", ".pdf", ".svg")


@dataclass
class SavedRun:
    """A run folder, opened for evaluation.

    Attributes:
        folder: Where it is.
        settings: The resolved arguments of ``aevb train``, as ``config.yaml`` holds them, with the
            objects built.
        model: The model with the run's weights: the best ones if it stopped early, else the last.
        dataset: The data that it was trained on.
        epoch: Completed epochs.
        stopped: As in :class:`aevb.inference.Run`; None if the run was cut off and may be resumed.
    """

    folder: Path
    settings: Any
    model: models.LatentVariableModel
    dataset: data.Dataset
    epoch: int
    stopped: str | None


def open_run(
    folder: Path, settings: Any, data_root: Path | None, device: torch.device
) -> SavedRun:
    """Rebuild the model of a run and load its weights.

    Args:
        folder: Run folder.
        settings: Its instantiated configuration.
        data_root: Where the data are now; None for where they were.
        device: Where the model goes.

    Raises:
        FileNotFoundError: If the folder holds no checkpoint.
        ValueError: If the checkpoint is corrupt.
    """
    path = folder / inference.CHECKPOINT
    state = inference.load_checkpoint(path, device)
    dataset = data.load(
        settings.data,
        root=data_root or settings.data_root,
        binarize=settings.binarize,
        seed=settings.seed,
    )
    model = build_model(settings.model, dataset).to(device)
    try:
        counters, rows = state["counters"], state["history"]
        best = counters["best"] if counters["stopped"] in ("finished", "patience") else {}
        model.load_state_dict(best["weights"] if best else state["weights"])
        epoch = int(rows[-1]["epoch"]) if rows else 0
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the checkpoint of a run ({error!r:.200})") from error
    return SavedRun(folder, settings, model.eval(), dataset, epoch, counters["stopped"])


def build_model(
    make: Callable[[tuple[int, ...]], models.LatentVariableModel], dataset: data.Dataset
) -> models.LatentVariableModel:
    """The model for a dataset, in float64 if the data are.

    Args:
        make: Called with the shape of one datapoint.
        dataset: What it is for.
    """
    model = make(dataset.shape)
    double = dataset.train.values.dtype == torch.float64
    return model.double() if double else model


def save_weights(folder: Path, model: torch.nn.Module) -> None:
    """Write the weights alone, for other programs to load."""
    # cloned, because safetensors refuses weights that share memory
    tensors = {name: value.contiguous().clone() for name, value in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)


def write_record(folder: Path, dataset: data.Dataset, device: torch.device) -> None:
    """Write what the run was made of and with: data, split, versions, machine."""
    packages = ("aevb", "torch", "torchvision", "pyro-ppl", "arviz", "numpy", "scikit-learn")
    versions = {name: metadata.version(name) for name in packages}
    machine = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }
    record = {"data": dataset.record(), "versions": versions, "machine": machine}
    write_json(folder / RECORD, record)


def destination(path: Path, *suffixes: str) -> Path:
    """Where a file goes whose writer insists on a suffix; its folder is made.

    Args:
        path: As it was asked for.
        suffixes: Those that are left as they are; the first one is appended to any other.

    Raises:
        OSError: If the folder cannot be made or written to.
    """
    path = path if path.suffix in suffixes else path.with_name(path.name + suffixes[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_read_only(path.parent)
    return path


def refuse_read_only(folder: Path) -> None:
    """Say before the work that its results could not be written.

    Raises:
        PermissionError: If the folder cannot be written to.
    """
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder}: cannot be written to, and the results belong there")


def set_reports_aside(folder: Path, epoch: int) -> None:
    """Rename the report on weights that training has changed since.

    Args:
        folder: Run folder.
        epoch: Of those weights.
    """
    for name in REPORT:
        path = folder / name
        if path.exists():
            path.replace(path.with_name(f"{path.stem}-epoch{epoch}{path.suffix}"))


def as_json(value: Any, **options: Any) -> str:
    """JSON that any parser reads: numbers that are not finite are null.

    Args:
        value: Of dictionaries, lists, strings and numbers.
        options: Of :func:`json.dumps`.

    Example:
        >>> as_json({"error": float("nan"), "gaps": [1.0, float("inf")]})
        '{"error": null, "gaps": [1.0, null]}'
    """
    return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list | tuple) else value


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON; see :func:`as_json`."""
    write_text(path, as_json(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a whole file or leave the old one, whatever happens in between."""
    replace_whole(path, lambda partial: partial.write_text(text))


def replace_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let something write a file that takes the place of the old one only when it is whole."""
    partial = path.with_name(f".{path.name}.partial")
    write(partial)
    with partial.open("r+b") as file:
        os.fsync(file.fileno())
    partial.replace(path)
