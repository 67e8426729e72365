"""Simulated data of the posteriors, the same for all samplers, by name."""

from typing import Any

import numpy as np

__all__ = ["POSTERIORS", "observed"]

Array = np.ndarray[Any, Any]

# Names, in words, and the dtype that the program needs.
POSTERIORS = {
    "schools": ("eight schools, not centred", "float32"),
    "logistic": ("logistic regression, 300 × 10", "float32"),
    "hierarchical": ("hierarchical regression, 20 groups", "float32"),
    "autoregression": ("autoregression of order 3", "float32"),
    "mixture": ("mixture of 3 normals, ordered", "float32"),
    "process": ("Gaussian process, 24 hyperparameters", "float64"),
}


def observed(name: str) -> tuple[Array, ...]:
    """The arguments of the program."""
    arrays = _SIMULATORS[name](np.random.default_rng(0))
    dtype = POSTERIORS[name][1]
    return tuple(a if a.dtype.kind == "i" else a.astype(dtype) for a in arrays)


def _schools(rng: np.random.Generator) -> tuple[Array, ...]:
    del rng
    return (
        np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
        np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
    )


def _logistic(rng: np.random.Generator) -> tuple[Array, ...]:
    x = rng.normal(size=(300, 10)) @ (np.eye(10) + 0.5 * rng.normal(size=(10, 10)) / 3)
    chance = 1 / (1 + np.exp(-(x @ rng.normal(size=10) * 0.5 + 0.3)))
    return x, (rng.uniform(size=300) < chance).astype(float)


def _hierarchical(rng: np.random.Generator) -> tuple[Array, ...]:
    group = rng.integers(20, size=400)
    x = rng.normal(size=400)
    level, slope = 1.0 + 0.7 * rng.normal(size=20), -0.5 + 0.3 * rng.normal(size=20)
    return group, x, level[group] + slope[group] * x + 0.8 * rng.normal(size=400)


def _autoregression(rng: np.random.Generator) -> tuple[Array, ...]:
    y = list(rng.normal(size=3))
    for _ in range(300):
        y.append(0.3 + 0.5 * y[-1] + 0.2 * y[-2] - 0.1 * y[-3] + 0.7 * rng.normal())
    return (np.array(y),)


def _mixture(rng: np.random.Generator) -> tuple[Array, ...]:
    kind = rng.choice(3, size=400, p=[0.3, 0.5, 0.2])
    loc, scale = np.array([-3.0, 0.0, 3.0]), np.array([0.7, 0.8, 0.6])
    return (loc[kind] + scale[kind] * rng.normal(size=400),)


def _process(rng: np.random.Generator) -> tuple[Array, ...]:
    x = rng.uniform(size=(60, 22))
    y = np.sin(6 * x[:, 0]) + 2 * (x[:, 1] - 0.5) ** 2 + x[:, 2] + 0.1 * rng.normal(size=60)
    return x, (y - y.mean()) / y.std()


_SIMULATORS = {
    "schools": _schools,
    "logistic": _logistic,
    "hierarchical": _hierarchical,
    "autoregression": _autoregression,
    "mixture": _mixture,
    "process": _process,
}
