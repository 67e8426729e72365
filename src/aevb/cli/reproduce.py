"""Figures and tables of the papers, regenerated."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from aevb.cli.files import refuse_read_only
from aevb.cli.runs import SavedRun

__all__ = ["reproduce"]


def reproduce(
    reopen: Callable[[Path], SavedRun],
    name: str | None = None,
    listing: bool = False,
    budget: Literal["quick", "standard", "full"] = "standard",
    data_root: Path | None = None,
    runs: Path = Path("runs/reproduce"),
    out: Path = Path("experiments/results"),
    threads: int = 2,
) -> dict[str, Any]:
    """Regenerate a figure or table of the papers, or list them all.

    Training runs that are missing are made and those that were cut off are resumed; then the
    item's page, figures and numbers are written. The exit code is 1 when a figure leaves its band.

    Args:
        reopen: Opens a run folder.
        name: Item to regenerate.
        listing: List the items, how far each is and what it costs.
        budget: quick proves the pipeline in a minute; standard takes two cores under half an
            hour; full is the paper's budget.
        data_root: Folder with the data; otherwise AEVB_DATA or the user's cache.
        runs: Run folders lie in it, in a folder for each budget.
        out: Results are written to a folder of the item's name in it.
        threads: Of each training run.

    Returns:
        What was written, and which figures lie outside their bands.
    """
    from aevb.experiments.reproduction import runner  # which loads every item

    if listing:
        return {"table": _listed(runner.overview(budget, runs, out))}
    if name is None:
        raise ValueError("name: expected an item; `aevb reproduce --list` shows them")
    out.mkdir(parents=True, exist_ok=True)
    refuse_read_only(out)

    def opened(folder: Path) -> tuple[Any, Any]:
        saved = reopen(folder)
        return saved.model, saved.dataset

    report = runner.reproduce(
        name, budget, data_root, runs, out, opened, threads,
        tell=lambda text: print(f"aevb: {text}", file=sys.stderr),  # noqa: T201
    )  # fmt: skip
    return {
        "item": name,
        "budget": budget,
        "rows": len(report.rows),
        "page": str(out / name / "README.md"),
        "outside": report.failures,
    }


def _listed(lines: Any) -> str:
    rows = [
        (line.experiment.name, line.experiment.title, line.state, f"{line.minutes:g} min")
        for line in lines
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
