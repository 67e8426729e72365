"""A trained VAE and test images, made once and read by every competitor."""

import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.common.publish import DRAFTS
from benchmarks.common.runs import Job, run_jobs
from benchmarks.common.worker import run_worker

__all__ = ["LATENT_DIM", "Trained", "made", "read", "test_images"]

Array = np.ndarray[Any, Any]

LATENT_DIM = 20
BATCH = 100
_MOST_IMAGES = 1_000


@dataclass(frozen=True)
class Trained:
    """VAE pixels-hidden-20, tanh, Bernoulli.

    Attributes:
        images: Binary test images, ``(N, pixels)``, float32.
        shape: Of one image.
        weights: By name, in order of use: encoder, then decoder.
    """

    images: Array
    shape: tuple[int, ...]
    weights: dict[str, Array]

    @property
    def decoder(self) -> tuple[Array, Array, Array, Array]:
        """Weight ``(out, in)`` and bias of the hidden layer, and those of the logits."""
        first, second, third, fourth = list(self.weights.values())[-4:]
        return first, second, third, fourth

    @property
    def multiply_adds(self) -> int:
        """Of the matrix products that decode one latent vector."""
        hidden, _, logits, _ = self.decoder
        return int(hidden.size + logits.size)


def read(path: Path) -> Trained:
    """What the process of :func:`made` wrote."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    images = arrays.pop("images")
    return Trained(images.reshape(len(images), -1), images.shape[1:], arrays)


def made(data: str, hidden: int, steps: int) -> Path:
    """The file of a VAE, named by what it depends on, and made in a process if it is not there."""
    path = DRAFTS / f"vae-{data}-{hidden}-{steps}.npz"
    if not path.exists():
        DRAFTS.mkdir(parents=True, exist_ok=True)
        settings = {"data": data, "hidden": hidden, "steps": steps, "out": str(path)}
        job = Job({"row": "training"}, "benchmarks.common.trained", settings)
        (result,) = run_jobs([job], 1, path.with_suffix(".jsonl"))
        if "failure" in result:
            raise SystemExit(f"no VAE: {result['failure']}")
    return path


def test_images(trained: Trained, count: int) -> Array:
    """The first of them, ``(count, pixels)``."""
    if len(trained.images) < count:
        raise ValueError(f"datapoints: there are {len(trained.images)} test images")
    return trained.images[:count]


def _train(settings: SimpleNamespace) -> dict[str, Any]:
    """Train and write."""
    from aevb import data, inference, models

    dataset = data.load(settings.data, binarize="dynamic")
    vae = models.VAE(dataset.shape, LATENT_DIM, [settings.hidden])
    epochs = math.ceil(settings.steps / (len(dataset.train) // BATCH))
    run = inference.fit(
        vae, dataset.train, epochs=epochs, batch_size=BATCH, seed=0, device="cpu", progress=False
    )
    images = dataset.test.evaluation(limit=_MOST_IMAGES).numpy().astype(np.float32)
    weights = {name: weight.detach().numpy() for name, weight in vae.named_parameters()}
    out = Path(settings.out)
    partial = out.with_suffix(".partial.npz")
    np.savez(partial, images=images, **weights)
    partial.replace(out)
    bound = run.history[-1]["train_objective"]
    return {"bound": bound, "brief": f"{bound:.2f} nats after {epochs} epochs"}


if __name__ == "__main__":
    run_worker(_train)
