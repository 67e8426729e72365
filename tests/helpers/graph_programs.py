"""Programs whose steps become graphs or must not, and short trainings of them."""

import random
import shutil
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from aevb import data, models
from aevb.inference import Run, fit

STEPS = 12


ROWS = torch.randn(40, 3, generator=torch.Generator().manual_seed(5))

DIGITS = data.load("digits", binarize="dynamic")

needs_compiler = pytest.mark.skipif(
    shutil.which("c++") is None and shutil.which("g++") is None, reason="needs a C++ compiler"
)


def vae(**kwargs: Any) -> models.VAE:
    torch.manual_seed(1)
    return models.VAE((8, 8), latent_dim=3, hidden=[16], **kwargs)


def on_digits(program: Any = None, **kwargs: Any) -> Run:
    settings = {"batch_size": 500, "epochs": 4, **kwargs}  # 500, 500 and a short batch of 297
    return fit(program or vae(), DIGITS.train, **settings)


def on_rows(program: Any, **kwargs: Any) -> Run:
    torch.manual_seed(1)
    return fit(program, ROWS, steps=STEPS, log_every=1, **kwargs)


def weights(run: Run) -> Tensor:
    return torch.cat([p.detach().flatten().double() for p in run.program.parameters()])


def objectives(run: Run) -> Tensor:
    return torch.tensor([row["train_objective"] for row in run.history], dtype=torch.float64)


def assert_agree(a: Run, b: Run) -> None:
    """Equal to the rounding of some tens of float32 updates."""
    torch.testing.assert_close(objectives(a), objectives(b), rtol=2e-5, atol=1e-5)
    # an update of Adam has the size of the learning rate even where a gradient is mere rounding,
    # so a few entries may part; in the norm they do not show
    moved = torch.linalg.vector_norm(weights(a) - weights(b)) / torch.linalg.vector_norm(
        weights(b)
    )
    assert float(moved) < 1e-4


def located(shift: Callable[[Tensor], Any]) -> Callable[[Tensor], None]:
    def model(x: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(m + shift(m), 1.0).to_event(1), obs=x)

    return model


def located_guide(x: Tensor) -> None:
    loc = pyro.param("loc", torch.zeros(3))
    pyro.sample("m", dist.Normal(loc, 0.5).to_event(1))


class Tied(nn.Module):
    """A VAE of one layer whose parts a test replaces."""

    def __init__(self, size: int = 6) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.enc, self.dec = nn.Linear(size, 4), nn.Linear(2, size)
        self.extra = nn.Parameter(torch.tensor(0.3))

    def encode(self, x: Tensor) -> Tensor:
        return self.enc(x)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.dec(z), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        loc, log_scale = self.encode(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


FLOATS = torch.randn(40, 6, generator=torch.Generator().manual_seed(8))


def tried(program: Tied, level: str, **kwargs: Any) -> Run:
    settings = {"steps": 9, "batch_size": 10, "learning_rate": 0.01, **kwargs}
    random.seed(4)
    return fit(program, FLOATS, compile=level, seed=2, device="cpu", progress=False, **settings)
