"""From results to a file: what both commands share."""

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.machine import ROOT
from benchmarks.report import Column, page
from benchmarks.runs import Plan, Result, alternate
from benchmarks.summary import summarize
from benchmarks.workloads import find_workload

__all__ = ["measure_and_publish"]

_DRAFTS = ROOT / "runs" / "benchmarks"  # git ignores it
_READING = """\
Milliseconds are medians over the repeats of each process's median block; min–max is over the
repeats. “vs” columns say how many times as fast the row is as that competitor (above 1: the row
is faster); “NumPyro” is the faster of its two ways. The limit is the time of the step's matrix
products alone, at the rate measured between the other runs. The first step runs from a process
that is ready (all imported, data in place) to the end of the first step, with nothing cached.
The loss, in nats per datapoint, is the mean over the last quarter of the first {steps} steps: the
same rows of the same data from the same weights for all, so that it shows whether all do the same
work; it differs by the draws."""


def measure_and_publish(
    plan: Plan,
    *,
    module: str,
    machine: str,
    commit: str,
    columns: Sequence[Column],
    name: str,
    folder: Path | None,
    check_steps: int | None,
    seconds: float,
    quick: bool,
) -> Path:
    """Run a plan and write its page.

    Args:
        plan: What to run.
        module: The command, as ``python -m`` takes it.
        machine: In words.
        commit: Of the checkout.
        columns: Of the tables.
        name: Of the file, without its suffix.
        folder: Where it goes; None is ``benchmarks/results``, or for quick runs a folder that git
            ignores.
        check_steps: Steps before the timed ones; None is the program's own number.
        seconds: Timed steps of each process.
        quick: Say so on the page.

    Returns:
        The path of the page.
    """
    target = folder or (_DRAFTS if quick else ROOT / "benchmarks" / "results")
    for path in (target, _DRAFTS):
        path.mkdir(parents=True, exist_ok=True)
    started = datetime.now(UTC)
    facts = {
        "machine": machine,
        "threads": f"{plan.threads} for every competitor",
        "commit": commit,
        "command": f"`python -m {module} {_arguments()}`".replace(" `", "`"),
        "date": f"{started:%Y-%m-%d %H:%M} UTC",
        "load average at the start": f"{os.getloadavg()[0]:.2f}",
        "measured": f"{plan.repeats} × {seconds:g} s of steps per row, each in a process, in turn",
    }
    if os.getloadavg()[0] > 0.5:
        print("The machine is busy: competitors on several threads suffer most.", file=sys.stderr)
    log = _DRAFTS / f"{name}-{started:%Y%m%d-%H%M%S}.jsonl"
    results = alternate(plan, log)
    facts["load average at the end"] = f"{os.getloadavg()[0]:.2f} (with the runs' own)"
    facts["versions"] = _versions(results)
    tables = [summarize(find_workload(p, plan.datapoints), results) for p in plan.programs]
    notes = _READING.format(steps=check_steps or "200 (programs without networks: 2,000)")
    if quick:
        notes = "**A quick run, to see that all of it works: its times mean nothing.**\n\n" + notes
    path = target / f"{name}{'-quick' * quick}.md"
    path.write_text(page(f"Training steps on {machine}", facts, notes, tables, columns))
    print(f"{path}\n\n{path.read_text()}")
    return path


def _arguments() -> str:
    """The command's arguments, without where the page goes."""
    arguments = iter(sys.argv[1:])
    kept = []
    for argument in arguments:
        if argument == "--out":
            next(arguments, None)
        elif not argument.startswith("--out="):
            kept.append(argument)
    return " ".join(kept)


def _versions(results: list[Result]) -> str:
    versions: dict[str, str] = {}
    for result in results:
        versions |= result.get("versions", {})
    return ", ".join(f"{name} {number}" for name, number in versions.items())
