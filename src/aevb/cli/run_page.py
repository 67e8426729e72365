"""The page of a run folder: what its files say, with their pictures, in one place."""

import csv
import json
import math
import os
from pathlib import Path
from typing import Any

import yaml

from aevb.cli.files import write_text
from aevb.cli.runs import CONFIG, PAGE, RECORD, REPORT
from aevb.cli.telling import evidence_lines, of_run, sentence, with_error

__all__ = ["write_page"]

# Pictures that training draws, with the words under each.
_PICTURES = {
    "reconstructions.png": "Test data, each beside its reconstruction",
    "samples.png": "Means of the data at latents drawn from the prior",
    "manifold.png": "Means of the data over the plane of the two latents",
}


def write_page(folder: Path) -> Path:
    """Write ``index.html`` anew from all that the folder holds; every command adds to it.

    Args:
        folder: Run folder; where it may not be written to, nothing is.

    Returns:
        Where the page is.
    """
    path = folder / PAGE
    if os.access(folder, os.W_OK) and (folder / CONFIG).is_file():
        from jinja2 import ChainableUndefined

        from aevb.evaluation.trial.pages import page

        found = _found(folder)
        # what a record lacks, as one of another version may, is left out
        write_text(
            path, page("run.html.jinja", __package__, undefined=ChainableUndefined, **found)
        )
    return path


def _found(folder: Path) -> dict[str, Any]:
    """What there is to show."""
    config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    record = _json(folder / RECORD)
    evidence = _newest(folder, "evidence-*.json")
    report = _json(folder / REPORT[1])
    model = next((row["model"] for _, row in evidence if "model" in row), None)
    return {
        "run": str(folder),
        "data": record.get("data", {}),
        "model": model or str(config.get("model", {}).get("class_path", "")).rpartition(".")[2],
        "curve": _curve(folder),
        "pictures": {name: text for name, text in _PICTURES.items() if (folder / name).exists()},
        "evidence": [_evidence(folder, *entry) for entry in evidence],
        "headline": _headline(folder, evidence),
        "report": _trial(folder, report),
        "posteriors": [row for _, row in _newest(folder, "posterior-*.json")],
        "imputations": [_with_picture(*entry) for entry in _newest(folder, "imputation-*.json")],
        "embeddings": [_with_picture(*entry) for entry in _newest(folder, "embedding-*.json")],
        "samples": [path.name for path in _files(folder, "samples-*.png")],
        "settings": _settings(config) | _settings(record, "record."),
        "files": sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")),
        "with_error": with_error,
    }


def _files(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)


def _newest(folder: Path, pattern: str) -> list[tuple[Path, dict[str, Any]]]:
    """Records of a command, the newest first."""
    return [(path, found) for path in _files(folder, pattern) if (found := _json(path))]


def _json(path: Path) -> dict[str, Any]:
    """An object of JSON, empty if there is none: the page shows what it can."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _with_picture(path: Path, found: dict[str, Any]) -> dict[str, Any]:
    picture = path.with_suffix(".png")
    return {**found, "shown": picture.name if picture.exists() else None}


def _evidence(folder: Path, path: Path, found: dict[str, Any]) -> dict[str, Any]:
    found = {**found, "run": str(folder)}
    lines = {name: text for name, text in evidence_lines(found).items() if text}
    how = lines.pop("", "")
    if "verdict" in lines:
        lines["verdict"] = lines["verdict"].replace("`", "")
    curve = path.with_name(f"{path.stem}-curve.png")
    return {
        "how": how[:1].upper() + how[1:],
        "lines": lines,
        "level": _level(found),
        "curve": curve.name if curve.exists() else None,
    }


def _level(found: dict[str, Any]) -> str:
    """The colour of an evaluation."""
    if found.get("verdict") == "trusted":
        return "good"
    return "fair" if found.get("verdict") in ("lower bound", "wide bounds") else "bad"


def _headline(folder: Path, evidence: list[tuple[Path, dict[str, Any]]]) -> dict[str, str] | None:
    """The verdict on the evaluation to be trusted most, and what to do next."""
    order = {"good": 0, "fair": 1, "bad": 2}
    best = min(
        (row for _, row in evidence),
        key=lambda row: (order[_level(row)], -row.get("num_datapoints", 0)),
        default=None,
    )
    if best is None or "verdict" not in best:
        return None
    level = _level(best)
    known = of_run(folder)
    command = known["compare"][0] if level == "good" else best.get("better", known["posterior"][0])
    text = sentence({**best, "run": str(folder)}).replace("`", "")
    return {"level": level, "text": text[0].upper() + text[1:], "next": command}


def _trial(folder: Path, report: dict[str, Any]) -> dict[str, Any] | None:
    if not report or not (folder / REPORT[0]).exists():
        return None
    from aevb.evaluation.trial.verdict import headline

    try:
        first = headline(report, str(folder))
    except (KeyError, TypeError):  # of another version
        first = None
    said = report.get("verdict")
    lines = [str(line) for line in said] if isinstance(said, list) else []
    return {"verdict": lines, "headline": first, "page": REPORT[0]}


def _curve(folder: Path) -> Any:
    """Objective and validation over epochs, as they are in metrics.csv."""
    try:
        with (folder / "metrics.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        return None
    series = {
        label: [(float(row["epoch"]), float(row[key])) for row in rows if row.get(key)]
        for key, label in (
            ("train_objective", "training objective"),
            ("validation_elbo", "validation ELBO"),
            ("validation_log_joint", "validation log p(x, z) at a point: no bound"),
        )
    }
    points = [y for line in series.values() for _, y in line if math.isfinite(y)]
    if not points:
        return None
    from aevb.evaluation.plots import new_axes

    figure, axes = new_axes(6.4, 3.6)
    for label, line in series.items():
        if line:
            axes.plot(*zip(*line, strict=True), label=label, marker="." if len(line) < 3 else None)
    later = [y for line in series.values() for _, y in line[len(line) // 10 :] if math.isfinite(y)]
    low, high = min(later), max(later)
    note = ""
    if low > min(points):  # the first epochs climb so far that they would flatten the others
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        note = "The first tenth of the epochs lies below what is shown."
    axes.set_xlabel("epoch")
    axes.set_ylabel("nats per datapoint")
    axes.legend()
    return figure, note


def _settings(found: Any, prefix: str = "") -> dict[str, str]:
    """Leaves of a tree by their dotted names."""
    leaves: dict[str, str] = {}
    for key, value in found.items():
        if isinstance(value, dict):
            leaves |= _settings(value, f"{prefix}{key}.")
        elif value is not None:
            leaves[f"{prefix}{key}".replace(".init_args", "").removesuffix(".class_path")] = str(
                value
            )
    return leaves
