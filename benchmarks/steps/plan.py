"""Who makes the steps of which program, in processes of their own, and what is said of them."""

import argparse
from collections.abc import Sequence

from benchmarks.common.publish import publish
from benchmarks.common.runs import Job, Result
from benchmarks.steps.competitors import COMPETITORS, takes_part
from benchmarks.steps.report import Column, break_even_grid, program_section
from benchmarks.steps.summary import summarize
from benchmarks.steps.workloads import find_workload

__all__ = ["one_round", "publish_steps"]

_READING = """\
Milliseconds are medians over the repeats of each process's median block; min–max is over the
repeats. “vs” columns say how many times as fast the row is as that competitor (above 1: the row
is faster); “NumPyro” is the faster of its two ways. The limit is the time of the step's matrix
products alone, at the rate measured between the other runs. The first step runs from a process
that is ready (all imported, data in place) to the end of the first step, with nothing cached.
The loss, in nats per datapoint, is the mean over the last quarter of the first {steps} steps: the
same rows of the same data from the same weights for all, so that it shows whether all do the same
work; it differs by the draws."""


def one_round(
    program: str, datapoints: int, options: argparse.Namespace, worker: Sequence[str]
) -> list[Job]:
    """A process of each competitor on a program, and one of its matrix products.

    Args:
        program: Name of the workload.
        datapoints: Of the image models.
        options: Of the command: competitors, threads and, if it has one, device.
        worker: More arguments of each process.
    """
    workload = find_workload(program, datapoints)
    names = [name for name in options.competitors if takes_part(name, workload)]
    if workload.largest_product is not None:
        names.insert(0, "products")
    device = getattr(options, "device", "cpu")
    shared = ["--program", program, "--device", device, "--threads", str(options.threads)]
    shared += ["--datapoints", str(datapoints), *worker]
    return [
        Job(
            {"program": program, "competitor": name},
            "benchmarks.steps.worker",
            [*shared, "--competitor", name],
            "torch" if name == "products" else COMPETITORS[name].needs,
        )
        for name in names
    ]


def publish_steps(
    jobs: Sequence[Job],
    options: argparse.Namespace,
    *,
    command: str,
    programs: Sequence[str],
    datapoints: int,
    columns: Sequence[Column],
    check_steps: int | None,
    measured: str,
    machine: str | None = None,
    deadline: float = float("inf"),
) -> None:
    """Run jobs and write their page.

    Args:
        jobs: Those of :func:`one_round`, repeated.
        options: Of the command.
        command: As ``python -m`` takes it.
        programs: In the order of the page.
        datapoints: Of the image models.
        columns: Of the tables.
        check_steps: Steps before the timed ones; None is the program's own number.
        measured: How, in words.
        machine: In words; by default the processor.
        deadline: ``time.monotonic()`` after which no process is started or left running.
    """

    def sections(results: list[Result]) -> list[str]:
        tables = [summarize(find_workload(name, datapoints), results) for name in programs]
        notes = _READING.format(steps=check_steps or "200 (programs without networks: 2,000)")
        parts = [part for table in tables for part in program_section(table, columns)]
        return [notes, *parts, *break_even_grid(tables)]

    publish(
        jobs, sections, options, command=command, heading="Training steps", measured=measured,
        machine=machine, deadline=deadline,
    )  # fmt: skip
