"""Steps as graphs against the steps that Pyro makes."""

import argparse
import collections
import itertools
import logging
import random
import shutil
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import config_enumerate
from pyro.infer.autoguide import (
    AutoDiagonalNormal,
    AutoIAFNormal,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
)
from pyro.optim.clipped_adam import ClippedAdam
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR, OneCycleLR, ReduceLROnPlateau

from aevb import data, models
from aevb.inference import ELBO, NonFiniteLossError, Program, Run, fit, load_checkpoint
from aevb.inference.graphs import matmul as kernels
from aevb.inference.graphs.compile import graph_function
from aevb.inference.graphs.matmul import choose_matmul_kernels
from aevb.inference.graphs.passes import compile_graph
from aevb.inference.graphs.scalars import keep_small_values
from aevb.inference.graphs.tracing import NotTraceableError, trace_graph
from aevb.inference.svi import steps as steps_module

STEPS = 12
ROWS = torch.randn(40, 3, generator=torch.Generator().manual_seed(5))
DIGITS = data.load("digits", binarize="dynamic")
needs_compiler = pytest.mark.skipif(
    shutil.which("c++") is None and shutil.which("g++") is None, reason="needs a C++ compiler"
)


def vae(**kwargs: Any) -> models.VAE:
    torch.manual_seed(1)
    return models.VAE((8, 8), latent_dim=3, hidden=[16], **kwargs)


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


def on_digits(program: Any = None, **kwargs: Any) -> Run:
    settings = {"batch_size": 500, "epochs": 4, **kwargs}  # 500, 500 and a short batch of 297
    return fit(program or vae(), DIGITS.train, **settings)


def on_rows(program: Any, **kwargs: Any) -> Run:
    torch.manual_seed(1)
    return fit(program, ROWS, steps=STEPS, log_every=1, **kwargs)


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


def weights(run: Run) -> Tensor:
    return torch.cat([p.detach().flatten().double() for p in run.program.parameters()])


def objectives(run: Run) -> Tensor:
    return torch.tensor([row["train_objective"] for row in run.history], dtype=torch.float64)


def assert_agree(a: Run, b: Run) -> None:
    """Equal to the rounding of some tens of float32 updates."""
    torch.testing.assert_close(objectives(a), objectives(b), rtol=2e-5, atol=1e-5)
    # an update of Adam has the size of the learning rate even where a gradient is mere rounding,
    # so a few entries may part; in the norm they do not show
    moved = torch.linalg.vector_norm(weights(a) - weights(b)) / torch.linalg.vector_norm(
        weights(b)
    )
    assert float(moved) < 1e-4


@pytest.mark.parametrize("case", list(CASES))
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


# Programs that have no graph


def discrete(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(k.unsqueeze(-1), 1.0).expand([len(x), 3]).to_event(1), obs=x)


def discrete_guide(x: Tensor) -> None:
    p = pyro.param("p", torch.tensor(0.4), constraint=dist.constraints.unit_interval)
    with pyro.plate("data", len(x)):
        pyro.sample("k", dist.Bernoulli(p))


def located(shift: Callable[[Tensor], Any]) -> Callable[[Tensor], None]:
    def model(x: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(m + shift(m), 1.0).to_event(1), obs=x)

    return model


def located_guide(x: Tensor) -> None:
    loc = pyro.param("loc", torch.zeros(3))
    pyro.sample("m", dist.Normal(loc, 0.5).to_event(1))


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


def recorded(function: Callable[..., Any], *inputs: Tensor) -> tuple[Any, dict[Any, Any]]:
    """A graph, and the value of each of its nodes."""
    graph = trace_graph(function, list(inputs))
    values: dict[Any, Any] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: Any) -> Any:
            values[n] = super().run_node(n)
            return values[n]

    Recorder(graph, garbage_collect_values=False).run(*inputs)
    return graph, values


@pytest.mark.parametrize("activation", [torch.tanh, torch.sigmoid, torch.relu])
def test_large_products_are_the_same_by_either_library(
    activation: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_onednn_is_faster", lambda: True)
    torch.manual_seed(0)
    x, w, b = torch.randn(128, 784), torch.randn(512, 784) / 28, torch.randn(512)

    def layers(x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor]:
        hidden = activation(torch.addmm(b, x, w.t()))
        return (hidden @ w + (hidden.t() @ x).sum(),)

    graph, values = recorded(layers, x, w, b)
    changed = choose_matmul_kernels(graph, values)
    assert changed == (3 if torch.backends.mkldnn.is_available() else 0)
    left = [node for node in graph.graph.nodes if activation.__name__ in str(node.target)]
    assert len(left) == (activation is torch.relu or changed == 0)
    exact = layers(x.double(), w.double(), b.double())[0]
    # sums of 784 + 128 * 512 products
    error = (graph(x, w, b)[0] - exact).abs().max()
    assert float(error / exact.abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("vendor", "family", "unused"),
    [("AuthenticAMD", 26, True), ("AuthenticAMD", 25, False), ("GenuineIntel", 26, False)],
)
def test_library_of_products_goes_by_the_processor(vendor: str, family: int, unused: bool) -> None:
    linux = f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: 17\n"
    windows = f"AMD64 Family {family} Model 17 Stepping 1, {vendor}"
    assert kernels._has_unused_half(linux) is kernels._has_unused_half(windows) is unused
    assert not kernels._has_unused_half("arm")


def test_activation_of_a_product_with_two_uses_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_onednn_is_faster", lambda: True)
    torch.manual_seed(0)
    x, w = torch.randn(128, 784), torch.randn(784, 512) / 28

    def both(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        product = x @ w
        return product, torch.tanh(product)

    graph, values = recorded(both, x, w)
    choose_matmul_kernels(graph, values)
    for result, exact in zip(graph(x, w), both(x.double(), w.double()), strict=True):
        torch.testing.assert_close(result.double(), exact, rtol=1e-4, atol=1e-5)


def scaled(x: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """As an optimizer: costly scalars for every element, and a cheap one."""
    step.add_(1)
    correction = (1 - torch.pow(0.9, step)).sqrt()
    shifted = x / correction + (step + 1)
    correction.mul_(2)
    return shifted, x * correction


def test_costly_scalar_is_stored_before_it_is_broadcast() -> None:
    x, step = torch.linspace(0, 1, 64), torch.tensor(3.0)
    graph, values = recorded(scaled, x, step)
    assert keep_small_values(graph, values) == 2
    names = [str(node.target) for node in graph.graph.nodes]
    stored = [number for number, name in enumerate(names) if "as_strided" in name]
    assert len(stored) == 2
    assert "sqrt" in names[stored[0] - 1]
    for result, expected in zip(graph(x, step.fill_(3)), scaled(x, step.fill_(3)), strict=True):
        torch.testing.assert_close(result, expected)
    graph, values = recorded(scaled, x[:8], step)
    assert keep_small_values(graph, values) == 0  # not worth it


@needs_compiler
def test_stored_scalars_survive_the_compiler() -> None:
    x, step = torch.linspace(0, 1, 64), torch.tensor(3.0)
    graph, values = recorded(scaled, x, step)
    keep_small_values(graph, values)
    compiled = compile_graph(graph, [x, step])
    results = compiled(x, step.fill_(3))
    for result, expected in zip(results, scaled(x, step.fill_(3)), strict=True):
        torch.testing.assert_close(result, expected)


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


class Tied(nn.Module):
    """A VAE of one layer whose parts a test replaces."""

    def __init__(self, size: int = 6) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.enc, self.dec = nn.Linear(size, 4), nn.Linear(2, size)
        self.extra = nn.Parameter(torch.tensor(0.3))

    def encode(self, x: Tensor) -> Tensor:
        return self.enc(x)

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.dec(z), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        loc, log_scale = self.encode(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


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


FLOATS = torch.randn(40, 6, generator=torch.Generator().manual_seed(8))


def tried(program: Tied, level: str, **kwargs: Any) -> Run:
    settings = {"steps": 9, "batch_size": 10, "learning_rate": 0.01, **kwargs}
    random.seed(4)
    return fit(program, FLOATS, compile=level, seed=2, device="cpu", progress=False, **settings)


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


def test_views_of_memory_are_not_stored_from_its_start() -> None:
    def pair(x: Tensor, temps: Tensor) -> tuple[Tensor]:
        temps = temps.exp()
        return (x * temps[1].div_(2.0),)

    x, temps = torch.ones(64), torch.tensor([0.0, 2.0])
    graph, values = recorded(pair, x, temps)
    keep_small_values(graph, values)
    torch.testing.assert_close(graph(x, temps)[0], pair(x, temps)[0])


@pytest.mark.parametrize("bias", [torch.randn(512, 2)[:, 0], torch.randn(1).expand(512)])
def test_bias_of_any_layout_is_added(bias: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_onednn_is_faster", lambda: True)
    x, w = torch.randn(128, 784), torch.randn(512, 784)
    graph, values = recorded(lambda x, w, b: (torch.addmm(b, x, w.t()),), x, w, bias)
    choose_matmul_kernels(graph, values)
    expected = torch.addmm(bias.double(), x.double(), w.t().double())
    torch.testing.assert_close(graph(x, w, bias)[0].double(), expected, rtol=1e-4, atol=1e-3)


def test_function_that_freezes_a_value_is_refused() -> None:
    with pytest.raises(NotTraceableError, match="differs for other inputs"):
        graph_function(lambda x: x * float(x.numpy()[0]), torch.tensor([2.0, 3.0]))


@pytest.mark.parametrize("level", ["traced", "compiled"])
def test_a_graph_reads_inputs_that_lie_otherwise_in_memory(level: str) -> None:
    """Compiled code reads memory as it lay in the example."""

    def function(u: Tensor, temperature: Tensor) -> Tensor:
        return (u * temperature.unsqueeze(-1)).sum(-1)

    u, contiguous, columns = torch.randn(4, 3, 2), torch.rand(3), torch.rand(3, 7).T
    for example in (contiguous, columns[0], torch.rand(1).expand(3)):
        graph = graph_function(function, u, example, level=level)
        for other in (contiguous, columns[3], torch.rand(1).expand(3)):
            torch.testing.assert_close(graph(u, other), function(u, other))
