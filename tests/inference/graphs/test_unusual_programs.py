"""Unusual programs, optimizers and schedules have graphs, or give them up in time."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer.autoguide import (
    AutoIAFNormal,
)
from pyro.optim.clipped_adam import ClippedAdam
from torch import Tensor, nn

from aevb.inference import Program, fit

from graph_programs import ROWS, STEPS, Tied, assert_agree, located, needs_compiler, tried


class Forgetting(torch.optim.SGD):
    """Lowers its own rate at each step."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["lr"] *= 0.9
        return super().step(closure)


@pytest.mark.parametrize("optimizer", [Forgetting, ClippedAdam])
def test_what_an_optimizer_counts_is_not_advanced_by_checks(
    optimizer: type[torch.optim.Optimizer],
) -> None:
    def decaying(parameters: Any, lr: float) -> torch.optim.Optimizer:
        if optimizer is ClippedAdam:
            return ClippedAdam(parameters, lr=lr, lrd=0.9)
        return optimizer(parameters, lr=lr)  # type: ignore[call-arg]

    eager, traced = Tied(), Tied()
    tried(eager, "eager", steps=40, optimizer=decaying)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tried(traced, "traced", steps=40, optimizer=decaying)
    torch.testing.assert_close(eager.enc.weight, traced.enc.weight, rtol=1e-4, atol=1e-6)


class Recurrent(Tied):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(1, 4, batch_first=True)

    def encode(self, x: Tensor) -> Tensor:
        return self.enc(x) + self.cell(x.unsqueeze(-1))[0][:, -1]


class MissingValues(Tied):
    def __init__(self) -> None:
        super().__init__()
        self.raw = np.array([1.0, np.nan])

    def encode(self, x: Tensor) -> Tensor:
        return self.enc(x) * float(self.raw[0])


class CheckedOutside(Tied):
    def __init__(self) -> None:
        super().__init__()
        with pyro.validation_enabled(True):
            self.prior = dist.Normal(0.0, 1.0, validate_args=True).expand([2]).to_event(1)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior)
            pyro.sample("x", dist.Normal(self.dec(z), 1.0).to_event(1), obs=x)


@pytest.mark.parametrize("family", [Recurrent, MissingValues, CheckedOutside])
def test_ordinary_programs_have_a_graph(family: type[Tied]) -> None:
    eager, traced = family(), family()
    tried(eager, "eager")
    assert tried(traced, "traced").level == "traced"
    for first, second in zip(eager.parameters(), traced.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)


def test_guides_with_cached_transforms_have_a_graph() -> None:
    model = located(lambda m: 0.0)
    runs = []
    for level in ("eager", "traced"):
        torch.manual_seed(1)
        guide = AutoIAFNormal(model, hidden_dim=[8])
        runs.append(fit(Program(model, guide), ROWS, steps=STEPS, compile=level, device="cpu"))
    assert runs[1].level == "traced"
    assert_agree(runs[1], runs[0])


class Growing(Tied):
    """Selects rows by a mask that a schedule changes."""

    def __init__(self) -> None:
        super().__init__()
        self.chosen = torch.tensor([True, True, False, False, False, False])

    def encode(self, x: Tensor) -> Tensor:
        return self.enc(x) + x[:, self.chosen].sum(-1, keepdim=True) * self.extra


def test_graph_that_fails_in_the_middle_gives_way() -> None:
    def run(level: str) -> Tied:
        program = Growing()

        def schedule(optimizer: torch.optim.Optimizer) -> Any:
            def rate(epoch: int) -> float:
                program.chosen[2] = epoch >= 3
                return 1.0

            return torch.optim.lr_scheduler.LambdaLR(optimizer, rate)

        tried(program, level, steps=24, schedule=schedule)
        return program

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        eager, traced = run("eager"), run("traced")
    torch.testing.assert_close(eager.enc.weight, traced.enc.weight, rtol=1e-3, atol=1e-4)


def test_schedule_without_a_state_trains_but_has_no_folder(tmp_path: Path) -> None:
    class Halving:
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer

        def step(self) -> None:
            self.optimizer.param_groups[0]["lr"] *= 0.5

    assert tried(Tied(), "traced", schedule=Halving).step == 9
    with pytest.raises(ValueError, match="Halving has no state_dict"):
        tried(Tied(), "traced", schedule=Halving, out=tmp_path)


@pytest.mark.parametrize("level", ["eager", "traced"])
def test_argument_checks_are_left_as_the_user_set_them(level: str) -> None:
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        tried(Tied(), level)
        assert torch.distributions.Distribution._validate_args is False
    finally:
        torch.distributions.Distribution.set_default_validate_args(True)


@needs_compiler
def test_compiled_run_resumed_before_a_short_batch_has_the_same_bits(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"batch_size": 12, "optimizer": torch.optim.Adam}
    whole, half = Tied(), Tied()
    tried(whole, "compiled", steps=11, **settings)
    tried(half, "compiled", steps=7, out=tmp_path, **settings)  # the eighth has four rows
    half = Tied()
    assert tried(half, "compiled", steps=11, out=tmp_path, resume=True, **settings).step == 11
    assert torch.equal(whole.enc.weight, half.enc.weight)
    assert torch.equal(whole.dec.weight, half.dec.weight)


@needs_compiler
def test_draws_that_nothing_uses_leave_the_later_ones_alone() -> None:
    class Unused(Tied):
        def encode(self, x: Tensor) -> Tensor:
            torch.rand(3)
            nn.functional.dropout(x, 0.5)
            return self.enc(x)

    eager, compiled = Unused(), Unused()
    tried(eager, "eager")
    assert tried(compiled, "compiled").level == "compiled"
    torch.testing.assert_close(eager.enc.weight, compiled.enc.weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_hooks_of_an_optimizer_act_at_every_level(optimizer: type[torch.optim.Optimizer]) -> None:
    def hooked(parameters: Any, lr: float) -> torch.optim.Optimizer:
        made = optimizer(parameters, lr=lr)

        def clip(inner: torch.optim.Optimizer, *_: Any) -> None:
            for group in inner.param_groups:
                torch.nn.utils.clip_grad_value_(group["params"], 1e-3)

        made.register_step_pre_hook(clip)
        return made

    plain, eager, traced = Tied(), Tied(), Tied()
    tried(plain, "eager", optimizer=optimizer)
    tried(eager, "eager", optimizer=hooked)
    tried(traced, "traced", optimizer=hooked)
    for first, second in zip(eager.parameters(), traced.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)
    assert not torch.equal(eager.enc.weight, plain.enc.weight)
