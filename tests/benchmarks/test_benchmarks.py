"""Benchmarks: their commands are understood, and what was not measured is said to be so."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("command", ["steps", "steps.enumerated", "sampling", "evidence", "gpu"])
def test_command_lists_its_options(command: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{command}", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert {"--quick", "--repeats", "--out", "--threads"} <= set(shown.stdout.split())


def test_rows_without_a_process_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    runs = importlib.import_module("benchmarks.common.runs")
    tables = importlib.import_module("benchmarks.common.tables")
    jobs = [
        runs.Job({"row": "absent"}, "anything", {}, needs="no_such_package"),
        runs.Job({"row": "failing"}, "no_such_module", {}),
    ]
    results = runs.run_jobs(jobs, 1, tmp_path / "log.jsonl")
    assert results[0] == {"row": "absent", "absent": "no_such_package"}
    assert tables.problem(results[:1]) == "not measured: no_such_package is not installed"
    assert "No module named no_such_module" in tables.problem(results[1:])
    late = runs.run_jobs(jobs[1:], 1, tmp_path / "log.jsonl", deadline=0.0)
    assert late == [{"row": "failing", "failure": "time ran out"}]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3
    assert tables.median(results, "seconds") is None
