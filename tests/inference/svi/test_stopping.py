"""When a bound has stopped rising: error rates on synthetic traces, resumption, refusals."""

import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aevb.inference import Program, Rise, Run, UntilConverged, fit
from aevb.inference.svi import steps, stopping, training
from aevb.inference.svi.stopping import BoundWatch, trend

from small_trainings import (
    ROWS,
    differences,
    location,
    location_guide,
    location_model,
    outcome,
)  # fmt: skip

RUNS = 40
ERROR_RATE = 0.01  # of false stops that is stated in the documentation


def five_errors_above(rate: float, runs: int) -> float:
    """The share of false stops that a rule of this error rate exceeds in one of 10⁶ trials."""
    return rate + 5 * math.sqrt(rate * (1 - rate) / runs)


def noise(runs: int, steps: int, correlation: float, seed: int) -> Tensor:
    """Autoregressive noise of unit variance with t₄ innovations, ``(steps, runs)``."""
    torch.manual_seed(seed)
    drawn = torch.distributions.StudentT(4.0).sample((steps, runs)) / math.sqrt(2)
    values = [drawn[0]]
    for innovation in drawn[1:]:
        values.append(correlation * values[-1] + math.sqrt(1 - correlation**2) * innovation)
    return torch.stack(values).double()


def stop_of(bounds: Tensor, drifting: bool = False) -> int | None:
    """The step at which the rule stops, its parameters at rest or on a straight way."""
    watch = BoundWatch(UntilConverged())
    generator = torch.Generator().manual_seed(0)
    while (step := watch.step + watch.steps_to_look) <= len(bounds):
        at_rest = torch.randn(50, generator=generator)
        watch.add(bounds[watch.step : step].tolist())
        if watch.look([torch.full((50,), float(step)) if drifting else at_rest], rate=0.01):
            return step
    return None


# The bound alone


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_trend_has_the_error_that_it_states(correlation: float) -> None:
    means = noise(1500, 20, correlation, seed=1)
    found = [trend(column) for column in means.T]
    spread = 20 * (20**2 - 1) / 12
    exceeds = sum(abs(s) > 3.6 * math.sqrt(v / spread) for s, v in found) / 1500
    # 3.6 is the two-sided 0.2 % point of t with 18 degrees of freedom; correlation of 0.8 between
    # neighbours, whose estimate in twenty is poor, may make it five times that and no more
    assert exceeds < five_errors_above(0.002 if correlation == 0 else 0.1, 1500)


def test_trend_without_correction_for_autocorrelation_errs_often() -> None:
    means = noise(1500, 20, 0.8, seed=1)
    spread = 20 * (20**2 - 1) / 12
    found = [trend(column, autocorrelation=False) for column in means.T]
    exceeds = sum(abs(s) > 3.6 * math.sqrt(v / spread) for s, v in found) / 1500
    assert exceeds > five_errors_above(0.1, 1500)


def false_stops() -> float:
    """Share of rising bounds, heavy-tailed and autocorrelated, that the rule takes for still."""
    # 0.3 standard deviations in 100 steps: at every look at which the rule could be sure of less
    # than its half, the bound rises by more in as many steps again
    rise = 0.003 * torch.arange(2000)
    stops = [stop_of(column + rise, drifting=True) for column in noise(RUNS, 2000, 0.5, 5).T]
    return sum(stop is not None for stop in stops) / RUNS


def test_rising_bound_is_seldom_taken_for_converged() -> None:
    assert false_stops() < five_errors_above(ERROR_RATE, RUNS)


def test_rule_without_its_errors_takes_rising_bounds_for_converged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stopping, "_BOUNDARY_ALONE", 0.0)
    assert false_stops() > five_errors_above(ERROR_RATE, RUNS)


def test_converged_bound_is_found_converged() -> None:
    assert all(stop_of(column) is not None for column in noise(10, 3000, 0.5, seed=2).T)


def test_bound_that_stays_where_it_is_without_noise_is_converged() -> None:
    assert stop_of(torch.full((400,), -3.0, dtype=torch.float64)) is not None


def test_outlier_does_not_count_as_a_trend() -> None:
    bounds = noise(1, 3000, 0.0, seed=3)[:, 0]
    stop = stop_of(bounds)
    assert stop is not None
    bounds[stop - 20] = -1e6
    assert (stop_of(bounds) or 3000) <= 2 * stop


def test_falling_bound_is_not_converged() -> None:
    bounds = noise(1, 2000, 0.0, seed=4)[:, 0] - 0.05 * torch.arange(2000)
    assert stop_of(bounds) is None


# Whole runs


def auto(**settings: Any) -> Any:
    return fit(
        settings.pop("program", None) or location(), ROWS, **{
            "learning_rate": 0.05, "device": "cpu", "compile": "eager", "steps": "auto",
            **settings,
        },
    )  # fmt: skip


def test_resumed_run_stops_at_the_same_step_with_the_same_weights(tmp_path: Path) -> None:
    whole = auto(out=tmp_path / "whole")
    with pytest.warns(UserWarning, match="not converged after 123 steps"):
        auto(out=tmp_path / "parts", steps=UntilConverged(max_steps=123))
    resumed = auto(out=tmp_path / "parts", resume=True)
    # a signal from outside, as that of a time limit, would end a run elsewhere
    assert (whole.stopped, resumed.stopped) == ("converged", "converged")
    assert 123 < whole.step == resumed.step
    assert isinstance(whole.rise, Rise)
    assert whole.rise.is_over
    assert whole.rise == resumed.rise
    assert differences(outcome(whole)["weights"], outcome(resumed)["weights"]) == []
    again = auto(out=tmp_path / "parts", resume=True)
    assert (again.stopped, again.step) == ("converged", whole.step)


def test_resumption_that_loses_the_rule_would_be_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = auto()
    with pytest.warns(UserWarning, match="not converged"):
        auto(out=tmp_path, steps=UntilConverged(max_steps=123))
    monkeypatch.setattr(BoundWatch, "load_state_dict", lambda *_: None)
    assert auto(out=tmp_path, resume=True).step != whole.step


# How a run may be cut: into bursts as long as the clock allows, by signals, by launches of several
# steps. A schedule changes the rate within the run, slowly.
CUTS: dict[str, dict[str, Any]] = {
    "whole data": {},
    "whole data, traced": {"compile": "traced"},
    "schedule": {
        "epochs": "auto",
        "steps": None,
        "batch_size": 4,
        "schedule": lambda made: torch.optim.lr_scheduler.MultiStepLR(made, [7], 0.5),
    },
}


class Pieces:
    """A clock whose every look says something else, so that bursts have irregular lengths."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 0.2 * float(torch.rand((), generator=self.generator)) ** 3
        return self.now

    monotonic = perf_counter


def signalled(at: list[int]) -> Program:
    """The location program, sent a signal within some calls of its model, counted from 1."""
    calls = 0

    def model(x: Tensor) -> None:
        nonlocal calls
        calls += program.training
        if program.training and calls in at:
            signal.raise_signal(signal.SIGTERM)
        location_model(x)

    program = Program(model, location_guide)
    return program


def ended(run: Run) -> tuple[Any, ...]:
    """What the rule and training have determined."""
    return run.step, run.stopped, run.rise, dict(run.program.state_dict())


@pytest.mark.parametrize("case", ["whole data, traced", "schedule"])
def test_bursts_of_any_length_stop_at_the_same_step(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for pieces in (None, 1, 2):
        if pieces is not None:
            monkeypatch.setattr(training, "time", Pieces(pieces))
        if pieces == 2 and "traced" in case:  # launches of several steps, as on a GPU
            monkeypatch.setitem(steps._BLOCK, "cpu", 7)
        found.append(ended(auto(**CUTS[case])))
    assert found[0][1] == "converged"
    assert differences(found[0], found[1]) == differences(found[0], found[2]) == []


@pytest.mark.parametrize("case", ["whole data", "schedule"])
def test_run_interrupted_anywhere_stops_at_the_same_step(case: str, tmp_path: Path) -> None:
    whole = auto(**CUTS[case])
    parts = [auto(program=signalled([n]), out=tmp_path, resume=True, **CUTS[case])
             for n in (1, 7, 64, 71, 29)]  # fmt: skip
    assert [part.stopped for part in parts] == ["SIGTERM"] * 5
    assert len({part.step % 5 for part in parts}) > 1
    resumed = auto(out=tmp_path, resume=True, **CUTS[case])
    assert parts[-1].step < resumed.step
    assert differences(ended(whole), ended(resumed)) == []


def test_rule_that_joins_a_run_midway_counts_its_steps(tmp_path: Path) -> None:
    auto(steps=33, out=tmp_path)
    with pytest.warns(UserWarning, match="not converged after 60 steps"):
        auto(out=tmp_path, resume=True, steps=UntilConverged(max_steps=60))


@pytest.mark.parametrize("sizes", [[1], [7], [3, 250, 1]])
def test_blocks_are_the_same_however_the_bounds_come(sizes: list[int]) -> None:
    bounds = noise(1, 5600, 0.5, seed=6)[:, 0].tolist()  # so many that blocks are joined, twice
    whole, parts = BoundWatch(UntilConverged()), BoundWatch(UntilConverged())
    whole.add(bounds)
    while parts.step < len(bounds):
        for size in sizes:
            parts.add(bounds[parts.step : parts.step + size])
    assert whole.block == 20
    assert whole.state_dict() == parts.state_dict()


def test_minibatches_are_judged_in_whole_epochs() -> None:
    run = auto(epochs="auto", steps=None, batch_size=20)
    assert run.stopped == "converged"
    assert run.step % 2 == 0


def test_end_without_convergence_is_said() -> None:
    with pytest.warns(UserWarning, match=r"not converged after 260 steps: the bound's trend is"):
        run = auto(learning_rate=1e-4, steps=UntilConverged(tolerance=0.001, max_steps=260))
    assert run.stopped == "finished"


def test_changed_learning_rate_starts_anew() -> None:
    watch = BoundWatch(UntilConverged())
    for step in range(400):
        watch.add([float(step % 7)])
        if watch.is_due or step % 10 == 9:
            watch.look([torch.zeros(1)], rate=0.1 if step < 100 else 0.01)
    assert watch.start == 110


@pytest.mark.parametrize("settings", [{"steps": "atuo"}, {"steps": None, "epochs": "atuo"}])
def test_other_words_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected a number or 'auto'; got 'atuo'"):
        auto(**settings)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: UntilConverged(tolerance=0.0), "tolerance: must be positive"),
        (lambda: UntilConverged(max_steps=0), "max_steps: must be at least 1"),
        (lambda: auto(epochs=3), "give either epochs or steps"),
    ],
)
def test_nonsense_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_parameters_on_their_way_are_not_converged() -> None:
    way = [torch.tensor([float(i)]) for i in range(5)]
    assert stopping.straightness(way) == 4.0
    assert Rise(0.5, 0.0, 1.0, 100, 0.25).is_over
    assert not Rise(0.5, 0.0, 1.0, 100, stopping.straightness(way)).is_over
