"""`aevb diff`: settings that differ, paired differences on the same rows, refusals."""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aevb as package

from command_runs import BRIEF

FLAGS = ["--limit", 20, "--num_samples", 30]


@pytest.fixture(name="other", scope="session")
def fixture_other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of another seed and width on the same data."""
    from aevb.cli import main

    folder = tmp_path_factory.mktemp("runs") / "other"
    words = ["train", *BRIEF, "--epochs", "1", "--seed", "1", "--model.hidden", "[5]"]
    assert main([*words, "--out", str(folder)]) == 0
    return folder


def test_settings_that_differ_are_listed_and_no_others(
    finished: Path, other: Path, aevb: Any
) -> None:
    code, out, err = aevb("diff", finished, other, *FLAGS, "--json")
    assert (code, err) == (0, "")
    settings = json.loads(out)["settings"]
    assert settings == {
        "model.hidden": {"finished": [6], "other": [5]},
        "epochs": {"finished": 2, "other": 1},
        "seed": {"finished": 0, "other": 1},
    }


def test_differences_are_paired_on_the_same_rows(finished: Path, other: Path, aevb: Any) -> None:
    figures = json.loads(aevb("diff", finished, other, *FLAGS, "--out", "d", "--json").out)
    with Path("d.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    first = package.open(finished, device="cpu")
    found = first.datapoints("test", 20)
    assert [int(row["index"]) for row in rows] == found.indices.tolist()
    # the other run sees what the first one sees, not what its own seed would have drawn
    second = package.open(other, device="cpu")
    assert not np.array_equal(second.values("test", 20), found.values)
    own = [run.log_prob(found.values.numpy(), num_samples=30).numpy() for run in (first, second)]
    for values, name in zip(own, ("finished", "other"), strict=True):
        assert np.allclose(values, [float(row[f"log_evidence {name}"]) for row in rows])
    paired = own[1] - own[0]
    difference = figures["differences"]["other"]
    assert difference["log_evidence"] == pytest.approx(paired.mean())
    error = paired.std(ddof=1) / math.sqrt(20)
    assert difference["log_evidence_standard_error"] == pytest.approx(error)
    # what unpaired errors would have been
    assert error < math.hypot(*(values.std(ddof=1) / math.sqrt(20) for values in own))
    assert Path("d.png").stat().st_size > 1000
    assert json.loads(Path("d.json").read_text()) == figures


def test_a_run_differs_from_its_copy_by_nothing(run: Path, tmp_path: Path, aevb: Any) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    figures = json.loads(aevb("diff", run, copy, *FLAGS, "--json").out)
    assert figures["settings"] == {}
    assert figures["differences"]["copy"]["log_evidence"] == 0
    assert "no setting differs" in aevb("diff", run, copy, *FLAGS).out


def test_runs_that_cannot_be_compared_are_refused(run: Path, aevb: Any) -> None:
    brief = [*BRIEF, "--epochs", 1, "--out"]
    np.save("x.npy", np.random.RandomState(0).rand(500, 8, 8) > 0.5)
    for words, message in {
        ("--binarize", "fixed"): "binarize fixed, and run on digits with dynamic",
        ("--data", "x.npy", "--batch_size", 100): "was trained on x with sha256",
    }.items():
        assert aevb("train", *brief, "own", *words).code == 0
        result = aevb("diff", run, "own", *FLAGS)
        assert result.code == 2
        assert message in result.err
        shutil.rmtree("own")
    for words in (["diff", run], ["diff", run, run], ["diff", run, "nowhere"], ["diff"]):
        assert aevb(*words).code == 2
