"""Small trainings that end in milliseconds, and all that they have determined."""

import csv
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from pyro import distributions as dist
from pyro.distributions import constraints
from torch import Tensor

from aevb import data, models
from aevb.inference import CHECKPOINT, ELBO, Program, Run, fit, load_checkpoint

EPOCHS = 6  # of an uninterrupted run; the interrupted ones stop after half of them


BATCH = 400  # three batches of 400 and a short one of 97 in each epoch of the digits

STEPS = 4  # in each such epoch

TIMES = {"seconds", "row_seconds", "datapoints_per_second"}  # what equal runs may differ in

ROWS = 2 + torch.randn(40, 3, generator=torch.Generator().manual_seed(0))


# Programs of a user, which create their parameters in every way that Pyro knows.
def location_model(x: Tensor) -> None:
    """Rows around one location, which has a wide prior."""
    location = pyro.sample("location", dist.Normal(torch.zeros(3), 10.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(location, 1.0).to_event(1), obs=x)


def location_guide(x: Tensor) -> None:
    """A normal posterior of the location, with bare Pyro parameters."""
    loc = pyro.param("loc", torch.zeros(3))
    scale = pyro.param("scale", torch.ones(3), constraint=constraints.positive)
    pyro.sample("location", dist.Normal(loc, scale).to_event(1))


def location() -> Program:
    return Program(location_model, location_guide)


def small_vae(weights: int = 0) -> models.VAE:
    """A VAE of the digits that trains in milliseconds; ``weights`` seeds the initial ones."""
    torch.manual_seed(weights)
    return models.VAE((8, 8), latent_dim=2, hidden=[6])


def train(digits: data.Dataset, epochs: int, weights: int = 0, **kwargs: Any) -> Run:
    """A few epochs of a small VAE."""
    settings: dict[str, Any] = {
        "program": None,
        "batch_size": BATCH,
        "validation": digits.validation,
        "device": "cpu",
        "compile": "eager",
        **kwargs,
    }
    program = settings.pop("program") or small_vae(weights)
    return fit(program, digits.train, epochs=epochs, **settings)


def differences(a: Any, b: Any, place: str = "run") -> list[str]:
    """Places where two trees are not equal to the last bit, times aside."""
    if type(a) is not type(b):
        return [f"{place}: {type(a).__name__} and {type(b).__name__}"]
    if isinstance(a, Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [f"{place}: tensors"]
    if isinstance(a, list | tuple):
        a, b = dict(enumerate(a)), dict(enumerate(b))
    if isinstance(a, dict):
        if list(a) != list(b):
            return [f"{place}: keys {list(a)} and {list(b)}"]
        kept = [key for key in a if key not in TIMES]
        return [found for key in kept for found in differences(a[key], b[key], f"{place}.{key}")]
    return [] if repr(a) == repr(b) else [f"{place}: {a!r} and {b!r}"]


def outcome(run: Run) -> dict[str, Any]:
    """All that training has determined."""
    assert run.out is not None
    return {
        "weights": dict(run.program.state_dict()),
        "history": run.history,
        "counters": [run.epoch, run.step, run.stopped],
        "checkpoint": load_checkpoint(run.out / CHECKPOINT),
        "metrics.csv": metrics_file(run.out),
    }


def metrics_file(folder: Path) -> list[dict[str, str]]:
    """Rows of ``metrics.csv``."""
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def vae_acting(step: int, act: Callable[[], Any]) -> models.VAE:
    """A small VAE whose model calls ``act`` within a training step, counted from 1."""
    vae = small_vae()
    model, steps = vae.model, 0

    def acting(*args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += vae.training  # and not when it is prepared or validated
        if vae.training and steps == step:
            act()
        return model(*args, **kwargs)

    vae.model = acting  # type: ignore[method-assign]
    return vae


# Failure


def breaking(where: str, value: float, step: int) -> Program:
    """The location program, whose ``where`` gets ``value`` added from a step on."""
    calls = {"model": 0, "guide": 0}

    def shift(name: str) -> float:
        calls[name] += program.training  # and not where it is prepared
        return value if name == where and calls[name] >= step else 0.0

    def model(x: Tensor) -> None:
        m = pyro.sample("location", dist.Normal(torch.zeros(3), 10.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(m + shift("model"), 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", torch.zeros(3)) + shift("guide")
        pyro.sample("location", dist.Normal(loc, 1.0).to_event(1))

    program = Program(model, guide)
    return program


OBJECTIVES = [ELBO(), ELBO(analytic_kl=True), ELBO(num_particles=3), ELBO(3, False, False)]


# What training leaves alone


def process() -> dict[str, Any]:
    """Everything global that training might touch."""
    version, words, _ = random.getstate()
    kind, keys, position, *_ = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "python": (version, words),
        "numpy": (kind, torch.from_numpy(np.array(keys)), position),
        "validation of distributions": dist.is_validation_enabled(),
        "validation of torch": torch.distributions.Distribution._validate_args,
        "validation of inference": pyro.infer.is_validation_enabled(),
        "validation of poutine": pyro.poutine.util.is_validation_enabled(),
        "local parameters": pyro.settings.get("module_local_params"),
        "store": list(pyro.get_param_store().keys()),
        "gradients": torch.is_grad_enabled(),
        "handlers": [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM)],
    }
