"""Steps of `fit` are those of Pyro's `SVI`, where data are subsampled and states enumerated."""

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch import Tensor, nn

from aevb import inference
from aevb.inference.svi.objectives import Objective

STATES, TONES = 3, 4
LENGTHS = torch.tensor([5, 4, 5, 3, 5, 2])
SONGS = (torch.arange(6 * 5 * TONES).reshape(6, 5, TONES) % 7 < 3).float()
TABLE = torch.linspace(-1.0, 2.0, 12).reshape(4, 3)
STEPS = 15
Program = Callable[..., Any]


def enumerating() -> Any:
    return TraceEnum_ELBO(max_plate_nesting=2, strict_enumeration_warning=False)


class Emission(nn.Module):
    """Logits of the tones from a state and the tones before."""

    def __init__(self) -> None:
        super().__init__()
        self.of_state = nn.Embedding(STATES, 5)
        self.of_tones = nn.Linear(TONES, 5)
        self.out = nn.Linear(5, TONES)

    def forward(self, state: Tensor, tones: Tensor) -> Tensor:
        return self.out(torch.relu(self.of_state(state) + self.of_tones(tones)))


def hidden_markov(batch_size: int | None) -> Program:
    """A network made at the first call, and a chain of enumerated states."""
    made: list[Emission] = []

    def model(songs: Tensor, lengths: Tensor) -> None:
        if not made:
            made.append(Emission())
        emission = pyro.module("emission", made[0])
        prior = dist.Dirichlet(0.9 * torch.eye(STATES) + 0.1).to_event(1)
        probs = pyro.sample("probs", prior)
        with pyro.plate("songs", len(songs), batch_size, dim=-2) as chosen:
            left = lengths[chosen]
            state, tones = torch.tensor(0), torch.zeros(TONES)
            for t in pyro.markov(range(int(left.max()))):
                with poutine.mask(mask=(t < left).unsqueeze(-1)):
                    state = pyro.sample(
                        f"state_{t}", dist.Categorical(probs[state]),
                        infer={"enumerate": "parallel"},
                    )  # fmt: skip
                    logits = emission(state.squeeze(-1), tones)
                    with pyro.plate(f"tones_{t}", TONES, dim=-1):
                        tones = pyro.sample(
                            f"tones_at_{t}", dist.Bernoulli(logits=logits),
                            obs=songs[chosen, t],
                        )  # fmt: skip

    return model


def summed_markov(batch_size: int | None) -> Program:
    """The states summed out by one distribution."""
    made: list[Emission] = []

    def model(songs: Tensor, lengths: Tensor) -> None:
        if not made:
            made.append(Emission())
        emission = pyro.module("emission", made[0])
        prior = dist.Dirichlet(0.9 * torch.eye(STATES) + 0.1).to_event(1)
        probs = pyro.sample("probs", prior)
        with pyro.plate("songs", len(songs), batch_size, dim=-1) as chosen:
            left = lengths[chosen]
            tones = songs[chosen, : int(left.max())]
            heard = dist.Bernoulli(logits=emission(torch.arange(STATES), tones.unsqueeze(-2)))
            times = torch.arange(tones.shape[1])
            seen = (times < left.unsqueeze(-1)).unsqueeze(-1)
            first = torch.full((STATES,), -torch.inf)
            first[0] = 0.0
            chain = dist.DiscreteHMM(first, probs.log(), heard.to_event(1).mask(seen))
            pyro.sample("tones", chain, obs=tones)

    return model


def nested(batch_size: int | None) -> Program:
    """Rows, some at a time, and columns."""

    def model(table: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
        columns = pyro.plate("columns", 3, dim=-1)
        with columns:
            b = pyro.sample("b", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 4, batch_size, dim=-2) as chosen, columns:
            pyro.sample("y", dist.Normal(mu + b, 1.0), obs=table[chosen])

    return model


def point_of_probs(model: Program) -> Any:
    return AutoDelta(poutine.block(model, expose=["probs"]))


@pytest.mark.parametrize("batch_size", [None, 3])
@pytest.mark.parametrize(
    ("make", "make_guide", "args", "objective", "loss"),
    [
        pytest.param(
            hidden_markov, point_of_probs, (SONGS, LENGTHS), inference.EnumeratedELBO(),
            enumerating, id="enumerated states",
        ),
        pytest.param(
            summed_markov, point_of_probs, (SONGS, LENGTHS), inference.EnumeratedELBO(),
            enumerating, id="states summed out",
        ),
        pytest.param(
            nested, AutoNormal, (TABLE,), inference.ELBO(), Trace_ELBO, id="nested plates"
        ),
    ],
)  # fmt: skip
def test_steps_from_one_state_are_those_of_svi_to_the_last_bit(
    make: Callable[[int | None], Program],
    make_guide: Callable[[Program], Any],
    args: tuple[Any, ...],
    objective: Objective,
    loss: Callable[[], Any],
    batch_size: int | None,
) -> None:
    beginning: dict[str, Any] = {}

    def optimizer(parameters: Any, lr: float) -> torch.optim.Optimizer:
        # made when `fit` has run both programs once, which takes random numbers, and before steps
        beginning["random"] = torch.get_rng_state()
        beginning["parameters"] = [p.detach().clone() for p in program.parameters()]
        return torch.optim.Adam(parameters, lr=lr)

    model = make(batch_size)
    guide = make_guide(model)
    program = inference.Program(model, guide)
    inference.fit(
        program, args, objective=objective, optimizer=optimizer, learning_rate=0.05,
        steps=STEPS, seed=7, device="cpu", compile="eager",
    )  # fmt: skip

    fresh = make(batch_size)
    other = make_guide(fresh)
    with torch.no_grad():
        fresh_trace = poutine.trace(poutine.replay(fresh, poutine.trace(other).get_trace(*args)))
        fresh_trace.get_trace(*args)  # every parameter exists from here on
        parameters = [
            *other.parameters(),
            *(p for net in networks(fresh) for p in net.parameters()),
        ]
        for parameter, value in zip(parameters, beginning["parameters"], strict=True):
            parameter.copy_(value)
    svi = SVI(fresh, other, pyro.optim.Adam({"lr": 0.05}), loss())
    torch.set_rng_state(beginning["random"])
    for _ in range(STEPS):
        svi.step(*args)
    pyro.clear_param_store()
    for ours, theirs in zip(program.parameters(), parameters, strict=True):
        assert torch.equal(ours, theirs)


def networks(model: Program) -> list[nn.Module]:
    """What a model has made at its first call."""
    cells = [cell.cell_contents for cell in model.__closure__ or ()]
    return [net for cell in cells if isinstance(cell, list) for net in cell]
