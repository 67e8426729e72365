"""Who makes the steps of which program, in processes of their own, and what is said of them."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.common.products import products_job
from benchmarks.common.publish import shared_options
from benchmarks.common.runs import Job, Result
from benchmarks.steps.competitors import COMPETITORS, takes_part
from benchmarks.steps.report import Column, Table, break_even_grid, program_section
from benchmarks.steps.workloads import Workload

__all__ = ["one_round", "steps_options", "steps_sections"]

_READING = """\
Milliseconds are medians over the repeats of each process's median block; min–max is over the
repeats. “vs” columns say how many times as fast the row is as that competitor (above 1: the row
is faster); “NumPyro” is the faster of its two ways. The limit is the time of the step's matrix
products alone, at the rate measured between the other runs. The first step runs from a process
that is ready (all imported, data in place) to the end of the first step, with nothing cached.
The loss, in nats per datapoint, is the mean over the last quarter of the first {steps} steps: the
same rows of the same data from the same weights for all, so that it shows whether all do the same
work; it differs by the draws."""


def steps_options(doc: str, repeats: str, programs: str) -> argparse.ArgumentParser:
    """The options of every command on steps.

    Args:
        doc: As for :func:`benchmarks.common.publish.shared_options`.
        repeats: Likewise.
        programs: Those measured by default, in words.
    """
    parser = shared_options(doc, repeats)
    parser.add_argument(
        "--programs", nargs="+", metavar="PROGRAM",
        help=f"({programs}); vae-B and two-layer-B at any batch size B, eight-schools, logistic",
    )  # fmt: skip
    parser.add_argument(
        "--competitors", nargs="+", default=list(COMPETITORS), choices=list(COMPETITORS)
    )
    return parser


def one_round(
    workload: Workload,
    competitors: Sequence[str],
    seconds: float,
    *,
    blocks: int = 10,
    block_steps: int | None = None,
    check_steps: int | None = None,
) -> list[Job]:
    """A process of each competitor on a program, and one of its matrix products.

    Args:
        workload: The program.
        competitors: By name; those who do not take part are left out.
        seconds: Of timed steps.
        blocks: That these are timed in.
        block_steps: A block's steps, in place of its share.
        check_steps: Untimed, before the blocks; None is the program's own number.
    """
    shared: dict[str, Any] = {
        "workload": asdict(workload), "seconds": seconds, "blocks": blocks,
        "block_steps": block_steps, "check_steps": check_steps,
    }  # fmt: skip
    jobs = [
        Job(
            {"program": workload.name, "competitor": name},
            "benchmarks.steps.worker",
            shared | {"competitor": name},
            COMPETITORS[name].needs,
        )
        for name in competitors
        if takes_part(name, workload)
    ]
    if workload.largest_product is not None:
        names = {"program": workload.name, "competitor": "products"}
        jobs.insert(0, products_job(names, workload.largest_product, seconds / 3))
    return jobs


def steps_sections(
    workloads: Sequence[Workload], columns: Sequence[Column], check_steps: int | None
) -> Callable[[list[Result]], list[str]]:
    """From results to how to read the page, and its tables.

    Args:
        workloads: In the order of the page.
        columns: Of the tables.
        check_steps: As for :func:`one_round`.
    """

    def sections(results: list[Result]) -> list[str]:
        tables = [Table(workload, results) for workload in workloads]
        notes = _READING.format(steps=check_steps or "200 (programs without networks: 2,000)")
        parts = [part for table in tables for part in program_section(table, columns)]
        return [notes, *parts, *break_even_grid(tables)]

    return sections
