"""Training runs of experiments: made, resumed, and how far they are."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aevb.experiments.reproduction.context import read_history
from aevb.experiments.reproduction.experiment import Training

__all__ = ["InterruptedTrainingError", "State", "folder_at", "state", "train"]

_DONE = "done.json"
_RUNNING = "running.json"
# The evaluation that ends every `aevb train`; reports make their own.
_SHORT = {"num_samples": 50, "limit": 100}


class InterruptedTrainingError(RuntimeError):
    """A training run ended before its last epoch."""


@dataclass(frozen=True)
class State:
    """How far a training run is.

    Attributes:
        fraction: Of its epochs, as its metrics say.
        is_done: Whether nothing is left to do.
        process: Of the process that is at it, or None.
        seconds: Spent training so far.
    """

    fraction: float
    is_done: bool
    process: int | None
    seconds: float


def state(training: Training, runs: Path) -> State:
    """How far a training run is.

    Args:
        training: Its description.
        runs: Where run folders are.
    """
    folder = runs / training.name
    history = read_history(folder)
    last = history[-1] if history else {}
    done = _read(folder / _DONE).get("epochs", 0) >= training.epochs
    reached = 1.0 if done else min(1.0, (last.get("epoch") or 0.0) / training.epochs)
    process = _read(folder / _RUNNING).get("process")
    alive = process if process is not None and _is_alive(process) else None
    return State(reached, done, alive, last.get("seconds") or 0.0)


def folder_at(training_folder: Path, epoch: int | None) -> Path:
    """The run folder that holds a run as it was at a stop, or at its end."""
    return training_folder if epoch is None else training_folder / f"epoch-{epoch}"


def train(
    training: Training, runs: Path, data_root: Path | None, threads: int, nice: int = 0
) -> State:
    """Make or go on with a training run, in a process of its own.

    Args:
        training: Its description.
        runs: Where run folders are.
        data_root: Folder of the datasets.
        threads: Of the process.
        nice: How far it stands back behind others.

    Raises:
        InterruptedTrainingError: If the process ended early; the next call goes on from there.
    """
    folder = runs / training.name
    if state(training, runs).is_done:
        return state(training, runs)
    with _claimed(folder):
        for epoch in (*training.stops, training.epochs):
            kept = folder_at(folder, None if epoch == training.epochs else epoch)
            if kept != folder and kept.exists():
                continue
            _until(epoch, training, folder, data_root, threads, nice)
            if kept != folder:
                _keep(folder, kept)
        record = {"epochs": training.epochs, "machine": platform.processor(), "threads": threads}
        (folder / _DONE).write_text(json.dumps(record) + "\n")
    return state(training, runs)


def _until(
    epoch: int,
    training: Training,
    folder: Path,
    data_root: Path | None,
    threads: int,
    nice: int,
) -> None:
    if (folder / "checkpoint.safetensors").exists():
        flags: dict[str, Any] = {"resume": folder, "epochs": epoch}
    else:
        flags = {**_SHORT, **training.flags, "out": folder, "epochs": epoch}
        if data_root is not None:
            flags["data_root"] = data_root
    politely = ["nice", f"-n{nice}"] if nice else []
    words = [*politely, sys.executable, "-m", "aevb", "train", "--json", *_words(flags)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with (folder / "output.log").open("a") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            code = process.wait()
        except BaseException:
            process.send_signal(signal.SIGTERM)  # at which it writes a checkpoint
            process.wait()
            raise
    if code:
        raise InterruptedTrainingError(
            f"{training.name}: ended with exit code {code}; {folder / 'output.log'} says why"
        )


def _words(flags: Mapping[str, Any]) -> list[str]:
    """Flags as words of a command line."""
    shown = {
        key: value if isinstance(value, str | Path) else json.dumps(value)
        for key, value in flags.items()
    }
    return [word for key, value in shown.items() for word in (f"--{key}", str(value))]


def _keep(folder: Path, kept: Path) -> None:
    """Copy what a run folder is opened from."""
    partial = kept.with_name(f".{kept.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for path in folder.iterdir():
        if path.is_file() and path.suffix not in (".png", ".log"):
            shutil.copy2(path, partial / path.name)
    partial.replace(kept)


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Keep other processes from the same run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _RUNNING
    other = _read(path).get("process")
    if other is not None and _is_alive(other):
        raise InterruptedTrainingError(f"{folder.name}: process {other} is at it")
    path.write_text(json.dumps({"process": os.getpid(), "since": time.time()}) + "\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found
