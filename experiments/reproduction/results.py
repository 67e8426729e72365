"""What a reproduced item leaves behind: a page, its figures, its numbers as CSV and JSON."""

import csv
import dataclasses
import json
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from aevb.experiments.reproduction.experiment import BudgetName, Experiment, Report, Row

__all__ = ["RECORD", "write"]

RECORD = "result.json"
BAR = r"\|"  # one that ends no cell, as in p(x|z)
_COLUMNS = ("what", "quantity", "ours", "published", "difference", "band", "inside")


def write(
    experiment: Experiment, budget: BudgetName, report: Report, folder: Path, seconds: float
) -> None:
    """Write ``README.md``, the pictures, the CSV files and ``result.json``.

    Args:
        experiment: What was reproduced.
        budget: How far.
        report: What was found.
        folder: Where to, made if it is missing.
        seconds: That training and report took in all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in report.figures.items():
        figure.savefig(folder / f"{name}.png", dpi=200)
    for name, (header, rows) in report.tables.items():
        _write_csv(folder / f"{name}.csv", [header, *rows])
    details = list(dict.fromkeys(key for row in report.rows for key in row.details))
    table = [[*_cells(row), *(row.details.get(key, "") for key in details)] for row in report.rows]
    _write_csv(folder / "rows.csv", [[*_COLUMNS, *details], *table])
    page = _page(experiment, budget, report, seconds, [*_COLUMNS, *details], table)
    (folder / "README.md").write_text(page)
    record = {
        "budget": budget,
        "rows": [dataclasses.asdict(row) for row in report.rows],
        "claims": [dataclasses.asdict(claim) for claim in report.claims],
        "failures": report.failures,
        "seconds": round(seconds),
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n")


def _cells(row: Row) -> list[str]:
    error = "" if row.error is None else f" ± {row.error:.2f}"
    published, difference = "–", "–"
    if row.published is not None:
        published = f"{row.published:g}" + ("" if row.verified else " (unverified)")
        difference = f"{row.ours - row.published:+.2f}"
    band = "–" if row.band is None else f"{row.band[0]:g} to {row.band[1]:g}"
    inside = {None: "–", True: "yes", False: "**no**"}[row.is_inside]
    return [row.label, row.quantity, f"{row.ours:.2f}{error}", published, difference, band, inside]


def _page(
    experiment: Experiment,
    budget: BudgetName,
    report: Report,
    seconds: float,
    header: list[str],
    table: list[list[Any]],
) -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "pyro-ppl"))
    lines = [
        f"# {experiment.title}",
        "",
        f"{experiment.source}. Made by `aevb reproduce {experiment.name} --budget {budget}`.",
        "",
        *[f"![{name}]({name}.png)\n" for name in report.figures],
        *_markdown(header, table),
        "",
    ]
    for claim in report.claims:
        outcome = "Borne out" if claim.holds else "**Not borne out**"
        measured = f" ({claim.measured})" if claim.measured else ""
        lines.append(f"- {outcome}: {claim.text}{measured}.")
    if report.claims:
        lines.append("")
    lines += [f"{note}\n" for note in report.notes]
    lines.append(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {torch.get_num_threads()} threads "
        f"for the report and one for each training run, Python {platform.python_version()}, "
        f"{versions}; {seconds / 60:.0f} minutes of computation in all."
    )
    return "\n".join(lines) + "\n"


def _markdown(header: list[str], table: list[list[Any]]) -> list[str]:
    if not table:
        return []
    rows = [header, ["---"] * len(header), *table]
    return [f"| {' | '.join(str(cell).replace('|', BAR) for cell in row)} |" for row in rows]


def _write_csv(path: Path, rows: list[Any]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
