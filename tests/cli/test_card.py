"""`aevb card`: a model card that says what the folder says."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from aevb.cli.files import write_json

from command_runs import FIGURES


def front_matter(text: str) -> dict[str, Any]:
    _, front, _ = text.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(front)
    return found


def test_a_card_carries_evidence_with_errors_and_verdict(run: Path, aevb: Any) -> None:
    result = json.loads(aevb("card", run, "--license", "mit", "--json").out)
    text = (run / "README.md").read_text()
    figures = json.loads((run / FIGURES).read_text())
    front = front_matter(text)
    assert front["license"] == "mit"
    assert front["library_name"] == "aevb"
    (entry,) = front["model-index"][0]["results"]
    assert entry["metrics"][0]["value"] == figures["log_evidence"]
    assert figures["verdict"] in entry["metrics"][0]["name"]
    mean, error = figures["log_evidence"], figures["standard_error"]
    assert f"{mean:.2f} ± {error:.2f}".replace("-", "−") in text
    assert f"**{figures['verdict']}**: {figures['why']}" in text
    for said in ("aevb.open(", "x | z ~ Bernoulli", "| learning_rate | 0.001 |", "SHA-256"):
        assert said in text
    assert result["push"].startswith("hf upload USER/")
    assert "not put on trial" in text.lower()


def test_a_card_is_written_anew_with_what_was_found_since(run: Path, aevb: Any) -> None:
    aevb("card", run)
    aevb("evaluate", run, "--num_samples", 4, "--limit", 7)
    write_json(run / "report.json", {"verdict": ["At 3 of 9 posteriors the guide differs."]})
    result = json.loads(aevb("card", run, "--json").out)
    assert result["evidences"] == 2
    text = (run / "README.md").read_text()
    assert "- At 3 of 9 posteriors the guide differs." in text
    assert len(front_matter(text)["model-index"][0]["results"]) == 2


def test_evidence_of_other_weights_is_told_apart(run: Path, aevb: Any) -> None:
    figures = json.loads((run / FIGURES).read_text())
    write_json(run / FIGURES, {**figures, "epoch": 1})
    aevb("card", run)
    text = (run / "README.md").read_text()
    assert "(of epoch 1)" in text
    assert "model-index" not in front_matter(text)


def test_a_run_without_evidence_says_so(run: Path, aevb: Any) -> None:
    (run / FIGURES).unlink()
    assert aevb("card", run).code == 0
    assert "Not estimated yet" in (run / "README.md").read_text()


def test_what_the_user_wrote_is_not_replaced(run: Path, aevb: Any) -> None:
    (run / "README.md").write_text("mine")
    result = aevb("card", run)
    assert result.code == 2
    assert "is none that this command wrote" in result.err
    assert (run / "README.md").read_text() == "mine"


def test_the_folder_opens_where_it_was_moved(run: Path, aevb: Any, tmp_path: Path) -> None:
    aevb("card", run)
    moved = shutil.copytree(run, tmp_path / "downloaded", ignore=shutil.ignore_patterns("tens*"))
    assert aevb("evaluate", moved, "--num_samples", 3, "--limit", 5).code == 0
