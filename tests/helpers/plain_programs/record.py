"""What is kept of a program, and what the programs share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from pyro import distributions as dist
from pyro.infer.autoguide import AutoMultivariateNormal
from torch import Tensor

from plain_truths import (
    Axis,
    Truth,
)

Program = Callable[..., Any]


@dataclass(frozen=True)
class PlainProgram:
    """A program with its data and the truth about its posterior.

    Attributes:
        name: Of the program.
        style: What it does that a program written for an outer plate would not.
        build: Makes the model afresh, so that no run sees what another has trained.
        args: Its arguments.
        known: The truth, from a factor of the quadrature's points; None where it is refused.
        make_guide: A guide for a model.
        untraced: Why its training steps have no graph, as a regular expression; None if they have.
        refused: What the refusal's message says, likewise.
        refused_by: Functions that refuse it.
    """

    name: str
    style: str
    build: Callable[[], Program]
    args: tuple[Any, ...] = ()
    known: Callable[[float], Truth] | None = None
    make_guide: Callable[[Program], Program] = AutoMultivariateNormal
    untraced: str | None = None
    refused: str | None = None
    refused_by: tuple[str, ...] = ()

    @property
    def model(self) -> Program:
        """The model, made afresh."""
        with float64():
            return self.build()

    def guide(self, model: Program) -> Program:
        """A guide for one of the models."""
        with float64():
            return self.make_guide(model)

    def truth(self, finer: float = 1.0) -> Truth:
        """What is known of the posterior.

        Args:
            finer: Factor of the quadrature's points in each dimension.
        """
        assert self.known is not None, f"{self.name}: nothing is known of its posterior"
        with float64(), torch.no_grad():
            return self.known(finer)


@contextmanager
def float64() -> Iterator[None]:
    """Plain programs make their constants in the default type, which is this in here."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def always(model: Program) -> Callable[[], Program]:
    return lambda: model


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def places(*values: int) -> Tensor:
    return torch.tensor(values)


EVERYWHERE = ("hmc", "importance_evidence", "ais_evidence")

X = numbers(-1.2, -0.7, -0.3, 0.0, 0.4, 0.9, 1.3, 1.8)
FEATURES = torch.stack([X, numbers(0.5, -1.0, 0.3, 1.2, -0.6, 0.1, -0.9, 0.7)], -1)
Y = numbers(-0.9, -1.1, 0.2, 0.8, 0.1, 1.4, 0.7, 2.3)
GROUP = places(0, 0, 1, 1, 1, 2, 3, 3)
EIGHT = numbers(28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
ERRORS = numbers(15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)


def eye(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)


def one_hot(places: Tensor, count: int) -> Tensor:
    return eye(count)[places]


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


def ones(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.float64)


def normal_axis(name: str, loc: float = 0.0, scale: float = 1.0, points: int = 61) -> Axis:
    return Axis(name, dist.Normal(loc, scale), loc - 7 * scale, loc + 7 * scale, points)
