"""Losses and parameters that are not finite end training with their site and a checkpoint."""

import math
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from aevb.inference import CHECKPOINT, ELBO, NonFiniteLossError, Program, fit, load_checkpoint

from small_trainings import OBJECTIVES, ROWS, breaking, differences, location, outcome

BROKEN_SITES = [
    ("model", math.nan, "site 'x' of the model has log-probability nan"),
    ("model", math.inf, "site 'x' of the model has log-probability -inf"),
    ("guide", math.nan, "site 'location' of the guide has a value that is not finite"),
    ("guide", math.inf, "site 'location' of the guide has a value that is not finite"),
]


@pytest.mark.parametrize(("where", "value", "site"), BROKEN_SITES)
def test_loss_that_is_not_finite_stops_with_step_site_and_checkpoint(
    where: str, value: float, site: str, tmp_path: Path
) -> None:
    with pytest.raises(NonFiniteLossError) as caught:
        fit(breaking(where, value, 5), ROWS, steps=20, device="cpu", out=tmp_path)
    error = caught.value
    assert (error.step, error.site, error.checkpoint) == (5, site, tmp_path / CHECKPOINT)
    kept = f"last good checkpoint: {tmp_path}/{CHECKPOINT}"
    assert str(error) == f"loss is not finite at step 5: {site}; {kept}"


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_site_is_named_though_one_draw_in_a_hundred_breaks_it(objective: ELBO) -> None:
    """The draws of the failing step are made again, all particles of them."""

    def model(x: Tensor) -> None:
        m = pyro.sample("location", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            scale = torch.where(m > 2.3, math.nan, 1.0)
            pyro.sample("x", dist.Normal(m, scale), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("location", dist.Normal(pyro.param("loc", torch.zeros(())), 1.0))

    settings: dict[str, Any] = {"steps": 2000, "learning_rate": 1e-9, "device": "cpu"}
    with pytest.raises(NonFiniteLossError, match="site 'x' of the model has log-probability nan"):
        fit(Program(model, guide), ROWS[:, 0], objective=objective, **settings)


def test_checkpoint_of_a_failed_run_resumes_to_the_healthy_one(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 20, "device": "cpu", "checkpoint_seconds": 0.0}
    whole = fit(breaking("model", 0.0, 5), ROWS, out=tmp_path / "whole", **settings)
    with pytest.raises(NonFiniteLossError):
        fit(breaking("model", math.nan, 5), ROWS, out=tmp_path / "parts", **settings)
    assert load_checkpoint(tmp_path / "parts" / CHECKPOINT)["counters"]["step"] == 4
    healthy = breaking("model", 0.0, 5)
    resumed = fit(healthy, ROWS, out=tmp_path / "parts", resume=True, **settings)
    assert differences(outcome(whole), outcome(resumed)) == []


def steep(x: Tensor) -> None:
    """A finite loss whose gradient at the start, d√(w²)/dw at 0, is NaN."""
    w = pyro.param("w", torch.zeros(3))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(w.square().sqrt(), 1.0).to_event(1), obs=x)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("kept", [True, False])
def test_parameter_that_is_not_finite_is_named(steps: int, kept: bool, tmp_path: Path) -> None:
    program, out = Program(steep, lambda x: None), tmp_path if kept else None
    with pytest.raises(NonFiniteLossError, match=r"parameter 'param_sites\.site/w'") as caught:
        fit(program, ROWS, steps=steps, device="cpu", out=out)
    assert (caught.value.step, caught.value.checkpoint) == (steps, out and out / CHECKPOINT)


def test_parameter_that_is_not_finite_is_named_before_it_is_validated() -> None:
    program, settings = Program(steep, lambda x: None), {"validation": ROWS, "log_every": 1}
    with pytest.raises(NonFiniteLossError, match=r"at step 1: parameter 'param_sites\.site/w'"):
        fit(program, ROWS, steps=2, device="cpu", **settings)


def test_weights_that_are_not_finite_never_reach_the_checkpoint(tmp_path: Path) -> None:
    program = Program(steep, lambda x: None)
    with pytest.raises(NonFiniteLossError):
        fit(program, ROWS, steps=9, device="cpu", out=tmp_path, checkpoint_seconds=0.0)
    weights = load_checkpoint(tmp_path / CHECKPOINT)["weights"]
    assert differences(weights, {"param_sites.site/w": torch.zeros(3)}) == []


def test_validation_elbo_that_is_nan_stops_training() -> None:
    settings: dict[str, Any] = {"batch_size": 20, "device": "cpu"}
    held_out = torch.full((1001, 3), 2.0)  # in blocks of 1000
    held_out[-1] = math.nan
    with pytest.raises(NonFiniteLossError, match="at step 2: the validation ELBO is nan"):
        fit(location(), ROWS, epochs=2, validation=held_out, **settings)
