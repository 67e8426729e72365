"""Run folders: what a training run leaves behind, and how it is taken up again."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from aevb import data as datasets
from aevb import inference, models
from aevb.cli.files import write_json
from aevb.data.sources import Source
from aevb.inference.process.limits import refuse_below
from aevb.models import Likelihood
from aevb.models.composed import ComposedModel

if TYPE_CHECKING:
    from aevb import evaluation

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
Split = Literal["train", "validation", "test", "all"]


@dataclass(frozen=True)
class SavedRun:
    """A run folder, opened to be worked with: by the commands, and by :func:`aevb.open`.

    Where a method takes ``source``, that is ``"train"``, ``"validation"``, ``"test"``, ``"all"``,
    or other data as :func:`aevb.data.load` takes them, prepared as the run's own were
    (:meth:`aevb.data.Dataset.new`).

    Attributes:
        folder: Where it is.
        model: The model with the run's weights: the best ones if it stopped early, else the last.
        dataset: The data that it was trained on.
        epoch: Completed epochs.
        device: Where the model is.
        seed: Of everything random that is done with it.
        history: One row of metrics per logged epoch, as in ``metrics.csv``.
    """

    folder: Path
    model: models.LatentVariableModel
    dataset: datasets.Dataset
    epoch: int
    device: torch.device
    seed: int
    history: list[dict[str, Any]] = field(default_factory=list)

    def __repr__(self) -> str:
        """One line: folder, model, data and epochs."""
        name = type(self.model).__name__
        return f"SavedRun('{self.folder}': {name} of {self.dataset!r}, {self.epoch} epochs)"

    @property
    def data(self) -> datasets.Dataset:
        """The data that it was trained on."""
        return self.dataset

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

    def datapoints(
        self,
        source: Source = "test",
        limit: int | None = None,
        table: datasets.Table | None = None,
    ) -> datasets.Datapoints:
        """What the model sees of a split or of other data, on the device, and which rows they are.

        Args:
            source: See above.
            limit: Only the first so many.
            table: How a table of other data is read; by default as the run's own was.

        Raises:
            ValueError: If other data cannot be read, or are none that the model admits.
        """
        if isinstance(source, str) and source in get_args(Split):
            found = self.dataset.datapoints(source, limit)
            return found._replace(values=found.values.to(self.device))
        new = self.dataset.new(source, table)
        new = new.first(limit)
        values = new.evaluation().to(self.device)
        self.model.check_data(values)
        return datasets.Datapoints(values, new.indices, new.ids, np.repeat("new", len(new)))

    def values(self, source: Source = "test", limit: int | None = None) -> Tensor:
        """The values of :meth:`datapoints`, ``(B, *shape)``."""
        return self.datapoints(source, limit).values

    def embed(self, source: Source = "test", limit: int | None = None) -> evaluation.Embedding:
        """Posterior means and scales; see :func:`aevb.evaluation.embed`."""
        from aevb import evaluation

        return evaluation.embed(self.at_means.guide, self.values(source, limit), seed=self.seed)

    def log_evidence(
        self, source: Source = "test", limit: int | None = None, **settings: Any
    ) -> inference.ImportanceEvidence:
        """Importance-sampled log p(x) of each datapoint, with what speaks against it.

        Args:
            source: See above.
            limit: Only the first so many.
            settings: Of :func:`aevb.inference.importance_evidence`, as ``num_samples``.
        """
        model, x = self.at_means, self.values(source, limit)
        settings = {"seed": self.seed, **settings}
        return inference.importance_evidence(model.model, model.guide, x, **settings)

    def log_prob(
        self, source: Source = "test", limit: int | None = None, **settings: Any
    ) -> Tensor:
        """The estimates of :meth:`log_evidence` alone, ``(B,)``, in nats."""
        return self.log_evidence(source, limit, **settings).log_evidence

    def compare(
        self, source: Source = "test", limit: int | None = 64, **settings: Any
    ) -> evaluation.Trial:
        """Put the posterior of the first datapoints on trial.

        Args:
            source: See above.
            limit: Only the first so many.
            settings: Of :func:`aevb.evaluation.compare`.
        """
        from aevb import evaluation

        settings = {"seed": self.seed, **settings}
        return evaluation.compare(self.at_means, self.values(source, limit), **settings)

    def sample(self, num: int = 64) -> Tensor:
        """Draws of x from the model, ``(num, *shape)``, noise of the likelihood included."""
        from aevb import evaluation

        check(num=num)
        return evaluation.prior_samples(self.at_means.model, num, self.seed)

    def reconstruct(self, source: Source = "test", limit: int | None = None) -> Tensor:
        """E[x|z] at one draw of z from the guide for each datapoint, ``(B, *shape)``."""
        from aevb import evaluation

        model, x = self.at_means, self.values(source, limit)
        return evaluation.reconstructions(model.model, model.guide, x, self.seed)


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
    dataset = datasets.load(
        settings.data,
        root=data_root or settings.data_root,
        binarize=settings.binarize,
        seed=settings.seed,
        kind=settings.data_kind,
        table=settings.table,
    )
    model, dataset = build_model(settings.model, dataset)
    model = model.to(target)
    try:
        counters, rows = state["counters"], state["history"]
        best = counters["best"] if counters["stopped"] in ("finished", "patience") else {}
        model.load_state_dict(best["weights"] if best else state["weights"])
        epoch = int(rows[-1]["epoch"]) if rows else 0
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the checkpoint of a run ({error!r:.200})") from error
    return SavedRun(run, model.eval(), dataset, epoch, target, seed, list(rows))


def build_model(
    make: Callable[[tuple[int, ...]], models.LatentVariableModel], dataset: datasets.Dataset
) -> tuple[models.LatentVariableModel, datasets.Dataset]:
    """The model for a dataset, in float64 if the data are, and the data as it understands them.

    8-bit values, which are pixels to most likelihoods, are counts to a likelihood of counts.

    Args:
        make: Called with the shape of one datapoint.
        dataset: What it is for.
    """
    model = make(dataset.shape)
    likelihoods = [part for part in getattr(model, "parts", ()) if isinstance(part, Likelihood)]
    if likelihoods and likelihoods[0].support is constraints.nonnegative_integer:
        dataset = dataset.as_counts()
    double = dataset.train.values.dtype == torch.float64
    return (model.double() if double else model), dataset


def write_record(folder: Path, dataset: datasets.Dataset, device: torch.device) -> None:
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
