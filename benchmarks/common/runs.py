"""Processes one after another: A B C A B C ..., each competitor as often as the others."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common.checkout import make_importable
from benchmarks.common.machine import ROOT
from benchmarks.steps.competitors import COMPETITORS, takes_part
from benchmarks.steps.workloads import find_workload

__all__ = ["Job", "Plan", "Result", "alternate", "alternate_jobs", "run_module"]

Result = dict[str, Any]
_LONGEST_PROCESS = 600.0


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        programs: Names of the workloads.
        competitors: Names of the competitors.
        repeats: Processes of each pair.
        threads: For every competitor.
        device: ``"cpu"`` or ``"cuda"``.
        datapoints: Of the image models.
        options: More options of the worker, by program.
        deadline: ``time.monotonic()`` after which no process is started or left running.
        rounds_outside: Repeat the whole list, not program by program: then an early end costs
            repeats and no rows.
    """

    programs: Sequence[str]
    competitors: Sequence[str]
    repeats: int
    threads: int
    device: str
    datapoints: int
    options: dict[str, list[str]] = field(default_factory=dict)
    deadline: float = float("inf")
    rounds_outside: bool = False

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Program and competitor of each process, in order."""
        rounds = [self.programs] if self.rounds_outside else [[name] for name in self.programs]
        for programs in rounds:
            for _ in range(self.repeats):
                for program in programs:
                    workload = find_workload(program, self.datapoints)
                    if workload.largest_product is not None:
                        yield program, "products"
                    for name in self.competitors:
                        if takes_part(name, workload):
                            yield program, name


@dataclass(frozen=True)
class Job:
    """One row of a table, run in processes of its own.

    Attributes:
        row: Its name.
        module: As ``python -m`` takes it.
        arguments: Of the command line.
        needs: Package that must be installed.
    """

    row: str
    module: str
    arguments: Sequence[str]
    needs: str = "aevb"


def alternate_jobs(jobs: Sequence[Job], repeats: int, threads: int, log: Path) -> list[Result]:
    """Run jobs in turn, each as often as the others; results as those of :func:`alternate`.

    Args:
        jobs: What to run.
        repeats: Processes of each.
        threads: For every job.
        log: Each result is appended to it as a line of JSON.
    """
    results = []
    with tempfile.TemporaryDirectory() as folder, log.open("a") as lines:
        path = make_importable(Path(folder) / "package")
        for number in range(repeats * len(jobs)):
            job = jobs[number % len(jobs)]
            from_checkout = job.needs == "aevb" and path is not None
            if from_checkout or importlib.util.find_spec(job.needs) is not None:
                found = run_module(job.module, job.arguments, path, threads)
            else:
                found = {"absent": job.needs}
            result = {"row": job.row} | found
            results.append(result)
            lines.write(json.dumps(result) + "\n")
            lines.flush()
            brief = result.get("brief") or result.get("failure") or f"{job.needs} is not installed"
            print(f"[{number + 1}/{repeats * len(jobs)}] {job.row}: {brief}", flush=True)
    return results


def alternate(plan: Plan, log: Path) -> list[Result]:
    """Run all processes of a plan.

    Args:
        plan: What to run.
        log: Each result is appended to it as a line of JSON.

    Returns:
        One result per process; those of absent competitors say ``{"absent": package}``, those of
        failed ones ``{"failure": message}``.
    """
    pairs = list(plan.pairs())
    results = []
    with tempfile.TemporaryDirectory() as folder, log.open("a") as lines:
        path = make_importable(Path(folder) / "package")
        for number, (program, competitor) in enumerate(pairs, 1):
            result = {"program": program, "competitor": competitor}
            result |= _process(plan, program, competitor, path)
            results.append(result)
            lines.write(json.dumps(result) + "\n")
            lines.flush()
            print(f"[{number}/{len(pairs)}] {program} {competitor}: {_brief(result)}", flush=True)
    return results


def _process(plan: Plan, program: str, competitor: str, path: str | None) -> Result:
    needed = "torch" if competitor == "products" else COMPETITORS[competitor].needs
    from_checkout = needed == "aevb" and path is not None
    if not from_checkout and importlib.util.find_spec(needed) is None:
        return {"absent": needed}
    left = plan.deadline - time.monotonic()
    if left < 5:
        return {"failure": "time ran out"}
    arguments = ["--program", program, "--competitor", competitor, "--device", plan.device]
    arguments += ["--threads", str(plan.threads), "--datapoints", str(plan.datapoints)]
    arguments += plan.options.get(program, [])
    seconds = min(left, _LONGEST_PROCESS)
    return run_module(
        "benchmarks.steps.worker", arguments, path, plan.threads, plan.device, seconds
    )


def run_module(
    module: str,
    arguments: Sequence[str],
    path: str | None,
    threads: int,
    device: str = "cpu",
    seconds: float = _LONGEST_PROCESS,
) -> Result:
    """Run a module in a process of its own.

    Args:
        module: As ``python -m`` takes it; prints its result as a last line of JSON.
        arguments: Of its command line.
        path: What belongs on ``PYTHONPATH``.
        threads: That every library may use.
        device: ``"cpu"`` or ``"cuda"``.
        seconds: After which it is stopped.

    Returns:
        What it printed, or ``{"failure": message}``.
    """
    with tempfile.TemporaryDirectory() as cache:
        try:
            done = subprocess.run(
                [sys.executable, "-m", module, *arguments],
                env=_environment(threads, device, path, cache),
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            return {"failure": "time ran out"}
    if done.returncode:
        errors = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        print(*errors[-15:], sep="\n", file=sys.stderr)
        return {"failure": errors[-1][:200].replace(str(ROOT), ".")}
    result: Result = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _environment(threads: int, device: str, path: str | None, cache: str) -> dict[str, str]:
    """Equal threads for all, and no kernels compiled by an earlier process."""
    paths = [entry for entry in (path, os.environ.get("PYTHONPATH")) if entry]
    platforms = {"JAX_PLATFORMS": "cpu"} if device == "cpu" else {}
    return (
        os.environ
        | platforms
        | {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "NPROC": str(threads),  # of XLA's pools
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONWARNINGS": "ignore",
            "TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor",
            "TRITON_CACHE_DIR": f"{cache}/triton",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
    )


def _brief(result: Result) -> str:
    if "milliseconds" in result:
        first, loss = result["first_step_seconds"], result["loss"]
        return f"{result['milliseconds']:.3f} ms, first step {first:.2f} s, loss {loss:.3f}"
    if "rates" in result:
        return ", ".join(f"{name} {rate / 1e9:.1f} G/s" for name, rate in result["rates"].items())
    return str(result.get("failure") or f"{result['absent']} is not installed")
