"""What every competitor trains: sizes, data, order, initial weights, arithmetic.

Only NumPy is imported here, so that each competitor starts from the same arrays.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

__all__ = [
    "EIGHT_SCHOOLS",
    "LEARNING_RATE",
    "PROGRAMS",
    "Network",
    "Workload",
    "find_workload",
    "initial_weights",
    "make_data",
    "make_order",
]

Array = np.ndarray[Any, Any]

LEARNING_RATE = 1e-3
NUM_PIXELS = 784

# Rubin (1981), Estimation in parallel randomized experiments: effects and standard errors.
EIGHT_SCHOOLS = (
    np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], np.float32),
    np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], np.float32),
)


@dataclass(frozen=True)
class Network:
    """Tanh layers of the widths ``hidden``, then one linear head for each of ``heads``."""

    inputs: int
    hidden: tuple[int, ...]
    heads: tuple[int, ...]

    def layers(self) -> Iterator[tuple[str, int, int]]:
        """Name, fan-in and fan-out of every linear layer, in order of use."""
        for number, (fan_in, fan_out) in enumerate(pairwise((self.inputs, *self.hidden))):
            yield f"hidden{number}", fan_in, fan_out
        for number, fan_out in enumerate(self.heads):
            yield f"head{number}", self.hidden[-1], fan_out


# Two layers as in Importance Weighted Autoencoders (Burda et al., 2016), section 5.
_NETWORKS = {
    "vae": {
        "encoder": Network(NUM_PIXELS, (400,), (20, 20)),
        "decoder": Network(20, (400,), (NUM_PIXELS,)),
    },
    "two-layer": {
        "encoder1": Network(NUM_PIXELS, (200, 200), (100, 100)),
        "encoder2": Network(100, (100, 100), (50, 50)),
        "decoder2": Network(50, (100, 100), (100, 100)),
        "decoder1": Network(100, (200, 200), (NUM_PIXELS,)),
    },
}
_TITLES = {
    "vae": "VAE 784-400-20, tanh, Bernoulli",
    "two-layer": "Two stochastic layers (100, 50), deterministic 200-200 and 100-100",
    "eight-schools": "Eight schools, non-centred, AutoNormal",
    "logistic": "Logistic regression 100,000 x 50, subsampled, AutoNormal",
}
PROGRAMS = ("vae-100", "vae-1000", "two-layer-100", "eight-schools", "logistic")


@dataclass(frozen=True)
class Workload:
    """One program at one batch size.

    Attributes:
        name: As on the command line, such as ``vae-100``.
        kind: Which program.
        batch: Datapoints of one step.
        num_data: Datapoints in all.
        features: Width of a datapoint, 0 for the eight schools.
    """

    name: str
    kind: str
    batch: int
    num_data: int
    features: int

    @property
    def title(self) -> str:
        """For a heading."""
        rows = "" if self.kind == "eight-schools" else f", batch {self.batch:,}"
        return _TITLES[self.kind] + rows

    @property
    def check_steps(self) -> int:
        """Steps after which losses are compared: small programs need more, and make them fast."""
        return 200 if self.networks else 2000

    @property
    def networks(self) -> dict[str, Network]:
        """By name; none in the models without networks."""
        return _NETWORKS.get(self.kind, {})

    @property
    def loss_unit(self) -> float:
        """What a step's loss is divided by to be nats per datapoint."""
        if self.kind == "eight-schools":
            return 1.0
        return float(self.num_data if self.kind == "logistic" else self.batch)

    @property
    def multiply_adds(self) -> int:
        """Of the matrix products of a step, forward and backward, but for the data's gradient.

        A linear layer has one product forward and two backward: for its weights, and for its
        input where that depends on a parameter.
        """
        if self.kind == "logistic":
            return 2 * self.batch * self.features  # the data have no gradient
        per_layer = [
            fan_in * fan_out
            for network in self.networks.values()
            for _, fan_in, fan_out in network.layers()
        ]
        return self.batch * (3 * sum(per_layer) - per_layer[0]) if per_layer else 0

    @property
    def largest_product(self) -> tuple[int, int, int] | None:
        """Rows, inner size and columns of the largest matrix product, or None without one."""
        if self.kind == "logistic":
            return self.batch, self.features, 1
        layers = [layer for network in self.networks.values() for layer in network.layers()]
        if not layers:
            return None
        _, fan_in, fan_out = max(layers, key=lambda layer: layer[1] * layer[2])
        return self.batch, fan_in, fan_out


def find_workload(name: str, num_images: int = 20_000) -> Workload:
    """The workload of a name: ``vae-B``, ``two-layer-B``, ``eight-schools`` or ``logistic``.

    Args:
        name: B is the batch size.
        num_images: Datapoints of the two image models.
    """
    if name == "eight-schools":
        return Workload(name, name, batch=8, num_data=8, features=0)
    if name == "logistic":
        return Workload(name, name, batch=1000, num_data=100_000, features=50)
    match = re.fullmatch(r"(vae|two-layer)-(\d+)", name)
    if match is None or num_images % int(match[2]):
        raise ValueError(
            f"program: expected vae-B, two-layer-B (B divides {num_images}), eight-schools or "
            f"logistic; got {name!r}"
        )
    return Workload(name, match[1], int(match[2]), num_images, NUM_PIXELS)


def make_data(workload: Workload) -> tuple[Array, ...]:
    """The data set, float32: binary images, or features and labels, or effects and errors."""
    generator = np.random.default_rng(0)
    if workload.kind == "eight-schools":
        return EIGHT_SCHOOLS
    if workload.kind == "logistic":
        x = generator.standard_normal((workload.num_data, workload.features), np.float32)
        logits = x @ generator.standard_normal(workload.features, np.float32)
        labels = generator.random(workload.num_data, np.float32) < 1 / (1 + np.exp(-logits))
        return x, labels.astype(np.float32)
    # ten prototypes, so that there is something to learn
    prototypes = generator.beta(0.3, 0.9, (10, workload.features)).astype(np.float32)
    classes = generator.integers(10, size=workload.num_data)
    noise = generator.random((workload.num_data, workload.features), np.float32)
    return ((noise < prototypes[classes]).astype(np.float32),)


def make_order(workload: Workload, epochs: int = 4) -> Array:
    """Indices of each step, ``(steps, batch)`` int64: a permutation of the data per epoch."""
    generator = np.random.default_rng(1)
    orders = [generator.permutation(workload.num_data) for _ in range(epochs)]
    return np.concatenate(orders).reshape(-1, workload.batch)


def initial_weights(workload: Workload) -> dict[str, tuple[Array, Array]]:
    """Weight ``(out, in)`` and bias ``(out,)`` of ``"network.layer"``, as torch draws them."""
    generator = np.random.default_rng(2)
    weights = {}
    for name, network in workload.networks.items():
        for layer, fan_in, fan_out in network.layers():
            limit = fan_in**-0.5
            weight = generator.uniform(-limit, limit, (fan_out, fan_in)).astype(np.float32)
            bias = generator.uniform(-limit, limit, fan_out).astype(np.float32)
            weights[f"{name}.{layer}"] = weight, bias
    return weights
