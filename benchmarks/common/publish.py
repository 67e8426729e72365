"""From results to a file: what both commands share."""

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.common.machine import ROOT
from benchmarks.common.runs import Plan, Result, alternate
from benchmarks.steps.report import Column, page
from benchmarks.steps.summary import summarize
from benchmarks.steps.workloads import find_workload

__all__ = ["DRAFTS", "facts_of", "measure_and_publish", "place", "versions"]

DRAFTS = ROOT / "runs" / "benchmarks"  # git ignores it
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
    target = place(folder, quick)
    started = datetime.now(UTC)
    facts = facts_of(module, machine, commit, plan.threads, started)
    measured = f"{plan.repeats} × {seconds:g} s of steps per row, each in a process, in turn"
    facts["measured"] = measured
    log = DRAFTS / f"{name}-{started:%Y%m%d-%H%M%S}.jsonl"
    results = alternate(plan, log)
    facts["load average at the end"] = f"{os.getloadavg()[0]:.2f} (with the runs' own)"
    facts["versions"] = versions(results)
    tables = [summarize(find_workload(p, plan.datapoints), results) for p in plan.programs]
    notes = _READING.format(steps=check_steps or "200 (programs without networks: 2,000)")
    if quick:
        notes = "**A quick run, to see that all of it works: its times mean nothing.**\n\n" + notes
    path = target / f"{name}{'-quick' * quick}.md"
    path.write_text(page(f"Training steps on {machine}", facts, notes, tables, columns))
    print(f"{path}\n\n{path.read_text()}")
    return path


def place(folder: Path | None, quick: bool) -> Path:
    """Where the page goes; made if need be, as is the folder of drafts.

    Args:
        folder: Asked for; None is ``benchmarks/results``, or for quick runs that of drafts.
        quick: Whether the times mean nothing.
    """
    target = folder or (DRAFTS if quick else ROOT / "benchmarks" / "results")
    for path in (target, DRAFTS):
        path.mkdir(parents=True, exist_ok=True)
    return target


def facts_of(
    module: str, machine: str, commit: str, threads: int, started: datetime
) -> dict[str, str]:
    """What every page begins with; says so if the machine is busy.

    Args:
        module: The command, as ``python -m`` takes it.
        machine: In words.
        commit: Of the checkout.
        threads: For every competitor.
        started: When.
    """
    load = os.getloadavg()[0]
    if load > 0.5:
        print("The machine is busy: competitors on several threads suffer most.", file=sys.stderr)
    return {
        "machine": machine,
        "threads": f"{threads} for every competitor",
        "commit": commit,
        "command": f"`python -m {module} {_arguments()}`".replace(" `", "`"),
        "date": f"{started:%Y-%m-%d %H:%M} UTC",
        "load average at the start": f"{load:.2f}",
    }


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


def versions(results: list[Result]) -> str:
    """Of the libraries in question, as the processes found them."""
    found: dict[str, str] = {}
    for result in results:
        found |= result.get("versions", {})
    return ", ".join(f"{name} {number}" for name, number in found.items())
