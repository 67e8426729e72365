"""From jobs to a page: what all commands share."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.common.machine import ROOT, commit, describe_cpu, slug
from benchmarks.common.runs import Job, Result, run_jobs

__all__ = ["DRAFTS", "publish", "shared_options"]

DRAFTS = ROOT / "runs" / "benchmarks"  # git ignores it


def shared_options(doc: str, repeats: str) -> argparse.ArgumentParser:
    """A parser of the options that every command has.

    Args:
        doc: Of the command's module; its first line describes the command.
        repeats: How many processes each row has by default, in words.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--repeats", type=int, help=f"processes of each row ({repeats})")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, help="folder of the page")
    parser.add_argument("--quick", action="store_true", help="minutes, to see it work")
    return parser


def publish(
    jobs: Sequence[Job],
    sections: Callable[[list[Result]], Sequence[str]],
    options: argparse.Namespace,
    *,
    command: str,
    heading: str,
    measured: str,
    prefix: str = "",
    machine: str | None = None,
    deadline: float = float("inf"),
) -> None:
    """Run jobs, and write and print their page.

    Args:
        jobs: In the order in which they run.
        sections: From the results to how to read the page, and its tables.
        options: Of :func:`shared_options`; also ``device`` and ``commit``, where there are any.
        command: As ``python -m`` takes it.
        heading: Of the page, before the machine's name.
        measured: How, in words.
        prefix: Of the file's name.
        machine: In words; by default the processor.
        deadline: ``time.monotonic()`` after which no process is started or left running.
    """
    quick: bool = options.quick
    target: Path = options.out or (DRAFTS if quick else ROOT / "benchmarks" / "results")
    for folder in (target, DRAFTS):
        folder.mkdir(parents=True, exist_ok=True)
    device = getattr(options, "device", "cpu")
    machine = machine or describe_cpu()
    name = prefix + slug(machine.split(",")[0] if device == "cuda" else machine)
    started, load = datetime.now(UTC), os.getloadavg()[0]
    if load > 0.5:
        print("The machine is busy: competitors on several threads suffer most.", file=sys.stderr)
    facts = {
        "machine": machine,
        "threads": f"{options.threads} for every competitor",
        "commit": getattr(options, "commit", None) or commit(),
        "command": f"`{' '.join(['python -m', command, *_arguments()])}`",
        "date": f"{started:%Y-%m-%d %H:%M} UTC",
        "load average at the start": f"{load:.2f}",
        "measured": measured,
    }
    log = DRAFTS / f"{name}-{started:%Y%m%d-%H%M%S}.jsonl"
    results = run_jobs(jobs, options.threads, log, device, deadline)
    facts["load average at the end"] = f"{os.getloadavg()[0]:.2f} (with the runs' own)"
    found = {key: of for result in results for key, of in result.get("versions", {}).items()}
    facts["versions"] = ", ".join(f"{library} {version}" for library, version in found.items())
    parts = [f"# {heading} on {machine}", "\n".join(f"- {k}: {v}" for k, v in facts.items())]
    if quick:
        parts.append("**A quick run, to see that all of it works: its times mean nothing.**")
    path = target / f"{name}{'-quick' * quick}.md"
    path.write_text("\n\n".join([*parts, *sections(results)]) + "\n")
    print(f"{path}\n\n{path.read_text()}")


def _arguments() -> list[str]:
    """The command's arguments, without where the page goes."""
    arguments = iter(sys.argv[1:])
    kept = []
    for argument in arguments:
        if argument == "--out":
            next(arguments, None)
        elif not argument.startswith("--out="):
            kept.append(argument)
    return kept
