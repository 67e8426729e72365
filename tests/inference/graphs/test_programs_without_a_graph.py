"""Programs that have no graph run eagerly, with one warning."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import config_enumerate
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from aevb import models
from aevb.inference import Program, fit

from graph_programs import (
    DIGITS,
    ROWS,
    STEPS,
    assert_agree,
    located,
    located_guide,
    objectives,
    on_digits,
    vae,
    weights,
)

# Programs that have no graph


def discrete(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(k.unsqueeze(-1), 1.0).expand([len(x), 3]).to_event(1), obs=x)


def discrete_guide(x: Tensor) -> None:
    p = pyro.param("p", torch.tensor(0.4), constraint=dist.constraints.unit_interval)
    with pyro.plate("data", len(x)):
        pyro.sample("k", dist.Bernoulli(p))


def annealing() -> Callable[[Tensor], float]:
    """A factor that Python raises by a little at each call."""
    calls = [0]

    def factor(_: Tensor) -> float:
        calls[0] += 1
        return calls[0] / 1e4

    return factor


def scheduled() -> Callable[[Tensor], float]:
    """A factor that comes from a generator."""
    factors = (0.1 * number for number in itertools.count())
    return lambda _: next(factors)


REFUSED: dict[str, tuple[Callable[[], Program], str]] = {
    "score function": (
        lambda: Program(discrete, discrete_guide),
        r"site 'k' \(Bernoulli\) needs a score-function estimator",
    ),
    "enumeration": (
        lambda: Program(discrete, config_enumerate(discrete_guide)),
        "site 'k' is enumerated",
    ),
    "branch on a value": (
        lambda: Program(located(lambda m: 1.0 if bool(m.sum() > 0) else 0.0), located_guide),
        "after site 'm': RuntimeError: Python needs the value of a tensor",
    ),
    "counter of Python": (
        lambda: Program(located(annealing()), located_guide),
        r"program.model_program: shift: calls\[0\] changes when the program runs",
    ),
    "iterator": (
        lambda: Program(located(scheduled()), located_guide),
        "program.model_program: shift: factors is an iterator",
    ),
}


@pytest.mark.parametrize("case", list(REFUSED))
@pytest.mark.filterwarnings("ignore:Found vars")
def test_program_without_a_graph_runs_eagerly_with_one_warning(case: str) -> None:
    make, message = REFUSED[case]
    torch.manual_seed(1)
    eager = fit(make(), ROWS, steps=STEPS, compile="eager", device="cpu")
    torch.manual_seed(1)
    with pytest.warns(UserWarning, match=f"training steps run eagerly: ({message})") as caught:
        run = fit(make(), ROWS, steps=STEPS, compile="traced", device="cpu")
    assert len([w for w in caught if "run eagerly" in str(w.message)]) == 1
    assert run.level == "eager"
    assert torch.equal(weights(run), weights(eager))


def test_cycling_momentum_runs_eagerly_with_one_warning() -> None:
    schedule = partial(OneCycleLR, max_lr=1e-2, total_steps=10)
    eager = on_digits(schedule=schedule, compile="eager", device="cpu")
    with pytest.warns(UserWarning, match="hyperparameters of the optimizer other than the"):
        run = on_digits(schedule=schedule, compile="traced", device="cpu")
    assert_agree(run, eager)


def test_subsampled_plate_is_normalized_by_what_it_stands_for() -> None:
    """The Pyro idiom of a plate of N with a minibatch inside reports as the whole data do."""
    x = ROWS[:, 0].double()

    def model(x: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
        with pyro.plate("data", 40, subsample_size=len(x)):
            pyro.sample("x", dist.Normal(m, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", torch.zeros((), dtype=torch.float64))
        pyro.sample("m", dist.Uniform(loc - 1e-6, loc + 1e-6))  # whose density has no noise

    settings: dict[str, Any] = {"learning_rate": 1e-12, "device": "cpu", "validation": x}
    whole = fit(Program(model, guide), x, epochs=1, log_every=1, **settings)
    parts = fit(Program(model, guide), x, epochs=1, batch_size=10, **settings)
    assert objectives(parts)[0] == pytest.approx(float(objectives(whole)[0]), rel=1e-5)
    for run in (whole, parts):
        validated = run.history[0]["validation_elbo"]
        assert validated == pytest.approx(run.history[0]["train_objective"], rel=1e-5)


def test_parameter_that_appears_in_the_middle_is_refused() -> None:
    calls = [0]

    def model(x: Tensor) -> None:
        calls[0] += 1
        shift = pyro.param("late" if calls[0] > 5 else "other", torch.zeros(3))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(shift, 1.0).to_event(1), obs=x)

    program = Program(model, lambda x: None)
    with pytest.raises(ValueError, match="parameter 'late' appears for the first time in the mid"):
        fit(program, ROWS, steps=20, compile="eager", device="cpu")


def test_lbfgs_runs_eagerly() -> None:
    fa = models.FactorAnalysis((3,), 2)
    with pytest.warns(UserWarning, match="LBFGS evaluates the loss several times"):
        run = fit(
            fa,
            ROWS,
            steps=3,
            optimizer=torch.optim.LBFGS,
            learning_rate=0.1,
            compile="traced",
            device="cpu",
        )
    assert run.level == "eager"


def test_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="compile: expected one of auto, eager, traced, compiled"):
        fit(vae(), DIGITS.train, epochs=1, compile="fast", device="cpu")
