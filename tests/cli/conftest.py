"""A finished run, the command line in this process, and a folder of its own for every test."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from aevb.cli import main

from command_runs import BRIEF, Result


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, and forget what ``main`` puts on the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(scope="session", name="finished")
def fixture_finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, which no test changes."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
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
