"""What a graph must not lose: closures, sites of errors, random state."""

from pathlib import Path

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from aevb.inference import NonFiniteLossError, Program, fit, load_checkpoint
from aevb.inference.graphs.compile import graph_function

from graph_programs import ROWS, located_guide, on_digits, on_rows, vae

# What a graph must not lose


def test_tensors_that_a_program_closes_over_are_followed() -> None:
    """A factor that the user changes between two parts of training, as in annealing."""
    factor = torch.ones(())

    def model(x: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(factor * m, 1.0).to_event(1), obs=x)

    changed = graph_function(lambda m: factor * m, torch.ones(3))
    factor.fill_(5.0)
    assert torch.equal(changed(torch.ones(3)), torch.full((3,), 5.0))
    on_rows(Program(model, located_guide), compile="traced", device="cpu")


@pytest.mark.parametrize("kept", [True, False])
def test_loss_that_breaks_in_a_graph_is_traced_to_its_site(kept: bool, tmp_path: Path) -> None:
    """log σ climbs with a huge learning rate until exp(log σ) overflows."""

    def model(x: Tensor) -> None:
        s = pyro.param("s", torch.zeros(()))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(torch.zeros(3), torch.exp(s)).to_event(1), obs=x * 1e15)

    def run(level: str, out: Path | None) -> NonFiniteLossError:
        program = Program(model, lambda x: None)
        with pytest.raises(NonFiniteLossError) as caught:
            fit(
                program,
                ROWS,
                steps=500,
                optimizer=torch.optim.SGD,
                learning_rate=1.0,
                compile=level,
                device="cpu",
                out=out,
                checkpoint_seconds=0.0,
            )
        return caught.value

    eager = run("eager", None)
    traced = run("traced", tmp_path if kept else None)
    assert "site 'x'" in str(eager) or "parameter" in str(eager)
    assert (traced.step, traced.site) == (eager.step, eager.site)
    if kept:
        weights = load_checkpoint(tmp_path / "checkpoint.safetensors")["weights"]
        assert all(bool(torch.isfinite(w).all()) for w in weights.values())


def test_random_state_outside_is_left_alone() -> None:
    program = vae()
    before = torch.get_rng_state()
    on_digits(program, compile="traced", device="cpu")
    assert torch.equal(before, torch.get_rng_state())
