"""Training: exact resumption, loud failures, the objective as written, and nothing left behind."""

import csv
import logging
import math
import os
import random
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.distributions import constraints
from pyro.infer import autoguide
from pyro.infer import trace_mean_field_elbo as mean_field
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR, ReduceLROnPlateau

from aevb import data, inference, models
from aevb.cli import main
from aevb.inference import CHECKPOINT, ELBO, NonFiniteLossError, Program, Run, fit, load_checkpoint
from aevb.inference.svi.metrics import COLUMNS

from oracles import STANDARD_ERRORS, linear_gaussian, simulate

EPOCHS = 6  # of an uninterrupted run; the interrupted ones stop after half of them
BATCH = 400  # three batches of 400 and a short one of 97 in each epoch of the digits
STEPS = 4  # in each such epoch
TIMES = {"seconds", "row_seconds", "datapoints_per_second"}  # what equal runs may differ in
ROWS = 2 + torch.randn(40, 3, generator=torch.Generator().manual_seed(0))

SGD = partial(torch.optim.SGD, momentum=0.9)
STEPWISE = partial(MultiStepLR, milestones=[1, 5])
PLATEAU = partial(ReduceLROnPlateau, patience=0, factor=0.5, threshold=1e9)  # halves every epoch
RESUMABLE: dict[str, dict[str, Any]] = {
    "Adam": {},
    "Adagrad": {"optimizer": torch.optim.Adagrad, "learning_rate": 0.01},
    "SGD with momentum": {"optimizer": SGD},
    "Adam, MultiStepLR": {"schedule": STEPWISE},
    "Adagrad, MultiStepLR": {"optimizer": torch.optim.Adagrad, "schedule": STEPWISE},
    "Adam, ReduceLROnPlateau": {"schedule": PLATEAU},
    "SGD with momentum, ReduceLROnPlateau": {"optimizer": SGD, "schedule": PLATEAU},
    "patience left over": {"patience": EPOCHS},
    "patience that runs out": {"patience": 3, "learning_rate": 1.0},
    "no validation": {"validation": None},
    "prior over the weights": {"weight_prior_scale": 1.0},
    "analytic KL": {"objective": ELBO(analytic_kl=True)},
    "three particles": {"objective": ELBO(num_particles=3)},
    "three particles, one by one": {"objective": ELBO(3, vectorize_particles=False)},
    "rows every third epoch": {"log_every": 3},
}

# A graph takes a second to make; one case for each optimizer and for each part of a graph's state.
TRACED = [
    "Adam, MultiStepLR",
    "Adagrad",
    "SGD with momentum, ReduceLROnPlateau",
    "three particles",
    "patience that runs out",
]

# Programs of a user, which create their parameters in every way that Pyro knows.


def location_model(x: Tensor) -> None:
    """Rows around one location, which has a wide prior."""
    location = pyro.sample("location", dist.Normal(torch.zeros(3), 10.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(location, 1.0).to_event(1), obs=x)


def location_guide(x: Tensor) -> None:
    """A normal posterior of the location, with bare Pyro parameters."""
    loc = pyro.param("loc", torch.zeros(3))
    scale = pyro.param("scale", torch.ones(3), constraint=constraints.positive)
    pyro.sample("location", dist.Normal(loc, scale).to_event(1))


def location() -> Program:
    return Program(location_model, location_guide)


def with_modules() -> Program:
    """Networks in closures, announced by ``pyro.module``."""
    decoder, encoder = nn.Linear(2, 3), nn.Linear(3, 2)

    def model(x: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 1.0).to_event(1))

    return Program(model, guide)


class Decoder(PyroModule):
    """A model as a PyroModule."""

    def __init__(self) -> None:
        super().__init__()
        self.linear: Any = PyroModule[nn.Linear](2, 3)  # type: ignore[call-arg, arg-type]
        self.scale: Any = PyroParam(torch.ones(3), constraints.positive)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.linear(z), self.scale).to_event(1), obs=x)


class Encoder(PyroModule):
    """A guide as a PyroModule."""

    def __init__(self) -> None:
        super().__init__()
        self.linear: Any = PyroModule[nn.Linear](3, 2)  # type: ignore[call-arg, arg-type]
        self.scale: Any = PyroParam(torch.ones(2), constraints.positive)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.linear(x), self.scale).to_event(1))


PROGRAMS: dict[str, Callable[[], Program]] = {
    "pyro.param": location,
    "pyro.module": with_modules,
    "PyroModule": lambda: Program(Decoder(), Encoder()),
    "AutoNormal": lambda: Program(location_model, autoguide.AutoNormal(location_model)),
    "AutoMultivariateNormal": lambda: Program(
        location_model, autoguide.AutoMultivariateNormal(location_model)
    ),
}
# loc 3 and scale 3; 2·3+3 and 3·2+2; these and a scale of 3 and of 2; loc, scale and tril 3×3
NUMBERS = {
    "pyro.param": 6,
    "pyro.module": 17,
    "PyroModule": 22,
    "AutoNormal": 6,
    "AutoMultivariateNormal": 15,
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Add in one order, here and in the subprocesses; small sums are faster so as well."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", name="digits")
def fixture_digits() -> data.Dataset:
    return data.load("digits", binarize="dynamic")


def small_vae(weights: int = 0) -> models.VAE:
    """A VAE of the digits that trains in milliseconds; ``weights`` seeds the initial ones."""
    torch.manual_seed(weights)
    return models.VAE((8, 8), latent_dim=2, hidden=[6])


def train(digits: data.Dataset, epochs: int, weights: int = 0, **kwargs: Any) -> Run:
    """A few epochs of a small VAE."""
    settings: dict[str, Any] = {
        "program": None,
        "batch_size": BATCH,
        "validation": digits.validation,
        "device": "cpu",
        "compile": "eager",
        **kwargs,
    }
    program = settings.pop("program") or small_vae(weights)
    return fit(program, digits.train, epochs=epochs, **settings)


def differences(a: Any, b: Any, place: str = "run") -> list[str]:
    """Places where two trees are not equal to the last bit, times aside."""
    if type(a) is not type(b):
        return [f"{place}: {type(a).__name__} and {type(b).__name__}"]
    if isinstance(a, Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [f"{place}: tensors"]
    if isinstance(a, list | tuple):
        a, b = dict(enumerate(a)), dict(enumerate(b))
    if isinstance(a, dict):
        if list(a) != list(b):
            return [f"{place}: keys {list(a)} and {list(b)}"]
        kept = [key for key in a if key not in TIMES]
        return [found for key in kept for found in differences(a[key], b[key], f"{place}.{key}")]
    return [] if repr(a) == repr(b) else [f"{place}: {a!r} and {b!r}"]


def outcome(run: Run) -> dict[str, Any]:
    """All that training has determined."""
    assert run.out is not None
    return {
        "weights": dict(run.program.state_dict()),
        "history": run.history,
        "counters": [run.epoch, run.step, run.stopped],
        "checkpoint": load_checkpoint(run.out / CHECKPOINT),
        "metrics.csv": metrics_file(run.out),
    }


def metrics_file(folder: Path) -> list[dict[str, str]]:
    """Rows of ``metrics.csv``."""
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def vae_acting(step: int, act: Callable[[], Any]) -> models.VAE:
    """A small VAE whose model calls ``act`` within a training step, counted from 1."""
    vae = small_vae()
    model, steps = vae.model, 0

    def acting(*args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += vae.training  # and not when it is prepared or validated
        if vae.training and steps == step:
            act()
        return model(*args, **kwargs)

    vae.model = acting  # type: ignore[method-assign]
    return vae


# Resumption


@pytest.mark.parametrize(
    ("case", "level"),
    [*((case, "eager") for case in RESUMABLE), *((case, "traced") for case in TRACED)],
)
def test_stopped_and_resumed_run_is_the_uninterrupted_one(
    case: str, level: str, digits: data.Dataset, tmp_path: Path
) -> None:
    settings = {**RESUMABLE[case], "compile": level}
    whole = train(digits, EPOCHS, out=tmp_path / "whole", **settings)
    train(digits, EPOCHS // 2, out=tmp_path / "parts", **settings)
    torch.manual_seed(123)
    resumed = train(digits, EPOCHS, weights=1, out=tmp_path / "parts", resume=True, **settings)
    assert differences(outcome(whole), outcome(resumed)) == []


@pytest.mark.parametrize("case", list(RESUMABLE))
def test_each_case_of_resumption_does_what_it_is_called(case: str, digits: data.Dataset) -> None:
    settings = RESUMABLE[case]
    run = train(digits, EPOCHS, **settings)
    assert run.stopped == ("patience" if settings.get("patience") == 3 else "finished")
    assert EPOCHS // 2 < run.epoch <= EPOCHS
    rates = [row["learning_rate"] for row in run.history]
    if "schedule" in settings:  # both parts of the interrupted run see a change
        assert len(set(rates[: EPOCHS // 2])) > 1
        assert len(set(rates[EPOCHS // 2 :])) > 1


@pytest.mark.parametrize(
    "lost",
    [
        "aevb.inference.process.randomness.restore",
        "aevb.inference.svi.feeds.Feed.load_state_dict",
        "torch.optim.Adam.load_state_dict",
        "torch.optim.lr_scheduler.MultiStepLR.load_state_dict",
        "aevb.models.VAE.load_state_dict",
    ],
)
def test_resumption_that_loses_a_part_would_be_found(
    lost: str, digits: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = RESUMABLE["Adam, MultiStepLR"]
    whole = train(digits, EPOCHS, out=tmp_path / "whole", **settings)
    train(digits, EPOCHS // 2, out=tmp_path / "parts", **settings)
    monkeypatch.setattr(lost, lambda *_: None)
    resumed = train(digits, EPOCHS, weights=1, out=tmp_path / "parts", resume=True, **settings)
    found = differences(outcome(whole), outcome(resumed))
    assert any(place.startswith("run.weights") for place in found)


def test_program_on_whole_data_resumes_exactly(tmp_path: Path) -> None:
    def part(steps: int, folder: str) -> Run:
        program = Program(location_model, autoguide.AutoNormal(location_model))
        settings: dict[str, Any] = {"validation": ROWS[:7], "log_every": 5, "device": "cpu"}
        return fit(program, ROWS, steps=steps, out=tmp_path / folder, resume=True, **settings)

    whole = part(20, "whole")
    part(10, "parts")
    assert differences(outcome(whole), outcome(part(20, "parts"))) == []


def test_draws_of_numpy_and_python_resume_exactly(tmp_path: Path) -> None:
    def noisy(x: Tensor) -> None:
        location_model(x + random.random() + np.random.rand())  # noqa: NPY002

    def part(steps: int, folder: str) -> Run:
        program, out = Program(noisy, location_guide), tmp_path / folder
        return fit(program, ROWS, steps=steps, log_every=5, out=out, resume=True, device="cpu")

    whole = part(20, "whole")
    part(10, "parts")
    assert differences(outcome(whole), outcome(part(20, "parts"))) == []


def test_finished_run_without_more_to_do_stays_as_it_is(
    digits: data.Dataset, tmp_path: Path
) -> None:
    first = outcome(train(digits, 2, out=tmp_path))
    again = outcome(train(digits, 2, weights=1, out=tmp_path, resume=True))
    assert differences(first, again) == []


def test_run_out_of_patience_does_not_go_on(digits: data.Dataset, tmp_path: Path) -> None:
    settings = RESUMABLE["patience that runs out"]
    first = outcome(train(digits, EPOCHS, out=tmp_path, **settings))
    again = train(digits, 2 * EPOCHS, weights=1, out=tmp_path, resume=True, **settings)
    assert again.stopped == "patience"
    assert differences(first, outcome(again)) == []


def test_resume_in_an_empty_folder_starts_from_nothing(
    digits: data.Dataset, tmp_path: Path
) -> None:
    fresh = train(digits, 2, out=tmp_path / "fresh")
    resumed = train(digits, 2, out=tmp_path / "resumed", resume=True)
    assert differences(outcome(fresh), outcome(resumed)) == []


def test_seconds_of_a_resumed_run_include_the_earlier_part(
    digits: data.Dataset, tmp_path: Path
) -> None:
    first = train(digits, 2, out=tmp_path)
    second = train(digits, 3, out=tmp_path, resume=True)
    assert second.seconds > first.seconds > 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 300}, "written with batch_size=400; got 300"),
        ({"objective": ELBO(analytic_kl=True)}, r"written with objective='ELBO\(.*; got 'ELBO\("),
        ({"optimizer": torch.optim.Adagrad}, "written with optimizer='Adam'; got 'Adagrad'"),
        ({"learning_rate": 0.01}, r"written with learning_rate=0\.001; got 0\.01"),
        ({"schedule": PLATEAU}, "written with schedule='NoneType'; got 'ReduceLROnPlateau'"),
        ({"weight_prior_scale": 1.0}, r"written with weight_prior_scale=None; got 1\.0"),
        ({"seed": 1}, "written with seed=0; got 1"),
        ({"program": models.VAE((8, 8), 3, [6])}, r"written with parameters=\{.*; got \{"),
    ],
)
def test_other_settings_cannot_resume_a_run(
    changed: dict[str, Any], message: str, digits: data.Dataset, tmp_path: Path
) -> None:
    train(digits, 1, out=tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(ValueError, match=message):
        train(digits, 2, out=tmp_path, resume=True, **changed)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_other_number_of_datapoints_cannot_resume_a_run(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"batch_size": 10, "device": "cpu", "out": tmp_path}
    fit(models.FactorAnalysis((3,)), ROWS, epochs=1, **settings)
    with pytest.raises(ValueError, match="written with num_datapoints=40; got 39"):
        fit(models.FactorAnalysis((3,)), ROWS[:39], epochs=2, resume=True, **settings)


def test_folder_with_a_run_is_refused_without_resume(digits: data.Dataset, tmp_path: Path) -> None:
    train(digits, 1, out=tmp_path)
    with pytest.raises(ValueError, match=r"out: .* already holds a run; resume it or choose"):
        train(digits, 1, out=tmp_path)


# Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_training_after_the_current_step(
    number: signal.Signals, digits: data.Dataset
) -> None:
    vae = vae_acting(STEPS + 1, partial(signal.raise_signal, number))
    run = train(digits, EPOCHS, program=vae)
    assert (run.stopped, run.epoch, run.step) == (number.name, 1, STEPS + 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_resumed_in_the_middle_of_an_epoch_is_the_uninterrupted_one(
    number: signal.Signals, digits: data.Dataset, tmp_path: Path
) -> None:
    vae = vae_acting(STEPS + 1, partial(signal.raise_signal, number))
    whole = train(digits, EPOCHS, out=tmp_path / "whole")
    part = train(digits, EPOCHS, program=vae, out=tmp_path / "parts")
    assert part.step % STEPS != 0
    resumed = train(digits, EPOCHS, weights=1, out=tmp_path / "parts", resume=True)
    assert differences(outcome(whole), outcome(resumed)) == []


def test_second_signal_acts_at_once_and_the_run_resumes_exactly(
    digits: data.Dataset, tmp_path: Path
) -> None:
    def interrupt_twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    vae = vae_acting(STEPS + 1, interrupt_twice)
    whole = train(digits, EPOCHS, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(digits, EPOCHS, program=vae, out=tmp_path / "parts", checkpoint_seconds=0.0)
    assert load_checkpoint(tmp_path / "parts" / CHECKPOINT)["counters"]["step"] == STEPS
    resumed = train(digits, EPOCHS, weights=1, out=tmp_path / "parts", resume=True)
    assert differences(outcome(whole), outcome(resumed)) == []


def test_training_works_outside_the_main_thread(digits: data.Dataset) -> None:
    runs: list[Run] = []
    thread = threading.Thread(target=lambda: runs.append(train(digits, 1)))
    thread.start()
    thread.join()
    assert [run.stopped for run in runs] == ["finished"]


SCRIPT = """
import sys
from pathlib import Path
import torch
from aevb import data, inference, models

def train(out, epochs):
    torch.manual_seed(0)
    vae, digits = models.VAE((8, 8), 2, [6]), data.load("digits", binarize="dynamic")
    return inference.fit(
        vae, digits.train, validation=digits.validation, epochs=epochs, batch_size=400,
        device="cpu", out=out, resume=True, checkpoint_seconds=0.0, compile="traced",
    )

if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), 10**6)
"""


FLAGS = ["--model.hidden", "[6]", "--batch_size", "400", "--device", "cpu"]
FLAGS += ["--num_samples", "2", "--limit", "2", "--compile", "eager"]


def kill_after_three_epochs(command: list[str], folder: Path) -> Path:
    """Run a command that writes a run folder, and ``kill -9`` it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        start = time.monotonic()
        while not (folder / "metrics.csv").is_file() or len(metrics_file(folder)) < 3:
            if process.poll() is not None or time.monotonic() - start > 300:
                process.kill()
                raise RuntimeError(f"{command}: {process.communicate()[1].decode()}")
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    return folder


@pytest.fixture(scope="module", autouse=True, name="background")
def fixture_background(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, "Future[Path]"]]:
    """The killed processes, started early because each takes seconds to import torch."""
    if not any("killed" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield {}
        return
    folder = tmp_path_factory.mktemp("killed")
    (folder / "script.py").write_text(SCRIPT)
    script = [str(folder / "script.py"), str(folder / "library")]
    command = ["-m", "aevb", "train", *FLAGS, "--epochs", "1000000"]
    command += ["--out", str(folder / "command")]
    with ThreadPoolExecutor() as pool:
        yield {
            name: pool.submit(kill_after_three_epochs, [sys.executable, *words], folder / name)
            for name, words in (("library", script), ("command", command))
        }


@pytest.fixture(name="killed")
def fixture_killed(background: dict[str, "Future[Path]"]) -> dict[str, "Future[Path]"]:
    """The run folders of those processes."""
    return background


def test_run_killed_between_checkpoints_resumes_exactly(
    killed: dict[str, "Future[Path]"], tmp_path: Path
) -> None:
    folder = killed["library"].result()
    epochs = len(metrics_file(folder)) + 2
    assert load_checkpoint(folder / CHECKPOINT)["counters"]["step"] > STEPS
    again = runpy.run_path(str(folder.with_name("script.py")))["train"]
    whole, resumed = (again(out, epochs) for out in (tmp_path, folder))
    assert differences(outcome(whole), outcome(resumed)) == []


def test_command_killed_before_its_first_checkpoint_resumes_exactly(
    killed: dict[str, "Future[Path]"], tmp_path: Path
) -> None:
    folder = killed["command"].result()
    epochs = ["--epochs", str(len(metrics_file(folder)) + 2)]
    assert main(["train", *FLAGS, *epochs, "--out", str(tmp_path)]) == 0
    assert main(["train", "--resume", str(folder), *epochs]) == 0
    whole, resumed = (out / "weights.safetensors" for out in (tmp_path, folder))
    assert whole.read_bytes() == resumed.read_bytes()
    assert differences(metrics_file(tmp_path), metrics_file(folder)) == []


# Failure


def breaking(where: str, value: float, step: int) -> Program:
    """The location program, whose ``where`` gets ``value`` added from a step on."""
    calls = {"model": 0, "guide": 0}

    def shift(name: str) -> float:
        calls[name] += program.training  # and not where it is prepared
        return value if name == where and calls[name] >= step else 0.0

    def model(x: Tensor) -> None:
        m = pyro.sample("location", dist.Normal(torch.zeros(3), 10.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(m + shift("model"), 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", torch.zeros(3)) + shift("guide")
        pyro.sample("location", dist.Normal(loc, 1.0).to_event(1))

    program = Program(model, guide)
    return program


BROKEN_SITES = [
    ("model", math.nan, "site 'x' of the model has log-probability nan"),
    ("model", math.inf, "site 'x' of the model has log-probability -inf"),
    ("guide", math.nan, "site 'location' of the guide has a value that is not finite"),
    ("guide", math.inf, "site 'location' of the guide has a value that is not finite"),
]
OBJECTIVES = [ELBO(), ELBO(analytic_kl=True), ELBO(num_particles=3), ELBO(3, False, False)]


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


# The objective


def bounds(objective: ELBO, vae: models.VAE, x: Tensor, repeats: int) -> Tensor:
    """Independent estimates of the bound, ``(repeats,)``, in nats summed over the data."""
    estimator = objective.estimator()
    losses = [estimator.loss(vae.model, vae.guide, x) for _ in range(repeats)]
    return -torch.tensor(losses, dtype=torch.float64)


def distance(a: Tensor, b: Tensor) -> float:
    """Difference of two means in standard errors."""
    error = math.sqrt(float(a.var() / len(a) + b.var() / len(b)))
    return float((a.mean() - b.mean()).abs()) / error


def confident_vae() -> models.VAE:
    """A VAE whose posteriors are far from the prior, so that the divergence matters."""
    vae = small_vae()
    with torch.no_grad():
        vae.encoder.posterior.loc.weight.mul_(8)
    return vae


ESTIMATOR_A, ESTIMATOR_B = ELBO(num_particles=50), ELBO(num_particles=50, analytic_kl=True)


def test_both_estimators_have_the_same_mean(digits: data.Dataset) -> None:
    vae, x = confident_vae(), digits.test.evaluation(5)
    a, b = (bounds(objective, vae, x, 100) for objective in (ESTIMATOR_A, ESTIMATOR_B))
    assert distance(a, b) < STANDARD_ERRORS


def test_estimator_with_a_wrong_divergence_would_be_found(
    digits: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae, x = confident_vae(), digits.test.evaluation(5)
    divergence = mean_field.kl_divergence  # type: ignore[attr-defined]
    monkeypatch.setattr(mean_field, "kl_divergence", lambda q, p: 1.1 * divergence(q, p))
    a, b = (bounds(objective, vae, x, 100) for objective in (ESTIMATOR_A, ESTIMATOR_B))
    assert distance(a, b) > STANDARD_ERRORS


def log_variance(values: Tensor) -> tuple[float, float]:
    """Logarithm of the sample variance and its standard error, √((kurtosis − 1) / n)."""
    squares = (values - values.mean()).square()
    kurtosis = float(squares.square().mean() / squares.mean().square())
    return float(values.var().log()), math.sqrt((kurtosis - 1) / len(values))


def distance_of_reduction(one: Tensor, many: Tensor, factor: float) -> float:
    """Of a variance reduction from the expected one, in standard errors."""
    (first, first_error), (second, second_error) = log_variance(one), log_variance(many)
    return abs(first - second - math.log(factor)) / math.hypot(first_error, second_error)


@pytest.mark.parametrize("vectorize", [True, False])
def test_particles_divide_the_variance_by_their_number(
    vectorize: bool, digits: data.Dataset
) -> None:
    vae, x = small_vae(), digits.test.evaluation(5)
    one = bounds(ELBO(), vae, x, 300)
    many = bounds(ELBO(num_particles=4, vectorize_particles=vectorize), vae, x, 300)
    assert distance_of_reduction(one, many, 4) < STANDARD_ERRORS


def test_particles_without_effect_would_be_found(digits: data.Dataset) -> None:
    vae, x = small_vae(), digits.test.evaluation(5)
    one, other = (bounds(ELBO(), vae, x, 300) for _ in range(2))
    assert distance_of_reduction(one, other, 4) > STANDARD_ERRORS


RATE, MAP_STEPS = 0.01, 3


def trained(batch_size: int | None, scale: float | None) -> tuple[list[Tensor], list[Tensor]]:
    """Weights after some steps of gradient descent, and the data of each step."""
    fa, x = linear_gaussian(), simulate(linear_gaussian(), 40)
    seen: list[Tensor] = []

    def guide(x: Tensor) -> None:
        seen.append(x)
        fa.guide(x)

    program = Program(fa.model, guide)
    program.module = fa  # the owner of the weights
    settings: dict[str, Any] = {"batch_size": batch_size, "weight_prior_scale": scale}
    settings |= {"optimizer": torch.optim.SGD, "learning_rate": RATE, "steps": MAP_STEPS}
    fit(program, x, device="cpu", compile="eager", **settings)
    return [parameter.detach() for parameter in fa.parameters()], seen[-MAP_STEPS:]


def trained_by_hand(
    batches: list[Tensor], scale: float | None, num_datapoints: int, batch_size: int | None = None
) -> list[Tensor]:
    """The same descent of −Σ log p(x) / M − log N(θ; 0, s²I) / N, which needs no guide."""
    fa = linear_gaussian()
    weights = list(fa.parameters())
    for x in batches:
        loss = -fa.log_evidence(x).sum() / (batch_size or len(x))
        if scale is not None:
            prior = sum(dist.Normal(0.0, scale).log_prob(weight).sum() for weight in weights)
            loss = loss - prior / num_datapoints
        with torch.no_grad():
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight -= RATE * gradient
    return [weight.detach() for weight in weights]


@pytest.mark.parametrize("batch_size", [None, 40, 16])
@pytest.mark.parametrize("scale", [None, 0.5])
def test_steps_follow_the_gradient_of_the_map_objective(
    batch_size: int | None, scale: float | None
) -> None:
    """With the exact guide, every draw of the bound is log p(x), and so is its gradient."""
    found, batches = trained(batch_size, scale)
    assert [len(x) for x in batches] == ([16, 16, 8] if batch_size == 16 else [40, 40, 40])
    by_hand = trained_by_hand(batches, scale, 40)
    torch.testing.assert_close(found, by_hand, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "wrong", [{"num_datapoints": 1}, {"num_datapoints": 16}, {"batch_size": 16}]
)
def test_wrong_scale_of_the_map_objective_would_be_found(wrong: dict[str, int]) -> None:
    found, batches = trained(16, 0.5)
    by_hand = trained_by_hand(batches, 0.5, **{"num_datapoints": 40, **wrong})
    assert not any(map(partial(torch.allclose, rtol=1e-5), found, by_hand))


@pytest.mark.parametrize("deep", [False, True])
def test_only_generative_weights_have_a_prior(deep: bool) -> None:
    """Of the same draws, a step differs by rate × w / (s² N), for the model's weights alone."""
    after = []
    for scale in (None, 0.1):
        torch.manual_seed(0)
        program = models.DLGM((6,), [2, 2], [3], models.Normal()) if deep else factor_model()
        x = simulate(linear_gaussian(), 40).float()
        before = {name: p.detach().clone() for name, p in program.named_parameters()}
        settings: dict[str, Any] = {"optimizer": torch.optim.SGD, "learning_rate": RATE}
        fit(program, x, steps=1, weight_prior_scale=scale, device="cpu", **settings)
        after.append(dict(program.named_parameters()))
    free, held = after
    for name, start in before.items():
        generative = not name.startswith("encoder")
        pull = RATE * start / (0.1**2 * 40) if generative else torch.zeros_like(start)
        torch.testing.assert_close(free[name] - held[name], pull, rtol=1e-3, atol=1e-6)
    assert any(name.startswith("encoder") for name in before)


def factor_model() -> models.VAE:
    return models.VAE((6,), 2, [3], prior=models.LearnedNormal(), likelihood=models.Normal())


def test_ordinary_parameters_of_a_pyro_module_have_the_prior() -> None:
    class Model(PyroModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = PyroModule[nn.Linear](3, 3)
            self.scale = PyroParam(torch.tensor(0.5), constraint=constraints.positive)

        def forward(self, x: Tensor) -> None:
            z = pyro.sample("location", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(self.layer(z), self.scale).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", torch.ones(3))
        pyro.sample("location", dist.Normal(loc, 1.0).to_event(1))

    after = []
    for scale in (None, 0.1):
        torch.manual_seed(0)
        program = Program(Model(), guide)
        program.guide(ROWS)
        before = {name: p.detach().clone() for name, p in program.named_parameters()}
        settings: dict[str, Any] = {"optimizer": torch.optim.SGD, "learning_rate": RATE}
        fit(program, ROWS, steps=1, weight_prior_scale=scale, device="cpu", **settings)
        after.append(dict(program.named_parameters()))
    free, held = after
    for name, start in before.items():
        pulled = "guide" not in name and "loc" not in name
        pull = RATE * start / (0.1**2 * len(ROWS)) if pulled else torch.zeros_like(start)
        torch.testing.assert_close(free[name] - held[name], pull, rtol=1e-3, atol=1e-6)


def test_prior_without_weights_is_refused() -> None:
    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", torch.zeros(3))
        pyro.sample("location", dist.Normal(loc, 1.0).to_event(1))

    with pytest.raises(ValueError, match="the model announces no trainable parameter"):
        fit(Program(location_model, guide), ROWS, steps=1, weight_prior_scale=1.0, device="cpu")


@pytest.mark.parametrize("plate", ["data", "rows", None])
@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_prior_shrinks_to_the_closed_form(plate: str | None, scale: float) -> None:
    """For x ~ N(w, 1) and w ~ N(0, s²), the mode of w is Σx / (N + 1/s²)."""
    x = ROWS.double()

    def model(x: Tensor) -> None:
        w = pyro.param("w", torch.zeros(3, dtype=torch.float64))
        if plate is None:
            pyro.sample("x", dist.Normal(w.expand(x.shape), 1.0).to_event(2), obs=x)
        else:
            with pyro.plate(plate, len(x)):
                pyro.sample("x", dist.Normal(w, 1.0).to_event(1), obs=x)

    program = Program(model, lambda x: None)
    curvature = len(x) + scale**-2
    # the loss is divided by the datapoints where the plate says how many there are
    rate = 0.5 / curvature * (len(x) if plate == "data" else 1)
    settings: dict[str, Any] = {"optimizer": torch.optim.SGD, "learning_rate": rate}
    fit(program, x, steps=60, weight_prior_scale=scale, device="cpu", **settings)
    expected = x.sum(0) / curvature
    torch.testing.assert_close(program.param_sites["site/w"].data, expected, rtol=1e-10, atol=0)


# Programs of a user


@pytest.mark.parametrize("kind", list(PROGRAMS))
def test_parameters_of_a_program_are_trained(kind: str) -> None:
    program = PROGRAMS[kind]()
    program.guide(ROWS)
    program.model(ROWS)
    before = {name: parameter.detach().clone() for name, parameter in program.named_parameters()}
    fit(program, ROWS, steps=3, device="cpu")
    after = dict(program.named_parameters())
    assert set(before) == set(after)
    assert not [name for name in before if torch.equal(before[name], after[name])]


@pytest.mark.parametrize("kind", list(PROGRAMS))
def test_parameters_of_a_program_are_found_once(kind: str) -> None:
    program = PROGRAMS[kind]()
    fit(program, ROWS, steps=1, device="cpu")
    assert sum(parameter.numel() for parameter in program.parameters()) == NUMBERS[kind]


@pytest.mark.parametrize("kind", list(PROGRAMS))
def test_training_leaves_the_global_store_empty(kind: str) -> None:
    fit(PROGRAMS[kind](), ROWS, steps=2, device="cpu")
    assert not list(pyro.get_param_store().keys())


@pytest.mark.parametrize("kind", list(PROGRAMS))
def test_programs_of_the_same_names_do_not_share_weights(kind: str) -> None:
    first, second = PROGRAMS[kind](), PROGRAMS[kind]()
    fit(first, ROWS, steps=1, device="cpu")
    fit(second, ROWS, steps=1, device="cpu")
    before = {name: value.clone() for name, value in second.state_dict().items()}
    fit(first, ROWS, steps=5, device="cpu")
    assert differences(before, dict(second.state_dict())) == []
    assert differences(dict(first.state_dict()), before) != []


@pytest.mark.parametrize("name", ["values", "a.b", "x y", "loc"])
def test_parameter_may_have_any_name(name: str) -> None:
    def guide(x: Tensor) -> None:
        pyro.sample("location", dist.Normal(pyro.param(name, torch.zeros(3)), 1.0).to_event(1))

    run = fit(Program(location_model, guide), ROWS, steps=2, device="cpu")
    assert [parameter.shape for parameter in run.program.parameters()] == [(3,)]


def test_constrained_parameter_stays_in_its_domain() -> None:
    program = location()
    fit(program, ROWS, steps=50, learning_rate=1.0, device="cpu")
    constrained = program.own_parameter("scale", None, constraints.positive)
    unconstrained = program.param_sites["site/scale"]
    assert constrained is not None
    assert bool((constrained > 0).all())
    assert bool((unconstrained < 0).any())


def test_parameter_of_the_global_store_is_refused() -> None:
    def guide(x: Tensor) -> None:
        pyro.sample("location", dist.Normal(pyro.param("loc"), 1.0).to_event(1))

    pyro.param("loc", torch.zeros(3))
    try:
        with pytest.raises(ValueError, match="parameter 'loc' belongs to Pyro's global store"):
            fit(Program(location_model, guide), ROWS, steps=1, device="cpu")
    finally:
        pyro.clear_param_store()


def test_program_without_trainable_parameters_is_refused() -> None:
    def guide(x: Tensor) -> None:
        pyro.sample("location", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    with pytest.raises(ValueError, match="program: has no trainable parameters"):
        fit(Program(location_model, guide), ROWS, steps=1, device="cpu")


def test_frozen_parameters_stay_as_they_are(digits: data.Dataset) -> None:
    vae = small_vae()
    vae.decoder[0].requires_grad_(False)
    before = {name: value.clone() for name, value in vae.decoder[0].state_dict().items()}
    train(digits, 1, program=vae, weight_prior_scale=1.0)
    assert differences(before, dict(vae.decoder[0].state_dict())) == []


def test_data_outside_the_support_are_refused_before_any_step(digits: data.Dataset) -> None:
    vae = small_vae()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    with pytest.raises(ValueError, match=r"Bernoulli needs values in \{0, 1\}"):
        fit(vae, data.load("digits").train, epochs=1, batch_size=BATCH, device="cpu")
    assert differences(before, dict(vae.state_dict())) == []


def test_validation_data_outside_the_support_are_refused(digits: data.Dataset) -> None:
    with pytest.raises(ValueError, match=r"Bernoulli needs values in \{0, 1\}"):
        train(digits, 1, validation=data.load("digits").validation)


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": None}, "give either epochs or steps; got epochs=None, steps=None"),
        ({"steps": 3}, "give either epochs or steps; got epochs=1, steps=3"),
        ({"epochs": 0}, "epochs: must be at least 1; got 0"),
        ({"epochs": None, "steps": 0}, "steps: must be at least 1; got 0"),
        ({"patience": 0, "validation": ROWS}, "patience: must be at least 1; got 0"),
        ({"patience": 2}, "patience: early stopping needs validation data"),
        ({"resume": True}, "resume: needs the run folder out; got out=None"),
        ({"device": "gpu"}, "device: expected auto, cpu or cuda; got 'gpu'"),
        ({"device": "cuda"}, "this machine has no usable CUDA device; use cpu"),
        ({"batch_size": 41}, r"batch_size is 41; expected 1\.\.40"),
        ({"batch_size": 0}, r"batch_size is 0; expected 1\.\.40"),
        ({"weight_prior_scale": 0.0}, r"weight_prior_scale: must be positive; got 0\.0"),
        ({"weight_prior_scale": -1.0}, r"weight_prior_scale: must be positive; got -1\.0"),
        (
            {"data": [[1.0]]},
            "data: expected a split, a tensor, the tuple",
        ),
        ({"data": (ROWS, ROWS[:3]), "batch_size": 2}, "batch_size: minibatches need arguments"),
    ],
)
def test_bad_argument_is_named(
    arguments: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings: dict[str, Any] = {"data": ROWS, "epochs": 1, "device": "cpu", **arguments}
    with pytest.raises(ValueError, match=message):
        fit(models.FactorAnalysis((3,)), settings.pop("data"), **settings)


@pytest.mark.parametrize(("model", "guide"), [(None, location_guide), (location_model, 3)])
def test_program_of_something_else_than_callables_is_refused(model: Any, guide: Any) -> None:
    with pytest.raises(ValueError, match="(model|guide): expected a Pyro callable; got (None|3)"):
        Program(model, guide)


# What training gives back


def test_early_stopping_restores_the_best_weights(digits: data.Dataset) -> None:
    run = train(digits, 50, patience=2, learning_rate=1.0)
    elbos = [row["validation_elbo"] for row in run.history]
    assert run.stopped == "patience"
    assert elbos.index(max(elbos)) == len(elbos) - 3  # and two that are not better
    assert inference.mean_elbo(run.program, digits.validation, seed=0) == max(elbos)


def test_patience_that_is_left_over_restores_the_best_weights_too(digits: data.Dataset) -> None:
    run = train(digits, EPOCHS, patience=50, learning_rate=1.0)
    elbos = [row["validation_elbo"] for row in run.history]
    assert run.stopped == "finished"
    assert max(elbos) != elbos[-1]
    assert inference.mean_elbo(run.program, digits.validation, seed=0) == max(elbos)


def test_without_patience_the_last_weights_are_kept(digits: data.Dataset) -> None:
    run = train(digits, EPOCHS, learning_rate=1.0)
    elbos = [row["validation_elbo"] for row in run.history]
    assert max(elbos) != elbos[-1]
    assert inference.mean_elbo(run.program, digits.validation, seed=0) == elbos[-1]


def test_run_tells_what_was_done(digits: data.Dataset, tmp_path: Path) -> None:
    vae = small_vae()
    run = train(digits, 3, program=vae, out=tmp_path)
    assert run.program is vae
    assert (run.epoch, run.step, run.stopped, run.out) == (3, 3 * STEPS, "finished", tmp_path)
    assert [(row["epoch"], row["step"]) for row in run.history] == [(1, 4), (2, 8), (3, 12)]


def test_run_without_a_folder_writes_nothing(
    digits: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = train(digits, 1)
    assert run.out is None
    assert list(tmp_path.iterdir()) == []


def test_metrics_file_has_the_rows_of_the_history(digits: data.Dataset, tmp_path: Path) -> None:
    run = train(digits, 4, out=tmp_path, log_every=2)
    text = (tmp_path / "metrics.csv").read_text()
    assert text.splitlines()[0] == ",".join(COLUMNS)
    rows = [
        {key: float(row[key]) if row[key] else None for key in COLUMNS}
        for row in metrics_file(tmp_path)
    ]
    assert rows == run.history
    assert [row["epoch"] for row in rows] == [2, 4]


def test_metrics_without_validation_have_an_empty_column(
    digits: data.Dataset, tmp_path: Path
) -> None:
    train(digits, 1, out=tmp_path, validation=None)
    assert [row["validation_elbo"] for row in metrics_file(tmp_path)] == [""]


def test_train_objective_is_the_mean_bound_of_the_datapoints() -> None:
    """With the exact guide and steps of no size, the bound of each datapoint is log p(x)."""
    fa = linear_gaussian()
    x = simulate(fa, 10)
    settings: dict[str, Any] = {"optimizer": torch.optim.SGD, "learning_rate": 0.0}
    run = fit(fa, x, epochs=1, batch_size=4, device="cpu", **settings)
    expected = float(fa.log_evidence(x).detach().mean())
    assert run.history[0]["train_objective"] == pytest.approx(expected, rel=1e-10)


def test_steps_that_end_within_an_epoch_get_a_row(digits: data.Dataset) -> None:
    run = fit(small_vae(), digits.train, steps=STEPS + 1, batch_size=BATCH, device="cpu")
    assert [(row["epoch"], row["step"]) for row in run.history] == [(1, STEPS), (1, STEPS + 1)]


# What training leaves alone


def process() -> dict[str, Any]:
    """Everything global that training might touch."""
    version, words, _ = random.getstate()
    kind, keys, position, *_ = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "python": (version, words),
        "numpy": (kind, torch.from_numpy(np.array(keys)), position),
        "validation of distributions": dist.is_validation_enabled(),
        "validation of torch": torch.distributions.Distribution._validate_args,
        "validation of inference": pyro.infer.is_validation_enabled(),
        "validation of poutine": pyro.poutine.util.is_validation_enabled(),
        "local parameters": pyro.settings.get("module_local_params"),
        "store": list(pyro.get_param_store().keys()),
        "gradients": torch.is_grad_enabled(),
        "handlers": [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM)],
    }


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("end", ["finished", "interrupted", "failed", "resumed"])
def test_training_leaves_the_process_as_it_was(end: str, validation: bool, tmp_path: Path) -> None:
    with pyro.validation_enabled(validation):
        if end == "resumed":
            fit(location(), ROWS, steps=3, device="cpu", out=tmp_path)
            random.random(), np.random.rand(), torch.rand(())  # noqa: NPY002
        vae = vae_acting(3, partial(signal.raise_signal, signal.SIGTERM))
        before = process()
        if end == "failed":
            with pytest.raises(NonFiniteLossError):
                fit(breaking("model", math.nan, 3), ROWS, steps=9, device="cpu")
        elif end == "interrupted":
            x = (ROWS[:, :1] > 2).float().expand(-1, 64).unflatten(1, (8, 8))
            assert fit(vae, x, steps=9, device="cpu").stopped == "SIGTERM"
        else:
            fit(location(), ROWS, steps=6, device="cpu", out=tmp_path, resume=True)
        assert differences(before, process()) == []


def test_result_depends_on_the_seed_and_not_on_the_global_state(digits: data.Dataset) -> None:
    weights: dict[tuple[int, int], dict[str, Tensor]] = {}
    for outside, seed in ((1, 0), (2, 0), (1, 3)):
        vae = small_vae()
        torch.manual_seed(outside)
        train(digits, 1, program=vae, seed=seed)
        weights[outside, seed] = dict(vae.state_dict())
    assert differences(weights[1, 0], weights[2, 0]) == []
    assert differences(weights[1, 0], weights[1, 3]) != []


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_training_is_quiet_where_there_is_no_terminal(
    objective: ELBO,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    digits: data.Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pyro_log = logging.getLogger("pyro")  # shows what it has to say on standard error
    monkeypatch.setattr(pyro_log, "handlers", [caplog.handler])
    train(digits, 2, objective=objective)
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


def test_progress_goes_to_standard_error_on_request(
    capfd: pytest.CaptureFixture[str], digits: data.Dataset
) -> None:
    train(digits, 2, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "validation ELBO" in err
    assert "100%" in err
