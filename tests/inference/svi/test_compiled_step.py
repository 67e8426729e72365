"""`compiled_step` makes the steps of Pyro's `SVI`, with the state in the user's optimizer."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.distributions import constraints
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor

from aevb import inference, models
from aevb.inference import ELBO, IWAE, Program, compiled_step

ADAM = functools.partial(torch.optim.Adam, lr=1e-2)
X = (torch.rand(60, 12, generator=torch.Generator().manual_seed(3)) > 0.5).float()
BATCHES = [*X.split(20)] * 4
ROUNDING: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


def vae() -> models.VAE:
    torch.manual_seed(1)
    return models.VAE((12,), latent_dim=2, hidden=[8])


def coin() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """As in Pyro's first tutorial of SVI, with parameters that come to be at the first run."""

    def model(data: Tensor) -> None:
        fairness = pyro.sample("fairness", dist.Beta(10.0, 10.0))
        with pyro.plate("data", len(data)):
            pyro.sample("flip", dist.Bernoulli(fairness), obs=data)

    def guide(data: Tensor) -> None:
        del data
        a = pyro.param("a", torch.tensor(15.0), constraint=constraints.positive)
        b = pyro.param("b", lambda: torch.tensor(15.0), constraint=constraints.positive)
        pyro.sample("fairness", dist.Beta(a, b))

    return model, guide


def weights(program: Any) -> Tensor:
    return torch.cat([p.detach().flatten() for p in program.parameters()])


def make_steps(step: Any, batches: list[Tensor], seed: int = 7) -> Tensor:
    torch.manual_seed(seed)
    return torch.stack([step(x) for x in batches])


@pytest.mark.parametrize("level", ["eager", "traced", "compiled"])
def test_steps_are_those_of_svi(level: str) -> None:
    ours, theirs = vae(), vae()
    step = compiled_step(ours, ADAM(ours.parameters()), ELBO(), X[:20], compile=level)
    bounds = make_steps(step, BATCHES)
    assert step.level == level
    svi = SVI(theirs.model, theirs.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    torch.manual_seed(7)
    losses = torch.tensor([svi.step(x) for x in BATCHES])
    torch.testing.assert_close(bounds, -losses, **ROUNDING)
    torch.testing.assert_close(weights(ours), weights(theirs), **ROUNDING)
    assert not torch.allclose(weights(ours), weights(vae()), **ROUNDING)


def test_program_of_the_tutorial_is_trained() -> None:
    flips = torch.tensor([1.0] * 6 + [0.0] * 4)
    parameters = []
    for level in ("eager", "traced"):
        program = Program(*coin())
        step = compiled_step(program, ADAM, ELBO(), flips, compile=level)
        make_steps(step, [flips] * 30)
        assert step.level == level
        parameters.append(weights(program))
    torch.testing.assert_close(*parameters, **ROUNDING)
    svi = SVI(*coin(), pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    torch.manual_seed(7)
    for _ in range(30):
        svi.step(flips)
    store = pyro.get_param_store()
    theirs = torch.stack([store[name].log() for name in ("a", "b")]).detach()
    pyro.clear_param_store()
    torch.testing.assert_close(parameters[0], theirs, **ROUNDING)


@pytest.mark.parametrize("fresh", [True, False])
def test_state_is_saved_and_loaded_with_the_optimizer(fresh: bool) -> None:
    """Into new objects, or into those whose graph reads the state that is replaced."""
    whole = vae()
    step = compiled_step(whole, ADAM(whole.parameters()), ELBO(), X[:20], compile="traced")
    make_steps(step, BATCHES)
    saved = copy.deepcopy((whole.state_dict(), step.optimizer.state_dict()))
    make_steps(step, BATCHES, seed=8)
    resumed = vae() if fresh else whole
    if fresh:
        step = compiled_step(resumed, ADAM, ELBO(), X[:20], compile="traced")
    expected = weights(whole)
    resumed.load_state_dict(saved[0])
    step.optimizer.load_state_dict(saved[1])
    make_steps(step, BATCHES, seed=8)
    assert step.level == "traced"
    torch.testing.assert_close(weights(resumed), expected, **ROUNDING)
    assert all(float(s["step"]) == 2 * len(BATCHES) for s in step.optimizer.state.values())


def test_other_arguments_are_eager_steps() -> None:
    batches = [X[:20], X[:20], X[20:27], X[:20], X[:3]]
    trained = []
    for level in ("eager", "traced"):
        program = vae()
        step = compiled_step(program, ADAM, IWAE(3), X[:20], compile=level)
        make_steps(step, batches)
        trained.append(weights(program))
        assert len(step._stepper._graphs) == (level == "traced")
    torch.testing.assert_close(*trained, **ROUNDING)


def test_arguments_have_names_and_values_besides_tensors() -> None:
    def model(x: Tensor, *, scale: float, other: dict[str, Tensor]) -> None:
        mean = pyro.sample("mean", dist.Normal(other["loc"], 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, scale), obs=x)

    named: dict[str, Any] = {"scale": 2.0, "other": {"loc": torch.tensor(1.0)}}
    found = []
    for level in ("eager", "traced"):
        program = Program(model, pyro.infer.autoguide.AutoNormal(model))
        step = compiled_step(program, ADAM, ELBO(), X[:, 0], compile=level, **named)
        torch.manual_seed(0)
        bounds = [step(X[:, 0], **named) for _ in range(3)]
        bounds += [step(X[:, 0], **{**named, "scale": 3.0}) for _ in range(2)]
        found.append(torch.stack([*bounds, weights(program).sum()]))
    torch.testing.assert_close(*found, **ROUNDING)


def test_several_steps_are_the_single_ones() -> None:
    single, together = vae(), vae()
    one = compiled_step(single, ADAM, ELBO(), X[:20], compile="traced")
    bounds = make_steps(one, BATCHES)
    several = compiled_step(together, ADAM, ELBO(), X[:20], compile="traced")
    torch.manual_seed(7)
    total = several.many([(x,) for x in BATCHES])
    torch.testing.assert_close(total, bounds.double().sum(), **ROUNDING)
    assert torch.equal(weights(single), weights(together))


def test_program_without_a_graph_runs_eagerly() -> None:
    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        shift = 1.0 if float(mean.detach()) > 0 else 0.0
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean + shift, 1.0), obs=x)

    program = Program(model, pyro.infer.autoguide.AutoNormal(model))
    step = compiled_step(program, ADAM, ELBO(), X[:, 0], compile="traced")
    with pytest.warns(UserWarning, match="training steps run eagerly"):
        make_steps(step, [X[:, 0]] * 3)
    assert step.level == "eager"


def test_what_nobody_would_train_is_refused() -> None:
    program = Program(*coin())
    early = ADAM([torch.zeros(1, requires_grad=True)])
    with pytest.raises(ValueError, match=r"lacks param_sites.site/a, param_sites.site/b, created"):
        compiled_step(program, early, ELBO(), X[:, 0])
    with pytest.raises(ValueError, match="no trainable parameter of the program"):
        compiled_step(vae(), early, ELBO(), X)
    with pytest.raises(ValueError, match="program: expected one of our models"):
        compiled_step(coin()[0], ADAM, ELBO(), X)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="compile: expected one of"):
        compiled_step(vae(), ADAM, ELBO(), X, compile="fast")


def test_part_of_the_parameters_may_be_trained_and_the_mode_is_kept() -> None:
    program = vae()
    program.eval()
    program.encoder.train()
    before = weights(program)
    part = ADAM(program.decoder.parameters())
    step = compiled_step(program, part, ELBO(), X[:20], compile="traced")
    make_steps(step, BATCHES)
    assert (program.training, program.encoder.training) == (False, True)
    trained = {id(p) for p in program.decoder.parameters()}
    start = iter(before.split([p.numel() for p in program.parameters()]))
    moved = {id(p) for p in program.parameters() if not torch.equal(p.flatten(), next(start))}
    assert moved == trained


def test_program_stands_for_itself_between_the_steps_of_fit() -> None:
    program = models.VAE((12,), 2, [4], weights=models.LatentWeights())
    seen = []

    class Schedule(torch.optim.lr_scheduler.ConstantLR):
        def step(self, epoch: int | None = None) -> None:
            seen.append(copy.deepcopy(program).stands_for)
            super().step(epoch)

    program.tell_num_datapoints(33)
    inference.fit(program, X, epochs=2, batch_size=20, schedule=Schedule, device="cpu")
    assert set(seen) == {33}
    assert program.stands_for == 33


def test_what_is_trained_cannot_change_under_a_step() -> None:
    model, x = models.FactorAnalysis((5,), 2), torch.randn(20, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    step = inference.compiled_step(model, optimizer, inference.ELBO(), x, compile="traced")
    step(x)
    first = next(model.parameters()).requires_grad_(False)
    with pytest.raises(ValueError, match="a parameter was frozen"):
        step(x)
    first.requires_grad_(True)
    step(x)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(2))]})
    with pytest.raises(ValueError, match="got other parameters"):
        step(x)
