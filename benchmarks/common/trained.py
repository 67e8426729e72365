"""A trained VAE and test images, made once and read by every competitor.

python -m benchmarks.common.trained --data mnist --hidden 200 --steps 10000 --out FILE
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.publish import DRAFTS
from benchmarks.common.runs import Job, run_jobs

__all__ = ["LATENT_DIM", "Trained", "made", "read"]

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

    @property
    def largest_product(self) -> tuple[int, int]:
        """Inner size and columns of the decoder's largest product."""
        columns, inner = self.decoder[2].shape
        return int(inner), int(columns)


def read(path: Path) -> Trained:
    """What :func:`main` wrote."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    images = arrays.pop("images")
    return Trained(images.reshape(len(images), -1), images.shape[1:], arrays)


def made(data: str, hidden: int, steps: int) -> Path:
    """The file of a VAE, named by what it depends on, and made in a process if it is not there."""
    path = DRAFTS / f"vae-{data}-{hidden}-{steps}.npz"
    if not path.exists():
        DRAFTS.mkdir(parents=True, exist_ok=True)
        arguments = ["--data", data, "--hidden", str(hidden), "--steps", str(steps)]
        arguments += ["--out", str(path)]
        job = Job({"row": "training"}, "benchmarks.common.trained", arguments)
        (result,) = run_jobs([job], 1, path.with_suffix(".jsonl"))
        if "failure" in result:
            raise SystemExit(f"no VAE: {result['failure']}")
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--hidden", type=int, default=200)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)

    from aevb import data, inference, models

    dataset = data.load(options.data, binarize="dynamic")
    vae = models.VAE(dataset.shape, LATENT_DIM, [options.hidden])
    epochs = math.ceil(options.steps / (len(dataset.train) // BATCH))
    run = inference.fit(
        vae, dataset.train, epochs=epochs, batch_size=BATCH, seed=0, device="cpu", progress=False
    )
    images = dataset.test.evaluation(limit=_MOST_IMAGES).numpy().astype(np.float32)
    weights = {name: weight.detach().numpy() for name, weight in vae.named_parameters()}
    partial = options.out.with_suffix(".partial.npz")
    np.savez(partial, images=images, **weights)
    partial.replace(options.out)
    bound = run.history[-1]["train_objective"]
    print(json.dumps({"bound": bound, "brief": f"{bound:.2f} nats after {epochs} epochs"}))


if __name__ == "__main__":
    main()
