"""Runs that a signal ends, or a kill, and how they go on."""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from aevb import data
from aevb.cli import main
from aevb.inference import CHECKPOINT, Run, load_checkpoint

from small_trainings import EPOCHS, STEPS, differences, metrics_file, outcome, train, vae_acting

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
        time.sleep(0.01)  # two that come before Python looks are one to it
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
