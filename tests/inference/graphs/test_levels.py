"""Steps at every level against the steps that Pyro makes."""

import logging
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer.autoguide import (
    AutoDiagonalNormal,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from torch import Tensor
from torch.optim.lr_scheduler import MultiStepLR, ReduceLROnPlateau

from aevb import models
from aevb.inference import ELBO, Program, Run, fit
from aevb.inference.svi import steps as steps_module

from graph_programs import (
    DIGITS,
    ROWS,
    STEPS,
    assert_agree,
    needs_compiler,
    objectives,
    on_digits,
    on_rows,
    vae,
    weights,
)


def eight_schools() -> tuple[Callable[..., Any], Tensor, Tensor]:
    """Rubin (1981), non-centred."""
    y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    sigma = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

    def model(y: Tensor, sigma: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(5.0))
        with pyro.plate("schools", 8):
            offset = pyro.sample("offset", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(mu + tau * offset, sigma), obs=y)

    return model, y, sigma


def schools(make: Callable[..., Any], **kwargs: Any) -> Run:
    model, y, sigma = eight_schools()
    torch.manual_seed(2)
    return fit(Program(model, make(model)), (y, sigma), steps=STEPS, **kwargs)


def subsampled(**kwargs: Any) -> Run:
    """Global weights and a plate that draws its own minibatch."""
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(3))
    y = (x[:, 0] > 0).float()

    def model(x: Tensor, y: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(4), 1.0).to_event(1))
        with pyro.plate("data", len(x), subsample_size=20) as rows:
            pyro.sample("y", dist.Bernoulli(logits=x[rows] @ w), obs=y[rows])

    torch.manual_seed(2)
    return fit(Program(model, AutoNormal(model)), (x, y), steps=STEPS, **kwargs)


OPTIMIZERS = {
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "Adam, weight decay, amsgrad": partial(torch.optim.Adam, weight_decay=0.1, amsgrad=True),
    "Adamax": torch.optim.Adamax,
    "NAdam": torch.optim.NAdam,
    "RAdam": torch.optim.RAdam,
    "RMSprop": torch.optim.RMSprop,
    "RMSprop, centered": partial(torch.optim.RMSprop, centered=True, momentum=0.5),
    "Adagrad": partial(torch.optim.Adagrad, lr_decay=0.1),
    "SGD": torch.optim.SGD,
    "SGD, Nesterov": partial(
        torch.optim.SGD, momentum=0.9, nesterov=True, weight_decay=0.01, maximize=False
    ),
    "Adadelta, not in the graph": torch.optim.Adadelta,
}


def groups(parameters: Any, lr: float) -> torch.optim.Optimizer:
    """Parameters in another order than the program's, each half at a rate of its own."""
    parameters = list(parameters)
    late, early = parameters[6:], parameters[:6]
    return torch.optim.Adam([{"params": late}, {"params": early, "lr": lr / 10}], lr=lr)


def tensor_rate(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=torch.tensor(lr))


class Normalized(torch.nn.Module):
    """A guide with batch statistics, and a model that nothing learns from."""

    def __init__(self) -> None:
        super().__init__()
        self.normalize = torch.nn.BatchNorm1d(3)
        self.encode = torch.nn.Linear(3, 3)

    def forward(self, x: Tensor) -> None:
        pyro.module("normalize", self.normalize)
        pyro.module("encode", self.encode)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encode(self.normalize(x)), 1.0).to_event(1))


def latent_rows(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)


CASES: dict[str, Callable[..., Run]] = {
    "VAE": on_digits,
    "VAE, estimator B": partial(on_digits, objective=ELBO(analytic_kl=True)),
    "VAE, three particles": partial(on_digits, objective=ELBO(num_particles=3)),
    "VAE, prior over the weights": partial(on_digits, weight_prior_scale=1.0),
    "VAE, schedule": partial(on_digits, schedule=partial(MultiStepLR, milestones=[1, 3])),
    "VAE, plateau": partial(
        on_digits, schedule=partial(ReduceLROnPlateau, patience=0, threshold=1e9)
    ),
    "factor analysis": lambda **k: on_rows(models.FactorAnalysis((3,), 2), **k),
    "factor analysis, float64": lambda **k: fit(
        models.FactorAnalysis((3,), 2).double(), ROWS.double(), steps=STEPS, **k
    ),
    "groups in another order": partial(on_digits, optimizer=groups),
    "rate as a tensor": partial(
        on_digits, optimizer=tensor_rate, schedule=partial(MultiStepLR, milestones=[1, 3])
    ),
    "batch normalization": lambda **k: on_rows(Program(latent_rows, Normalized()), **k),
    "AutoNormal": partial(schools, AutoNormal),
    "AutoDiagonalNormal": partial(schools, AutoDiagonalNormal),
    "AutoMultivariateNormal": partial(schools, AutoMultivariateNormal),
    "AutoLowRankMultivariateNormal": partial(schools, AutoLowRankMultivariateNormal),
    "subsampled plate": subsampled,
    **{
        f"optimizer {name}": partial(on_digits, optimizer=make, learning_rate=1e-3)
        for name, make in OPTIMIZERS.items()
    },
}


# Slow tests; Adam, RAdam, centered RMSprop, Adagrad, Nesterov and Adadelta stand for them.
ALIKE = {
    f"optimizer {name}"
    for name in ("AdamW", "Adam, weight decay, amsgrad", "Adamax", "NAdam", "RMSprop", "SGD")
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.slow if case in ALIKE else ()) for case in CASES],
)
def test_traced_steps_are_the_eager_ones(case: str) -> None:
    torch.manual_seed(1)
    eager = CASES[case](compile="eager", device="cpu")
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        traced = CASES[case](compile="traced", device="cpu")
    assert traced.level == "traced"
    assert_agree(traced, eager)


def test_other_draws_would_not_agree() -> None:
    with pytest.raises(AssertionError):
        assert_agree(
            on_digits(compile="traced", device="cpu"),
            on_digits(compile="eager", device="cpu", seed=1),
        )


@needs_compiler
@pytest.mark.parametrize("case", ["VAE", "AutoNormal"])
def test_compiled_steps_are_the_eager_ones(case: str) -> None:
    torch.manual_seed(1)
    eager = CASES[case](compile="eager", device="cpu")
    torch.manual_seed(1)
    validate = torch.distributions.Distribution._validate_args
    compiled = CASES[case](compile="compiled", device="cpu")
    assert compiled.level == "compiled"
    assert_agree(compiled, eager)
    # building a compiler switches validation off for the process unless it is put back
    assert torch.distributions.Distribution._validate_args is validate
    with pytest.raises(ValueError, match="support"):
        torch.distributions.Bernoulli(torch.tensor(0.5)).log_prob(torch.tensor(0.3))


def test_same_seed_same_bits() -> None:
    one, two = (on_digits(compile="traced", device="cpu") for _ in range(2))
    assert torch.equal(weights(one), weights(two))


@pytest.mark.parametrize(("first", "second"), [("eager", "traced"), ("traced", "eager")])
def test_checkpoints_fit_both_levels(first: str, second: str, tmp_path: Path) -> None:
    whole = on_digits(epochs=6, compile="eager", device="cpu")
    on_digits(epochs=3, compile=first, device="cpu", out=tmp_path)
    resumed = on_digits(epochs=6, compile=second, device="cpu", out=tmp_path, resume=True)
    assert (resumed.level, resumed.step) == (second, whole.step)
    assert_agree(resumed, whole)


def test_auto_run_resumes_at_the_level_it_had(tmp_path: Path) -> None:
    on_digits(epochs=3, compile="traced", device="cpu", out=tmp_path)
    resumed = on_digits(epochs=6, compile="auto", device="cpu", out=tmp_path, resume=True)
    assert resumed.level == "traced"


@pytest.mark.parametrize(("price", "level"), [(1e9, "eager"), (0.0, "traced")])
def test_auto_makes_a_graph_when_the_work_ahead_repays_it(
    price: float, level: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(steps_module, "_WORTH_TRACING", price)
    monkeypatch.setattr(steps_module, "_WORTH_COMPILING", 1e9)
    caplog.set_level(logging.INFO, logger="aevb.inference.svi.steps")
    assert on_digits(epochs=20, compile="auto", device="cpu").level == level
    (line,) = [r.getMessage() for r in caplog.records]
    assert line.startswith(f"training steps: {level}, because only")


@pytest.mark.parametrize("level", ["eager", "traced"])
def test_bf16_rounds_products_and_nothing_else(level: str) -> None:
    run = on_digits(compile=level, device="cpu", precision="bf16")
    exact = on_digits(compile=level, device="cpu")
    assert run.level == level
    assert all(p.dtype == torch.float32 for p in run.program.parameters())
    gap = (objectives(run) - objectives(exact)).abs().max()
    # a product of 64 factors rounded to 8 bits is off by about 2**-9 of its size, not by nothing
    assert 0 < float(gap) < 2**-6 * float(objectives(exact).abs().max())


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="precision: expected one of float32, tf32, bf16"):
        fit(vae(), DIGITS.train, epochs=1, precision="fp8", device="cpu")


@pytest.mark.parametrize("case", ["VAE", "VAE, schedule", "AutoNormal"])
def test_blocks_of_steps_are_the_single_ones(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU launches as one; on a CPU the same bookkeeping with plain calls."""
    torch.manual_seed(1)
    single = CASES[case](compile="traced", device="cpu")
    monkeypatch.setattr(steps_module, "_BLOCK", {"cpu": 2})
    blocks = []
    many = steps_module.Stepper.many

    def counted(self: Any, inputs: Any) -> Tensor:
        blocks.append(len(inputs))
        return many(self, inputs)

    monkeypatch.setattr(steps_module.Stepper, "many", counted)
    torch.manual_seed(1)
    together = CASES[case](compile="traced", device="cpu")
    assert blocks
    assert torch.equal(weights(single), weights(together))
    torch.testing.assert_close(objectives(single), objectives(together), rtol=1e-12, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("level", ["traced", "compiled"])
def test_recorded_cuda_graphs_are_the_eager_steps(level: str) -> None:
    """With the exact posterior as guide the gradients do not depend on the draws."""
    settings: dict[str, Any] = {"steps": 40, "log_every": 40, "device": "cuda"}
    runs = []
    for how in ("eager", level):
        torch.manual_seed(1)
        runs.append(fit(models.FactorAnalysis((3,), 2), ROWS, compile=how, **settings))
    assert runs[1].level == level
    assert_agree(runs[1], runs[0])
