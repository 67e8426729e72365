"""Commands that tests run, and what they leave behind."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

SMALL = "--model.hidden [6] --batch_size 400 --learning_rate 0.001 --device cpu"


BRIEF = [*SMALL.split(), "--num_samples", "3", "--limit", "20"]

FIGURES = "evidence-test-20x3-seed0.json"

VOLATILE = {"better", "run", "seconds", "evaluation_seconds"}  # what equal results may differ in


class Result(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


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


def strict(text: str) -> Any:
    """JSON as other parsers read it: without NaN and Infinity."""

    def refuse(token: str) -> NoReturn:
        raise AssertionError(f"{token} is no JSON")

    return json.loads(text, parse_constant=refuse)


# Models without a density, and with latent weights


def trained(aevb: Any, *flags: str) -> Path:
    assert aevb("train", *BRIEF, *flags, "--epochs", 1, "--out", "other").code == 0
    return Path("other")


# Mistakes


COMMANDS = ["train", "evaluate", "sample"]
