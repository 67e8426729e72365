"""The command line: run folders that suffice, one line for a mistake, and honest exit codes."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pytest
import torch
import yaml
from markupsafe import escape
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from aevb import inference
from aevb.cli import main
from aevb.inference.svi.steps import EagerStep
from aevb.inference.svi.training import Training

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz as az

SMALL = "--model.hidden [6] --batch_size 400 --learning_rate 0.001 --device cpu"
BRIEF = [*SMALL.split(), "--num_samples", "3", "--limit", "20"]
FIGURES = "evidence-test-20x3-seed0.json"
FILES = {
    "checkpoint.safetensors",
    "config.yaml",
    "loss.png",
    "manifold.png",
    "metrics.csv",
    "reconstructions.png",
    "record.json",
    "samples.png",
    "tensorboard",
    "weights.safetensors",
    FIGURES,
}
REPORTED = {
    "elbo",
    "log_evidence",
    "standard_error",
    "num_datapoints",
    "num_samples",
    "split",
    "binarize",
    "seed",
}
VOLATILE = {"run", "seconds", "evaluation_seconds"}  # what equal results may differ in

# A user's own prior and likelihood, found in the working directory.
MINE = """
from dataclasses import dataclass
from pyro import distributions as dist
from torch import nn
from torch.distributions import constraints
import torch
from aevb.models import Likelihood, Prior

class _Wide(nn.Module):
    def __init__(self, latent_dim, scale):
        super().__init__()
        self.latent_dim, self.scale = latent_dim, scale
    def forward(self):
        return dist.Normal(torch.zeros(self.latent_dim), self.scale).to_event(1)

@dataclass(frozen=True)
class Wide(Prior):
    scale: float = 2.0
    def build(self, latent_dim):
        return _Wide(latent_dim, self.scale)

class _Laplace(nn.Module):
    def __init__(self, in_features, shape, scale):
        super().__init__()
        self.shape, self.scale = shape, scale
        self.loc = nn.Linear(in_features, torch.Size(shape).numel())
    def forward(self, features):
        loc = self.loc(features).unflatten(-1, self.shape)
        return dist.Laplace(loc, self.scale).to_event(len(self.shape))

@dataclass(frozen=True)
class Laplace(Likelihood):
    scale: float = 1.0
    support = constraints.real
    remedy = "use finite numbers"
    def build(self, in_features, shape):
        return _Laplace(in_features, shape, self.scale)
"""


class Result(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder, on one thread, and forget what ``main`` puts on the path."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    torch.set_num_threads(before)


def terminate_after_an_epoch(folder: Path) -> Result:
    """Start a real process, of which nothing but a signal is known."""
    words = ["train", *BRIEF, "--epochs", "1000000", "--out", str(folder), "--json"]
    words += ["--objective.num_particles", "2"]  # Pyro would have something to log about these
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "aevb", *words]
    with subprocess.Popen(command, env=environment, **pipes) as process:
        start = time.monotonic()
        while not (folder / "metrics.csv").is_file() or not metrics(folder):
            if process.poll() is not None or time.monotonic() - start > 300:
                process.kill()
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    return Result(process.returncode, out, err)


@pytest.fixture(scope="module", autouse=True, name="background")
def fixture_background(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator["Future[Result] | None"]:
    """The real process, started early because it takes seconds to import torch."""
    if any("terminated" in getattr(item, "fixturenames", ()) for item in request.session.items):
        with ThreadPoolExecutor() as pool:
            yield pool.submit(terminate_after_an_epoch, tmp_path_factory.mktemp("real") / "run")
    else:
        yield None


@pytest.fixture(name="terminated")
def fixture_terminated(background: "Future[Result]") -> "Future[Result]":
    """What came of that process."""
    return background


@pytest.fixture(scope="module", name="finished")
def fixture_finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, which no test changes."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    torch.set_num_threads(1)
    assert main(["train", *BRIEF, "--epochs", "2", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(name="run")
def fixture_run(finished: Path, tmp_path: Path) -> Path:
    """A copy of that run, to be changed."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(name="aevb")
def fixture_aevb(capfd: pytest.CaptureFixture[str]) -> Any:
    """Call the command line in this process."""

    def call(*words: object) -> Result:
        capfd.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        return Result(code, *capfd.readouterr())

    return call


def snapshot(folder: Path) -> dict[str, bytes]:
    """The content of every file of a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def stable(result: dict[str, Any]) -> dict[str, Any]:
    """What two equal evaluations agree in."""
    return {key: value for key, value in result.items() if key not in VOLATILE}


def metrics(folder: Path) -> list[dict[str, str]]:
    """Rows of ``metrics.csv`` without their times."""
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [
        {k: v for k, v in row.items() if "seconds" not in k and "second" not in k} for row in rows
    ]


# Run folders


def test_training_writes_every_file_of_the_run_folder(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == FILES
    assert all(path.stat().st_size > 0 for path in finished.rglob("*") if path.is_file())
    assert list((finished / "tensorboard").iterdir())


@pytest.mark.parametrize("name", ["loss", "manifold", "reconstructions", "samples"])
def test_pictures_show_something(name: str, finished: Path) -> None:
    with Image.open(finished / f"{name}.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert min(pixels.shape) > 100
    assert len(np.unique(pixels)) > 2


def test_weights_file_holds_the_weights_of_the_checkpoint(finished: Path) -> None:
    weights = load_file(finished / "weights.safetensors")
    kept = inference.load_checkpoint(finished / "checkpoint.safetensors")["weights"]
    assert weights.keys() == kept.keys()
    assert all(torch.equal(weights[name], kept[name]) for name in kept)


def test_record_tells_data_versions_and_machine(finished: Path) -> None:
    record = json.loads((finished / "record.json").read_text())
    assert record["data"]["name"] == "digits"
    assert record["data"]["sizes"] == {"train": 1297, "validation": 250, "test": 250}
    assert record["versions"]["torch"] == version("torch")
    assert record["machine"]["device"] == "cpu"


def test_metrics_have_a_row_for_every_epoch(finished: Path) -> None:
    rows = metrics(finished)
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "4"), ("2", "8")]


def test_saved_configuration_is_the_resolved_one(finished: Path) -> None:
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert config["model"]["class_path"] == "aevb.models.VAE"
    assert config["model"]["init_args"]["hidden"] == [6]
    assert config["optimizer"]["init_args"]["betas"] == [0.9, 0.999]
    assert (config["epochs"], config["batch_size"], config["seed"]) == (2, 400, 0)


def test_saved_configuration_trains_the_same_weights(
    finished: Path, tmp_path: Path, aevb: Any
) -> None:
    config = finished / "config.yaml"
    assert aevb("train", "--config", config, "--out", "again").code == 0
    weights = "weights.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() == (finished / weights).read_bytes()


def test_run_goes_into_a_folder_named_by_data_and_time(tmp_path: Path, aevb: Any) -> None:
    result = aevb("train", *BRIEF, "--epochs", 1, "--json")
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("digits-20")
    assert json.loads(result.out)["run"] == f"runs/{folder.name}"


def test_manifold_is_drawn_for_two_latents_only(tmp_path: Path, aevb: Any) -> None:
    out = tmp_path / "run"
    result = aevb("train", *BRIEF, "--epochs", 1, "--model.latent_dim", 3, "--out", out)
    assert result.code == 0
    assert {path.name for path in out.iterdir()} == FILES - {"manifold.png"}


def test_folder_named_like_a_dataset_does_not_take_its_place(tmp_path: Path, aevb: Any) -> None:
    (tmp_path / "digits").mkdir()
    aevb("train", *BRIEF, "--epochs", 1, "--out", "run")
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"] == "digits"
    assert aevb("evaluate", "run", "--num_samples", 2, "--limit", 2).code == 0


def test_data_given_by_path_are_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aevb: Any
) -> None:
    np.save("rows.npy", np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32))
    flags = ["--data", "rows.npy", "--binarize", "none", "--model", "FactorAnalysis"]
    flags += ["--batch_size", "20", "--epochs", "1", "--num_samples", "2", "--device", "cpu"]
    assert aevb("train", *flags, "--out", "run").code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert aevb("evaluate", "../run", "--num_samples", 2).code == 0


# Evaluation


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_json_is_the_only_output(command: str, run: Path, aevb: Any) -> None:
    flags = [*BRIEF, "--epochs", 1, "--out", "new"] if command == "train" else [run, "--limit", 9]
    result = aevb(command, *flags, "--num_samples", 3, "--json")
    figures = json.loads(result.out)
    assert result.out.count("\n") == 1
    assert result.err == ""
    assert figures.keys() >= REPORTED


def test_evaluation_reports_its_settings(run: Path, aevb: Any) -> None:
    flags = ["--num_samples", 4, "--limit", 7, "--seed", 5, "--split", "validation"]
    figures = json.loads(aevb("evaluate", run, *flags, "--json").out)
    expected = {"num_samples": 4, "num_datapoints": 7, "seed": 5, "split": "validation"}
    expected |= {"binarize": "dynamic", "data": "digits", "unit": "nats per datapoint", "epoch": 2}
    assert expected.items() <= figures.items()
    assert json.loads((run / "evidence-validation-7x4-seed5.json").read_text()) == figures


def test_table_shows_what_json_holds(run: Path, aevb: Any) -> None:
    flags = ["evaluate", run, "--num_samples", 3, "--limit", 5]
    figures, table = json.loads(aevb(*flags, "--json").out), aevb(*flags).out
    shown = dict(line.split(maxsplit=1) for line in table.splitlines())
    assert shown.keys() == figures.keys()
    assert shown["elbo"] == f"{figures['elbo']:.3f}"


def test_evaluating_twice_gives_identical_figures(run: Path, aevb: Any) -> None:
    flags = ["evaluate", run, "--num_samples", 3, "--limit", 5, "--json"]
    first, second, other = (json.loads(aevb(*flags, "--seed", s).out) for s in (0, 0, 1))
    assert stable(first) == stable(second)
    assert first["elbo"] != other["elbo"]


@pytest.mark.parametrize("estimator", ["ais", "bdmc", "hmc"])
def test_evidence_by_other_estimators(estimator: str, run: Path, aevb: Any) -> None:
    code, out, _ = aevb(
        "evaluate", run, "--estimator", estimator, "--limit", 5, "--num_samples", 40,
        "--num_temperatures", 20, "--num_chains", 4, "--json",
    )  # fmt: skip
    figures = json.loads(out)
    assert code == 0
    assert isinstance(figures["converged"], bool)
    assert figures["num_datapoints"] == 5
    written = list(run.glob(f"evidence-{estimator}-test-5x*-seed0.json"))
    assert [json.loads(path.read_text()) for path in written] == [figures]


def test_importance_curve_has_its_picture(run: Path, aevb: Any) -> None:
    code, out, _ = aevb(
        "evaluate", run, "--limit", 5, "--num_samples", 64, "--curve", "true", "--json"
    )
    figures = json.loads(out)
    assert code == 0
    assert figures["curve"]["num_samples"][-1] == 64
    assert Path(figures["picture"]).stat().st_size > 1000


def strict(text: str) -> Any:
    """JSON as other parsers read it: without NaN and Infinity."""

    def refuse(token: str) -> NoReturn:
        raise AssertionError(f"{token} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("estimator", ["importance", "ais", "bdmc", "hmc"])
def test_undefined_errors_are_null_in_json_and_a_dash_in_words(
    estimator: str, run: Path, aevb: Any
) -> None:
    flags = ["evaluate", run, "--estimator", estimator, "--limit", 1, "--num_samples", 1]
    flags += ["--num_temperatures", 2, "--num_chains", 1 if estimator != "hmc" else 2]
    result = aevb(*flags, "--json")
    if estimator == "hmc":
        assert result.code == 2
        return
    figures = strict(result.out)
    assert (result.code, result.err) == (0, "")
    (path,) = (
        run.glob("evidence-*-1x*.json")
        if estimator != "importance"
        else run.glob("evidence-test-1x1-*.json")
    )
    assert strict(path.read_text()) == figures
    assert figures["converged"] is False
    undefined = "gap_standard_error" if estimator == "bdmc" else "standard_error"
    assert figures[undefined] is None
    shown = dict(line.split(maxsplit=1) for line in aevb(*flags).out.splitlines())
    assert shown[undefined] == "–"
    assert "nan" not in shown.values()


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
def test_trial_writes_its_report(run: Path, aevb: Any) -> None:
    code, out, _ = aevb(
        "compare", run, "--datapoints", 4, "--num_chains", 4, "--num_samples", 60,
        "--num_warmup", 60, "--num_temperatures", 10, "--max_steps", 100, "--population", 30,
        "--num_simulations", 50, "--num_replications", 40, "--json",
    )  # fmt: skip
    figures = json.loads(out)
    assert code == 0
    assert figures["num_datapoints"] == 4
    assert figures["calibration"]["num_simulations"] == 50
    assert figures["predictive_checks"]["num_replications"] == 40
    assert figures["latents"]["num_datapoints"] == figures["settings"]["population"] == 30
    assert figures["gaps"]["inference_gap"]["mean"] > 0
    page = (run / "report.html").read_text()
    assert all(escape(line) in page for line in figures["verdict"])
    assert '<img alt="" src="data:image/png' in page
    assert "http" not in page  # it opens from disk, and asks for nothing
    written = json.loads((run / "report.json").read_text())
    assert written["verdict"] == figures["verdict"]
    assert len(written["each"]["khat"]) == 4
    assert len(written["each"]["predictive_p"]["log_likelihood"]) == 4
    assert f"draws:  {figures['draws']}" in figures["table"]
    draws = az.from_netcdf(figures["draws"])
    assert draws["posterior"]["z"].sizes["datapoint"] == 4
    rows = 4 * figures["latents"]["latents"]
    assert len(az.summary(draws, var_names=["z"])) == rows
    assert not list(run.glob(".*partial"))


@pytest.mark.parametrize("pattern", ["random", "square"])
def test_hidden_values_are_filled_in(pattern: str, run: Path, aevb: Any) -> None:
    code, out, _ = aevb(
        "impute", run, "--missing", 0.5, "--pattern", pattern, "--datapoints", 20,
        "--num_steps", 30, "--num_samples", 30, "--json",
    )  # fmt: skip
    figures = json.loads(out)
    assert code == 0
    # a model of a few epochs: better than a coin, which is wrong by 1/2
    assert 0 < figures["mse_chain"] < 0.4
    assert 0 < figures["mse_hmc"] < 0.4
    assert Path(figures["picture"]).stat().st_size > 1000


def test_embedding_is_written_with_its_picture(run: Path, aevb: Any) -> None:
    code, out, _ = aevb("embed", run, "--limit", 30, "--json")
    figures = json.loads(out)
    assert code == 0
    arrays = np.load(figures["array"])
    assert arrays["mean"].shape == (30, figures["latents"])
    assert 0 <= figures["active_units"] <= figures["latents"]
    assert sum(figures["kl_by_part"].values()) == pytest.approx(figures["kl"], rel=1e-5)
    assert Path(figures["picture"]).stat().st_size > 1000


@pytest.mark.parametrize(
    ("command", "asked", "written"),
    [
        ("embed", "new/emb", ["new/emb.npz", "new/emb.png"]),
        ("embed", "emb.v2", ["emb.v2.npz", "emb.v2.png"]),
        ("sample", "new/draws", ["new/draws.png", "new/draws.npy"]),
        ("impute", "new/filled", ["new/filled.png"]),
        ("impute", "filled.jpg", ["filled.jpg"]),
    ],
)
def test_files_are_written_where_they_are_said_to_be(
    command: str, asked: str, written: list[str], run: Path, aevb: Any
) -> None:
    flags = {"embed": ["--limit", 5], "sample": ["--num", 2], "impute": ["--datapoints", 2]}
    if command == "impute":
        flags[command] += ["--num_samples", 0, "--num_steps", 2]
    code, out, err = aevb(command, run, *flags[command], "--out", asked, "--json")
    assert (code, err) == (0, "")
    figures = json.loads(out)
    assert {figures[key] for key in ("picture", "array") if key in figures} == set(written)
    assert all(Path(path).stat().st_size > 100 for path in written)


@pytest.mark.parametrize("missing", [1e-6, 0.3])
def test_one_datapoint_is_imputed_without_undefined_words(
    missing: float, run: Path, aevb: Any
) -> None:
    flags = ["--datapoints", 1, "--num_samples", 0, "--num_steps", 2, "--missing", missing]
    result = aevb("impute", run, *flags)
    if missing < 0.1:
        assert result.code == 2
        assert (
            "missing: a share of 1e-06 hides none of the 64 values of 1 datapoint;" in result.err
        )
    else:
        assert (result.code, result.err) == (0, "")
        assert "nan" not in result.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_chains", 1], "num_chains: must be at least 2, since R̂ compares chains; got 1"),
        (["--num_chains", 4, "--num_samples", 49], "num_samples: must be at least 50 for 4 chain"),
        (["--num_warmup", -1], "num_warmup: must be at least 0; got -1"),
        (["--num_temperatures", -1], "num_temperatures: must be at least 0; got -1"),
        (["--num_importance_samples", 0], "num_importance_samples: must be at least 1; got 0"),
        (["--max_steps", 0], "max_steps: must be at least 1; got 0"),
        (["--chain_batch_size", 0], "chain_batch_size: must be at least 1; got 0"),
        (["--num_replications", -1], "num_replications: must be at least 0; got -1"),
        (["--population", 0], "population: must be at least 1; got 0"),
    ],
)
def test_impossible_trial_is_refused_before_the_chains_run(
    flags: list[Any], message: str, run: Path, aevb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "aevb.evaluation.trial.compare.hmc", lambda *_, **__: pytest.fail("chains ran")
    )
    result = aevb("compare", run, *flags)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"aevb: error: {message}")


@pytest.mark.parametrize("command", ["compare", "evaluate", "embed", "impute", "sample"])
def test_folder_that_cannot_be_written_to_is_refused_before_the_work(
    command: str, run: Path, aevb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("trial.compare.hmc", "embed"):
        monkeypatch.setattr(f"aevb.evaluation.{name}", lambda *_, **__: pytest.fail("work"))
    for name in ("evaluation.prior_means", "evaluation.impute", "inference.importance_evidence"):
        monkeypatch.setattr(f"aevb.{name}", lambda *_, **__: pytest.fail("work"))
    # the tests may run as root, to whom every folder is open
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: (path, mode) != (run, os.W_OK) and real(path, mode)
    )
    result = aevb(command, run)
    assert (result.code, result.out) == (2, "")
    assert f"{run}: cannot be written to" in result.err


# Models without a density, and with latent weights


def trained(aevb: Any, *flags: str) -> Path:
    assert aevb("train", *BRIEF, *flags, "--epochs", 1, "--out", "other").code == 0
    return Path("other")


def test_ordinary_autoencoder_is_embedded_and_not_put_on_trial(
    aevb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(aevb, "--model.posterior", "Delta")
    code, out, err = aevb("embed", run, "--limit", 30, "--json")
    assert (code, err) == (0, "")
    figures = json.loads(out)
    assert figures["kl"] is None
    assert "single point" in figures["why_no_kl"]
    arrays = np.load(figures["array"])
    assert arrays["mean"].shape == (30, 2)
    assert "kl" not in arrays
    monkeypatch.setattr(
        "aevb.evaluation.trial.compare.hmc", lambda *_, **__: pytest.fail("chains ran")
    )
    result = aevb("compare", run)
    assert (result.code, result.out) == (2, "")
    assert "guide: is a single point for each datapoint" in result.err


def test_annealing_from_a_point_names_the_other_start(
    run: Path, aevb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise inference.NoDensityError("guide: sites ['z'] are single points")

    monkeypatch.setattr(inference, "ais_evidence", refuse)
    result = aevb("evaluate", run, "--estimator", "ais", "--limit", 2)
    assert result.code == 2
    assert "single points; --start prior anneals from the prior" in result.err


def test_records_say_that_latent_weights_are_at_their_means(aevb: Any) -> None:
    run = trained(aevb, "--model.weights", "LatentWeights")
    flags: dict[str, list[Any]] = {
        "embed": ["--limit", 5], "sample": ["--num", 2],
        "impute": ["--datapoints", 2, "--num_samples", 0, "--num_steps", 2],
        "compare": ["--datapoints", 2, "--num_chains", 4, "--num_samples", 50, "--num_warmup", 20,
                    "--num_temperatures", 0, "--max_steps", 10, "--population", 10,
                    "--num_simulations", 0, "--num_replications", 0],
    }  # fmt: skip
    for command, words in flags.items():
        figures = strict(aevb(command, run, *words, "--json").out)
        record = figures["settings"] if command == "compare" else figures
        assert record["weights"] == "means of their posterior"
    assert "means of their posterior" in (run / "report.html").read_text()


def test_moved_run_evaluates_to_the_same_figures(run: Path, tmp_path: Path, aevb: Any) -> None:
    flags = ["--num_samples", 3, "--limit", 5, "--json"]
    before = json.loads(aevb("evaluate", run, *flags).out)
    moved = run.rename(tmp_path / "moved")
    assert stable(json.loads(aevb("evaluate", moved, *flags).out)) == stable(before)


def test_evaluation_agrees_with_the_one_after_training(run: Path, aevb: Any) -> None:
    after_training = json.loads((run / FIGURES).read_text())
    figures = aevb("evaluate", run, "--num_samples", 3, "--limit", 20, "--json").out
    assert stable(json.loads(figures)) == stable(after_training)


def test_run_stopped_early_is_evaluated_at_its_best_weights(tmp_path: Path, aevb: Any) -> None:
    flags = [*BRIEF, "--epochs", 50, "--patience", 2, "--learning_rate", 1.0]
    trained = json.loads(aevb("train", *flags, "--out", "run", "--json").out)
    assert trained["stopped"] == "patience"
    figures = aevb("evaluate", "run", "--num_samples", 3, "--limit", 20, "--json").out
    assert json.loads(figures)["elbo"] == trained["elbo"]
    state = inference.load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    best, last = state["counters"]["best"]["weights"], state["weights"]
    assert all(torch.equal(weights[name], best[name]) for name in weights)
    assert not all(torch.equal(weights[name], last[name]) for name in weights)


# Samples


def test_samples_are_a_picture_and_an_array(run: Path, aevb: Any) -> None:
    result = json.loads(aevb("sample", run, "--num", 5, "--json").out)
    assert result["picture"] == str(run / "samples-5-seed0.png")
    array = np.load(result["array"])
    assert array.shape == (5, 8, 8)
    assert array.min() >= 0
    assert array.max() <= 1
    with Image.open(result["picture"]) as picture:
        assert picture.format == "PNG"


def test_samples_follow_the_seed(run: Path, aevb: Any) -> None:
    arrays = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        aevb("sample", run, "--num", 3, "--seed", seed, "--out", f"{name}.png")
        arrays.append(np.load(f"{name}.npy"))
    assert np.array_equal(arrays[0], arrays[1])
    assert not np.array_equal(arrays[0], arrays[2])


# Configuration


def test_printed_configuration_is_read_back_as_it_is(tmp_path: Path, aevb: Any) -> None:
    flags = [*BRIEF, "--schedule", "StepLR", "--schedule.step_size", 3, "--objective.analytic_kl"]
    printed = aevb("train", *flags, "true", "--print_config")
    (tmp_path / "config.yaml").write_text(printed.out)
    again = aevb("train", "--config", "config.yaml", "--print_config")
    assert (printed.code, again.code) == (0, 0)
    assert again.out == printed.out
    assert yaml.safe_load(again.out)["schedule"]["init_args"]["step_size"] == 3


def test_flags_after_a_configuration_override_it(tmp_path: Path, aevb: Any) -> None:
    (tmp_path / "config.yaml").write_text("epochs: 7\nbatch_size: 50\n")
    flags = ["--config", "config.yaml", "--epochs", 9]
    config = yaml.safe_load(aevb("train", *flags, "--print_config").out)
    assert (config["epochs"], config["batch_size"]) == (9, 50)


def test_own_classes_are_found_in_the_working_directory(tmp_path: Path, aevb: Any) -> None:
    (tmp_path / "mine_of_test_cli.py").write_text(MINE)
    flags = ["--model.likelihood", "mine_of_test_cli.Laplace", "--model.likelihood.scale", 0.5]
    flags += ["--model.prior", "mine_of_test_cli.Wide", "--binarize", "none"]
    trained = aevb("train", *BRIEF, *flags, "--epochs", 1, "--out", "run", "--json")
    evaluated = aevb("evaluate", "run", "--num_samples", 3, "--limit", 20, "--json")
    sys.modules.pop("mine_of_test_cli")
    figures = json.loads(evaluated.out)
    assert "x | z ~ Laplace(scale=0.5)" in figures["model"]
    assert "z ~ Wide(scale=2.0)" in figures["model"]
    assert figures["elbo"] == json.loads(trained.out)["elbo"]


# Resumption


def test_resumed_run_is_the_uninterrupted_one(finished: Path, run: Path, aevb: Any) -> None:
    assert aevb("train", *BRIEF, "--epochs", 5, "--out", "whole").code == 0
    assert aevb("train", "--resume", run, "--epochs", 5).code == 0
    weights = [(folder / "weights.safetensors").read_bytes() for folder in (Path("whole"), run)]
    assert weights[0] == weights[1]
    assert weights[0] != (finished / "weights.safetensors").read_bytes()
    assert metrics(Path("whole")) == metrics(run)


def test_reports_on_older_weights_are_set_aside(run: Path, aevb: Any) -> None:
    names = ("report.html", "report.json", "draws.nc")
    for name in names:
        (run / name).write_text(name)
    assert aevb("train", "--resume", run).code == 0  # nothing to do
    assert all((run / name).exists() for name in names)
    assert aevb("train", "--resume", run, "--epochs", 3).code == 0
    assert not any((run / name).exists() for name in names)
    assert (run / "report-epoch2.html").read_text() == "report.html"
    assert (run / "draws-epoch2.nc").exists()


def test_resumed_run_records_its_new_length(run: Path, aevb: Any) -> None:
    aevb("train", f"--resume={run}", "--epochs", 3)
    assert yaml.safe_load((run / "config.yaml").read_text())["epochs"] == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch_size", "100"], "--batch_size: the run in run was started with 400; got 100"),
        (["--learning_rate", "1"], "--learning_rate: the run in run was started with 0.001; got"),
        (
            ["--model.hidden", "[7]"],
            "--model.hidden: the run in run was started with [6]; got [7]",
        ),
        (["--model", "ProbabilisticPCA"], "--model: the run in run was started with 'aevb.models"),
        (["--model.likelihood.relaxed", "true"], "--model.likelihood.relaxed: the run in run was"),
        (["--optimizer", "SGD"], "--optimizer: the run in run was started with 'torch.optim"),
        (["--binarize", "fixed"], "--binarize: the run in run was started with 'dynamic'; got"),
        (["--data", "other.npy"], "--data: the run in run was started with 'digits'; got '/"),
        (["--seed", "3"], "--seed: the run in run was started with 0; got 3"),
    ],
)
def test_resumption_with_other_settings_is_refused_and_changes_nothing(
    flags: list[str], message: str, run: Path, aevb: Any
) -> None:
    np.save("other.npy", np.full((600, 8, 8), 7, dtype=np.uint8))
    before = snapshot(run)
    result = aevb("train", "--resume", "run", "--epochs", 3, *flags)
    assert result.code == 2
    assert result.err.startswith(f"aevb: error: {message}")
    assert snapshot(run) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_run_has_its_exit_code_and_resumes_exactly(
    number: signal.Signals,
    code: int,
    finished: Path,
    aevb: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make, made = EagerStep.__call__, 0

    def interrupted(self: EagerStep, *inputs: Tensor) -> Tensor:
        nonlocal made
        made += 1
        if made == 5:
            signal.raise_signal(number)
        return make(self, *inputs)

    with monkeypatch.context() as patch:
        patch.setattr(EagerStep, "__call__", interrupted)
        result = aevb("train", *BRIEF, "--epochs", 2, "--out", "run", "--json")
    summary = json.loads(result.out)
    assert (result.code, summary["stopped"], summary["steps"]) == (code, number.name, 5)
    assert aevb("train", "--resume", "run").code == 0
    weights = "weights.safetensors"
    assert Path("run", weights).read_bytes() == (finished / weights).read_bytes()


def test_interrupted_run_can_be_evaluated(aevb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    end_epoch = Training.end_epoch

    def interrupted(self: Training) -> None:
        end_epoch(self)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Training, "end_epoch", interrupted)
    assert aevb("train", *BRIEF, "--epochs", 9, "--out", "run").code == 143
    figures = aevb("evaluate", "run", "--num_samples", 2, "--limit", 2, "--json")
    assert json.loads(figures.out)["epoch"] == 1


def test_interruption_outside_training_is_one_line(
    aevb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("aevb.cli.train.datasets.load", interrupt)
    assert aevb("train", *BRIEF) == (130, "", "aevb: interrupted\n")


def test_terminated_process_leaves_its_exit_code_and_one_json_object(
    terminated: "Future[Result]",
) -> None:
    result = terminated.result()
    assert (result.code, result.err) == (143, "")
    assert json.loads(result.out)["stopped"] == "SIGTERM"


# Mistakes


COMMANDS = ["train", "evaluate", "sample"]
FLAGS = ["--data", "--binarize", "--model", "--epochs", "--batch_size", "--resume"]
DATA = ["digits", "mnist", "fashion-mnist", "kmnist", "cifar10", "svhn", "frey-face", ".npy"]
MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    "no command": ([], COMMANDS),
    "unknown command": (["trian"], ["'trian'", *COMMANDS]),
    "unknown flag of all": (["--bogus"], ["--bogus", *COMMANDS]),
    "unknown flag": (["train", "--epoks", "3"], ["--epoks", "did you mean --epochs", *FLAGS]),
    "abbreviated flag": (["train", "--epoch=3"], ["--epoch=3", "did you mean --epochs"]),
    "flag of another command": (
        ["embed", "run", "--data", "new.npy"],
        ["--data of embed", "did you mean --data_root"],
    ),
    "abbreviated flag of evaluate": (
        ["evaluate", "run", "--num_sample", "5"],
        ["--num_sample of evaluate", "did you mean --num_samples"],
    ),
    "abbreviated flag of a model": (["train", "--model.latent", "3"], ["'latent'", "latent_dim"]),
    "abbreviated flag of a part": (
        ["train", "--model.likelihood.rel", "true"],
        ["Bernoulli", "'rel'", "valid: relaxed"],
    ),
    "abbreviated trust": (["evaluate", "run", "--trus", "os"], ["did you mean --trust"]),
    "abbreviated --print_config": (["train", "--print_conf"], ["did you mean --print_config"]),
    "unknown word": (["train", "extra"], ["extra", *FLAGS]),
    "unknown flag of evaluate": (["evaluate", "run", "--epochs", "3"], ["--epochs", "--split"]),
    "flag without its value": (["train", "--epochs"], ["--epochs", "expected one argument"]),
    "resume without its value": (["train", "--resume"], ["--resume", "expected one argument"]),
    "word for a number": (["train", "--epochs", "many"], ["--epochs", "int", "'many'"]),
    "fraction for an integer": (["train", "--epochs", "1.5"], ["--epochs", "int", "'1.5'"]),
    "word for a flag of a part": (
        ["train", "--model.likelihood.relaxed", "perhaps"],
        ["--model.likelihood.relaxed", "bool", "'perhaps'"],
    ),
    "number for a list": (["train", "--model.hidden", "3"], ["--model.hidden", "'3'"]),
    "unknown data": (["train", "--data", "mnst"], ["'mnst'", *DATA]),
    "unknown binarization": (
        ["train", "--binarize", "always"],
        ["--binarize", "'always'", "'none'", "'fixed'", "'dynamic'"],
    ),
    "unknown device": (["train", "--device", "tpu"], ["'tpu'", "'auto'", "'cpu'", "'cuda'"]),
    "unknown split": (
        ["evaluate", "run", "--split", "tset"],
        ["'tset'", "'validation'", "'test'"],
    ),
    "unknown model": (
        ["train", "--model", "VEA"],
        ["--model: ", "'VEA'", "FactorAnalysis", "ProbabilisticPCA", "VAE"],
    ),
    "unknown prior": (
        ["train", "--model.prior", "Flat"],
        ["--model.prior: ", "'Flat'", "StandardNormal"],
    ),
    "unknown likelihood": (
        ["train", "--model.likelihood", "Bernuli"],
        ["--model.likelihood: ", "'Bernuli'", "Bernoulli", "Normal"],
    ),
    "unknown scale": (
        ["train", "--model.likelihood", "Normal", "--model.likelihood.scale", "Big"],
        ["--model.likelihood.scale: ", "'Big'", "FixedScale", "LearnedScale", "PredictedScale"],
    ),
    "unknown objective": (["train", "--objective", "ELBA"], ["--objective: ", "'ELBA'", "ELBO"]),
    "unknown optimizer": (
        ["train", "--optimizer", "Adm"],
        ["--optimizer: ", "'Adm'", "Adagrad", "Adam", "SGD"],
    ),
    "unknown schedule": (
        ["train", "--schedule", "Steps"],
        ["--schedule: ", "'Steps'", "MultiStepLR", "ReduceLROnPlateau"],
    ),
    "schedule without what it needs": (
        ["train", "--schedule", "MultiStepLR"],
        ["--schedule: needs --schedule.milestones"],
    ),
    "unknown option of a model": (
        ["train", "--model.latent_dims", "3"],
        ["VAE", "'latent_dims'", "latent_dim, hidden, prior, likelihood, posterior, activation"],
    ),
    "unknown option of a part": (
        ["train", "--model.likelihood.relax", "true"],
        ["Bernoulli", "'relax'", "valid: relaxed"],
    ),
    "unknown option of an optimizer": (
        ["train", "--optimizer.momentum", "0.9"],
        ["Adam", "'momentum'", "betas", "weight_decay"],
    ),
    "module that is not there": (
        ["train", "--model", "nowhere.Model"],
        ["'nowhere'", "run from the folder of nowhere.py", "PYTHONPATH", "VAE"],
    ),
    "name that is not there": (["train", "--model", "aevb.models.VEA"], ["'VEA'", "VAE"]),
    "class of another kind": (
        ["train", "--model.likelihood", "torch.nn.Linear"],
        ["torch.nn.Linear", "Likelihood", "Bernoulli", "Normal"],
    ),
    "number in place of a part": (
        ["train", *BRIEF, "--model.likelihood", "Normal", "--model.likelihood.scale", "0.5"],
        ["--model.likelihood.scale", "'0.5' is no name", "FixedScale"],
    ),
    "impossible size": (["train", *BRIEF, "--model.latent_dim", "0"], ["latent_dim", "got 0"]),
    "impossible batch": (["train", *BRIEF, "--batch_size", "5000"], ["batch_size", "1..1297"]),
    "impossible epochs": (["train", *BRIEF, "--epochs", "0"], ["epochs", "got 0"]),
    "impossible limit": (["train", *BRIEF, "--limit", "0"], ["limit", "got 0"]),
    "impossible samples": (["train", *BRIEF, "--num_samples", "0"], ["num_samples", "got 0"]),
    "impossible prior": (["train", *BRIEF, "--weight_prior_scale", "0"], ["weight_prior_scale"]),
    "impossible number": (["sample", "run", "--num", "0"], ["num", "got 0"]),
    "data outside the support": (
        ["train", *BRIEF, "--binarize", "none"],
        ["Bernoulli needs values in {0, 1}", "binarize='dynamic'", "relaxed=True"],
    ),
    "no such configuration": (["train", "--config", "no.yaml"], ["no.yaml"]),
    "broken configuration": (["train", "--config", "broken.yaml"], ["flow sequence"]),
    "unknown key of a configuration": (
        ["train", "--config", "unknown.yaml"],
        ["--epoks", "did you mean --epochs"],
    ),
    "no such run to resume": (["train", "--resume", "nowhere"], ["--resume", "nowhere"]),
    "no such run to evaluate": (["evaluate", "nowhere"], ["nowhere is no run folder"]),
    "no such run to sample": (["sample", "nowhere"], ["nowhere is no run folder"]),
    "run without a checkpoint": (["evaluate", "empty"], ["no checkpoint at empty"]),
    "run with a broken checkpoint": (["evaluate", "broken"], ["truncated or corrupt checkpoint"]),
    "no run at all": (["evaluate"], ["run"]),
    "existing run": (
        ["train", *BRIEF, "--out", "run"],
        ["run already holds a run", "--resume run"],
    ),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_mistake_is_one_line_that_names_what_is_valid(mistake: str, run: Path, aevb: Any) -> None:
    Path("broken.yaml").write_text("epochs: [1\n")
    Path("unknown.yaml").write_text("epoks: 3\n")
    for folder in ("empty", "broken"):
        Path(folder).mkdir()
        shutil.copy(run / "config.yaml", folder)
    Path("broken", "checkpoint.safetensors").write_bytes(b"nothing")
    words, needed = MISTAKES[mistake]
    result = aevb(*words)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith("aevb: error: ")
    assert [part for part in needed if part not in result.err] == []


def test_refusal_to_overwrite_a_run_changes_nothing(run: Path, aevb: Any) -> None:
    before = snapshot(run)
    assert aevb("train", *BRIEF, "--epochs", 9, "--out", run).code == 2
    assert snapshot(run) == before


def test_mistake_in_the_final_evaluation_is_found_before_training(aevb: Any) -> None:
    aevb("train", *BRIEF, "--limit", 0, "--out", "run")
    assert not Path("run").exists()


def test_divergence_is_one_line_with_step_site_and_checkpoint(aevb: Any) -> None:
    flags = ["--learning_rate", "1e20", "--epochs", 9, "--out", "run"]
    result = aevb("train", *BRIEF, *flags)
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert "loss is not finite at step 2: site 'z' of the guide" in result.err
    assert "last good checkpoint: run/checkpoint.safetensors" in result.err


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["evaluate", "--help"]])
def test_help_goes_to_standard_output(words: list[str], aevb: Any) -> None:
    result = aevb(*words)
    assert (result.code, result.err) == (0, "")
    assert all(name in result.out for name in (COMMANDS if len(words) == 1 else ["--seed"]))


def test_version_is_that_of_the_package(aevb: Any) -> None:
    assert aevb("--version") == (0, f"aevb {version('aevb')}\n", "")


def test_mnist_from_the_data_folder_trains(data_folder: Path, aevb: Any) -> None:
    flags = ["--data", "mnist", "--data_root", data_folder, "--model.hidden", "[8]"]
    flags += ["--batch_size", 1000, "--num_samples", 2, "--limit", 50, "--device", "cpu"]
    figures = json.loads(aevb("train", *flags, "--epochs", 1, "--out", "run", "--json").out)
    assert (figures["epochs"], figures["steps"], figures["num_datapoints"]) == (1, 50, 50)
    # better than knowing nothing: a fair coin for each of the pixels has 784 log 2 nats
    assert figures["elbo"] > -784 * np.log(2)


def test_run_remembers_where_its_data_were(
    aevb: Any, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--data", "mnist", "--model.hidden", "[4]", "--batch_size", 10000]
    flags += ["--num_samples", 2, "--limit", 2, "--epochs", 1, "--out", "run"]
    assert aevb("train", *flags).code == 0
    monkeypatch.delenv("AEVB_DATA")
    figures = aevb("evaluate", "run", "--num_samples", 2, "--limit", 2, "--json")
    assert json.loads(figures.out)["data"] == "mnist"


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--objective", "IWAE"], "num_particles: 5"),
        (["--objective", "DReG"], "num_particles: 5"),
        (["--model", "DLGM"], "- 200\n    - 200"),
        (["--model", "FactorAnalysis"], "posterior: null"),
    ],
)
def test_named_classes_have_their_own_defaults(
    flags: list[str], wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["train", *flags, "--print_config"])
    assert wanted in capsys.readouterr().out


def test_runs_with_own_classes_are_evaluated_by_another_process(tmp_path: Path) -> None:
    (tmp_path / "wide.py").write_text(
        "from dataclasses import dataclass\n"
        "from aevb.models import StandardNormal\n\n\n"
        "@dataclass(frozen=True)\nclass Wide(StandardNormal):\n    scale: float = 2.0\n"
    )
    words = [
        "train", "--data", "digits", "--model.prior", "wide.Wide", "--epochs", "1",
        "--model.hidden", "[5]", "--num_samples", "5", "--limit", "5", "--out", "run",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "aevb", *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "elsewhere").mkdir()
    for state, code in ((os.environ["AEVB_STATE"], 0), (str(tmp_path / "of another user"), 2)):
        done = subprocess.run(
            [sys.executable, "-m", "aevb", "evaluate", "../run", "--limit", "5"],
            cwd=tmp_path / "elsewhere", capture_output=True, text=True,
            env={**os.environ, "AEVB_STATE": state},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
    assert "names wide.Wide" in done.stderr
    assert "--trust wide" in done.stderr
