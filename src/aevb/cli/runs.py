"""Run folders: what a training run leaves behind, and how it is taken up again."""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from aevb import data, inference, models
from aevb.cli.files import write_json
from aevb.inference.process.limits import refuse_below
from aevb.models.composed import ComposedModel

__all__ = [
    "CONFIG",
    "PAGE",
    "RECORD",
    "REPORT",
    "Device",
    "SavedRun",
    "Split",
    "build_model",
    "check",
    "open_run",
    "write_record",
]

CONFIG = "config.yaml"
RECORD = "record.json"
PAGE = "index.html"
REPORT = ("report.html", "report.json", "draws.nc")

Device = Literal["auto", "cpu", "cuda"]
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class SavedRun:
    """A run folder, opened to be worked with.

    Attributes:
        folder: Where it is.
        model: The model with the run's weights: the best ones if it stopped early, else the last.
        dataset: The data that it was trained on.
        epoch: Completed epochs.
        device: Where the model is.
        seed: Of everything random that is done with it.
    """

    folder: Path
    model: models.LatentVariableModel
    dataset: data.Dataset
    epoch: int
    device: torch.device
    seed: int

    @cached_property
    def at_means(self) -> models.LatentVariableModel:
        """The model at the means of the weights' posterior, where weights are latent."""
        model = self.model
        return model.at_mean_weights() if isinstance(model, ComposedModel) else model

    @property
    def weights(self) -> dict[str, str]:
        """What :attr:`at_means` made of the weights, for records."""
        changed = self.at_means is not self.model
        return {"weights": "means of their posterior"} if changed else {}

    def values(self, split: Split, limit: int | None) -> Tensor:
        """The first so many datapoints of a split, or all, ``(B, *shape)``, on the device."""
        part: data.Split = getattr(self.dataset, split)
        return part.evaluation(limit).to(self.device)


def open_run(
    settings: Any,
    run: Path,
    seed: int = 0,
    device: Device = "auto",
    data_root: Path | None = None,
) -> SavedRun:
    """Open a run: rebuild its model, load its weights and its data.

    Args:
        settings: Its configuration, with the objects built.
        run: Run folder; results are written into it.
        seed: Of everything random.
        device: Where to compute; auto takes CUDA where there is one.
        data_root: Folder with the data, if it has moved.

    Raises:
        FileNotFoundError: If the folder holds no checkpoint.
        ValueError: If the checkpoint is corrupt.
    """
    target = inference.pick_device(device)
    path = run / inference.CHECKPOINT
    state = inference.load_checkpoint(path, target)
    dataset = data.load(
        settings.data,
        root=data_root or settings.data_root,
        binarize=settings.binarize,
        seed=settings.seed,
    )
    model = build_model(settings.model, dataset).to(target)
    try:
        counters, rows = state["counters"], state["history"]
        best = counters["best"] if counters["stopped"] in ("finished", "patience") else {}
        model.load_state_dict(best["weights"] if best else state["weights"])
        epoch = int(rows[-1]["epoch"]) if rows else 0
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the checkpoint of a run ({error!r:.200})") from error
    return SavedRun(run, model.eval(), dataset, epoch, target, seed)


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


# Refuse numbers below 1, by name.
check = partial(refuse_below, 1)
