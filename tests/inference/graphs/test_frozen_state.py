"""What a graph would freeze is found out, and what a program may remember is not."""

import argparse
import collections
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from aevb.inference import Program, Run, fit

from graph_programs import ROWS, Tied, located, located_guide, tried


class TransposedGradient(Tied):
    def encode(self, x: Tensor) -> Tensor:
        return torch.einsum("bi,oi->bo", x, self.enc.weight) + self.enc.bias


class Statistics(Tied):
    """Changes a tensor that no module owns."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = [torch.zeros(())]

    def encode(self, x: Tensor) -> Tensor:
        self.seen[0].add_(1)
        return self.enc(x)


class FrozenValues(Tied):
    def encode(self, x: Tensor) -> Tensor:
        return self.enc(x) + self.extra * float(x.detach().numpy().mean())


class MaskedRows(Tied):
    def encode(self, x: Tensor) -> Tensor:
        return self.enc(x) + self.extra * x[x > 0].sum()


class PrivateNoise(Tied):
    def encode(self, x: Tensor) -> Tensor:
        return self.enc(x) + self.extra * random.random()


class RareDropout(Tied):
    def encode(self, x: Tensor) -> Tensor:
        return self.enc(x * 0 if np.random.rand() < 0.3 else x)  # noqa: NPY002


class LateCounter(Tied):
    """Does something else after many calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def encode(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.enc(x) * (1.0 if self.calls < 1000 else 0.0)


class ClassCounter(Tied):
    calls = 0

    def encode(self, x: Tensor) -> Tensor:
        type(self).calls += 1
        return self.enc(x)


class RunningMean(Tied):
    """A tensor that is made anew at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.zeros(6)

    def encode(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return self.enc(x)


class NewMemory(Tied):
    """Weights that are moved to other memory."""

    def encode(self, x: Tensor) -> Tensor:
        self.enc.weight.data = self.enc.weight.data * 0.999
        return self.enc(x)


GLOBALS = {"calls": 0}


class GlobalCounter(Tied):
    def encode(self, x: Tensor) -> Tensor:
        GLOBALS["calls"] += 1
        return self.enc(x)


class Remembering(Tied):
    """Keeps what it computed for a size; no later call depends on it."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: dict[int, Tensor] = {}

    def encode(self, x: Tensor) -> Tensor:
        if len(x) not in self.masks:
            self.masks[len(x)] = torch.ones(len(x), 1)
        return self.enc(x) * self.masks[len(x)]


class Tempered(Tied):
    """A factor that is kept wherever a test says."""

    def __init__(self, keep: Callable[[], Any], read: Callable[[Any], float]) -> None:
        super().__init__()
        self.kept, self.read = keep(), read

    def encode(self, x: Tensor) -> Tensor:
        return self.enc(x) * self.read(self.kept)


def configuration() -> type:
    class Config:
        beta = 1.0

    return Config


class Scaled(dist.Normal):
    beta = 1.0


class Slotted:
    __slots__ = ("__beta",)

    def __init__(self) -> None:
        self.__beta = 1.0

    def get(self) -> float:
        return self.__beta

    def set(self, value: float) -> None:
        self.__beta = value


def attribute(kept: Any) -> float:
    return kept.beta


def set_attribute(kept: Any, value: float) -> None:
    kept.beta = value


def tensor_with_attribute() -> Tensor:
    tensor = torch.zeros(1)
    tensor.beta = 1.0  # type: ignore[attr-defined]
    return tensor


# where a factor may be kept: how to make the place, to read it and to change it
KEPT: dict[str, tuple[Callable[[], Any], Callable[[Any], float], Callable[[Any, float], None]]] = {
    "namespace": (lambda: argparse.Namespace(beta=1.0), attribute, set_attribute),
    "class": (configuration, attribute, set_attribute),
    "distribution": (lambda: Scaled(0.0, 1.0), attribute, set_attribute),
    "attribute of a tensor": (tensor_with_attribute, attribute, set_attribute),
    "private slot": (Slotted, Slotted.get, Slotted.set),
    "user's dictionary": (
        lambda: collections.UserDict(beta=1.0),
        lambda kept: kept["beta"],
        lambda kept, value: kept.update(beta=value),
    ),
    "array of objects": (
        lambda: np.array([1.0, None], dtype=object),
        lambda kept: kept[0],
        lambda kept, value: kept.__setitem__(0, value),
    ),
}


@pytest.mark.parametrize("family", [TransposedGradient, Statistics])
def test_memory_of_any_layout_is_updated_as_eagerly(family: type[Tied]) -> None:
    eager, traced = family(), family()
    tried(eager, "eager")
    assert tried(traced, "traced").level == "traced"
    for first, second in zip(eager.parameters(), traced.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)
    if isinstance(eager, Statistics) and isinstance(traced, Statistics):
        assert float(eager.seen[0]) == float(traced.seen[0])


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        (FrozenValues, "its graph is not the program"),
        (MaskedRows, "depends on the values of tensors"),
        (PrivateNoise, "it draws from Python's own random numbers"),
        (RareDropout, "it draws from NumPy's own random numbers"),
        (LateCounter, "program.calls changes when the program runs"),
        (ClassCounter, "ClassCounter.calls changes when the program runs"),
        (GlobalCounter, r"GLOBALS\['calls'\] changes when the program runs"),
        (RunningMean, "program.mean changes when the program runs"),
        (NewMemory, "its graph is not the program"),
    ],
)
def test_what_a_graph_would_freeze_is_found_out(family: type[Tied], reason: str) -> None:
    eager, traced = family(), family()
    tried(eager, "eager")
    with pytest.warns(UserWarning, match=reason) as caught:
        run = tried(traced, "traced")
    assert len(caught) == 1
    assert run.level == "eager"
    for first, second in zip(eager.parameters(), traced.parameters(), strict=True):
        assert torch.equal(first, second)


def test_what_a_program_remembers_of_a_size_is_no_state() -> None:
    eager, traced = Remembering(), Remembering()
    tried(eager, "eager", batch_size=12)
    assert tried(traced, "traced", batch_size=12).level == "traced"
    torch.testing.assert_close(eager.enc.weight, traced.enc.weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("place", list(KEPT))
def test_what_a_schedule_sets_is_followed(place: str) -> None:
    keep, read, change = KEPT[place]

    def run(level: str) -> tuple[Tied, Run]:
        program = Tempered(keep, read)

        def schedule(optimizer: torch.optim.Optimizer) -> Any:
            def rate(epoch: int) -> float:
                change(program.kept, 1.0 if epoch < 3 else 0.5)
                return 1.0

            return torch.optim.lr_scheduler.LambdaLR(optimizer, rate)

        return program, tried(program, level, steps=24, schedule=schedule)

    eager, _ = run("eager")
    with pytest.warns(UserWarning, match=r"has changed, and after \d+ steps") as caught:
        traced, result = run("traced")
    assert len(caught) == 1
    assert result.level == "eager"
    torch.testing.assert_close(eager.enc.weight, traced.enc.weight, rtol=1e-4, atol=1e-6)


def test_state_in_the_arguments_is_seen() -> None:
    def model(x: Tensor, config: Any) -> None:
        config.calls += 1
        located(lambda m: 0.0)(x)

    def guide(x: Tensor, config: Any) -> None:
        located_guide(x)

    arguments = (ROWS, argparse.Namespace(calls=0))
    with pytest.warns(UserWarning, match=r"data\[0\].calls changes when the program runs"):
        fit(Program(model, guide), arguments, steps=5, compile="traced", device="cpu")
