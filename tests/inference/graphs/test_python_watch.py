"""What is found of programs that depend on more than arguments, parameters and torch's draws."""

import functools
import importlib
import os
import random
import re
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from aevb.inference import Program, Run, fit
from aevb.inference.graphs.python_watch import PythonWatch

ROWS = torch.randn(40, 3, generator=torch.Generator().manual_seed(5))
BETA = 1.0


def located(factor: Callable[[], float]) -> Callable[[Tensor], None]:
    def model(x: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(m * factor(), 1.0).to_event(1), obs=x)

    return model


def guide(x: Tensor) -> None:
    pyro.sample("m", dist.Normal(pyro.param("loc", torch.zeros(3)), 0.5).to_event(1))


def trained(factor: Callable[[], float], steps: int, schedule: Any = None) -> Run:
    program = Program(located(factor), guide)
    return fit(
        program, ROWS, steps=steps, schedule=schedule, compile="traced", device="cpu", seed=1
    )


def written(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


def reads_a_global() -> float:
    return (lambda: BETA)()


def closure() -> Callable[..., Any]:
    beta = 1.0

    def read(value: float | None = None) -> float:
        nonlocal beta
        beta = beta if value is None else value
        return beta

    return read


def default(value: float = 0.0, held: list[float] = [1.0]) -> None:  # noqa: B006
    held[0] = value or held[0]


class Slots:
    __slots__ = ("beta",)

    def __init__(self) -> None:
        self.beta = 1.0


class Shared:
    beta = 1.0

    @property
    def twice(self) -> float:
        return 2 * BETA


def set_global(_: Any) -> None:
    globals()["BETA"] = 0.5


# where a number may be kept: the object watched, how to change it, and what the change is called
CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], str]] = {
    "global": (lambda: reads_a_global, set_global, r"test_python_watch.BETA"),
    "global of a property": (Shared, set_global, r"test_python_watch.BETA"),
    "closure": (closure, lambda f: f(0.5), "root: beta"),
    "closure of a bound argument": (
        lambda: functools.partial(print, closure()),
        lambda f: f.args[0](0.5),
        r"root\[0\]: beta",
    ),
    "default argument": (lambda: default, lambda f: f(0.5), r"root: default\[0\]\[1\]\[0\]"),
    "slot": (Slots, lambda s: setattr(s, "beta", 0.5), "root.beta"),
    "class": (Shared, lambda s: setattr(type(s), "beta", 0.5), "Shared.beta"),
    "mode": (lambda: nn.Dropout(), lambda m: m.eval(), "root.training"),
    "submodule": (
        lambda: nn.Sequential(nn.Dropout(0.1)),
        lambda m: setattr(m[0], "p", 0.5),
        "root.0.p",
    ),
    "set": (lambda: {1}, lambda s: s.add(2), r"root\[2\]|root.2"),
    "queue": (lambda: deque([1.0]), lambda d: d.append(2.0), r"root\[1\]"),
    "array": (lambda: np.ones((2, 2)), lambda a: a.__setitem__((1, 0), 5), r"root\[2\]"),
    "tensor": (
        lambda: {"t": torch.zeros(2)},
        lambda d: d.update(t=torch.ones(2)),
        r"root\['t'\]",
    ),
}


@pytest.mark.parametrize("case", list(CHANGES))
def test_change_is_found_named_and_taken_back(case: str) -> None:
    make, change, name = CHANGES[case]
    thing = make()
    with PythonWatch(root=thing) as watch:
        assert watch.changed() is None
        change(thing)
        found = watch.changed()
    assert found is not None
    assert re.search(name + "$", found), found
    assert watch.changed() is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"a": float("nan"), "t": torch.tensor([1.0, torch.nan])},
        lambda: pyro.plate("data", 3),
        lambda: closure(),
        lambda: [dist.Normal(torch.zeros(2), 1.0).to_event(1)],
    ],
)
def test_what_is_made_anew_alike_is_no_change(make: Callable[[], Any]) -> None:
    holder = {"value": make()}
    watch = PythonWatch(holder=holder)
    holder["value"] = make()
    assert watch.changed() is None


def test_values_written_into_a_tensor_are_no_matter_of_python() -> None:
    layer = nn.Linear(2, 2)
    watch = PythonWatch(layer=layer)
    nn.init.ones_(layer.weight)
    assert watch.changed() is None


def test_module_that_a_function_names_is_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = written(tmp_path, "own_settings", "beta = 1.0\n", monkeypatch)
    code = "import own_settings\ndef read():\n    return own_settings.beta\n"
    reader = written(tmp_path, "own_reader", code, monkeypatch)
    watch = PythonWatch(root=reader.read)
    settings.beta = 0.5  # type: ignore[attr-defined]
    assert watch.changed() == "own_settings.beta"


COUNTER = "calls = 0\ndef factor():\n    global calls\n    calls += 1\n    return {}\n"


def test_counter_of_an_own_module_is_found_before_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = written(tmp_path, "own_counter", COUNTER.format("1.0"), monkeypatch)
    with pytest.warns(UserWarning, match="run eagerly: own_counter.calls changes when"):
        assert trained(own.factor, 8).level == "eager"


@pytest.mark.parametrize(
    ("effect", "found"),
    [
        ("1.0 - calls / 1e4", "run eagerly: the same draws and data give another loss"),
        ("1.0 if calls < 14 else 0.0", r"after (16|32|64) steps .* since step \d+ of the graph"),
    ],
)
def test_counter_of_installed_code_is_found_by_its_effect(
    effect: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody looks at its globals, and steps of a graph do not count: comparisons do."""
    folder = tmp_path / "site-packages"
    installed = written(folder, "installed_counter", COUNTER.format(effect), monkeypatch)
    with pytest.warns(UserWarning, match=found):
        assert trained(installed.factor, 80).level == "eager"


def test_counter_of_installed_code_that_comparisons_do_not_reach_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit: an eager run would have another factor from step 60 on."""
    code = COUNTER.format("1.0 if calls < 60 else 0.0")
    installed = written(tmp_path / "site-packages", "installed_late", code, monkeypatch)
    assert trained(installed.factor, 80).level == "traced"


def environment(until: int | None) -> Callable[[torch.optim.Optimizer], Any]:
    """A schedule that sets a variable of the process from step 20 on, or until another step."""

    def schedule(optimizer: torch.optim.Optimizer) -> Any:
        def rate(step: int) -> float:
            halved = step >= 20 and (until is None or step < until)
            os.environ["AEVB_TEST_BETA"] = "0.5" if halved else "1.0"
            return 1.0

        return torch.optim.lr_scheduler.LambdaLR(optimizer, rate)

    return schedule


def read_environment() -> float:
    return float(os.environ["AEVB_TEST_BETA"])


def test_state_outside_the_program_is_found_at_the_next_comparison(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AEVB_TEST_BETA", "1.0")
    with pytest.warns(UserWarning, match="after 32 steps .* since step 16 of the graph may be wr"):
        assert trained(read_environment, 40, environment(None)).level == "eager"


def test_state_outside_that_is_back_at_each_comparison_is_not_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The limit of what a program that breaks the contract can be held to."""
    monkeypatch.setenv("AEVB_TEST_BETA", "1.0")
    assert trained(read_environment, 40, environment(28)).level == "traced"


@pytest.mark.parametrize("kind", [np.random.default_rng, random.Random])
def test_random_generator_of_ones_own_is_found_by_the_loss(kind: Callable[[int], Any]) -> None:
    generator = kind(0)
    draw = generator.random
    with pytest.warns(UserWarning, match="the same draws and data give another loss"):
        assert trained(lambda: 1.0 + draw(), 8).level == "eager"
