"""Processes one after another: A B C A B C ..., each competitor as often as the others."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.checkout import make_importable
from benchmarks.common.machine import ROOT

__all__ = ["Competitor", "Job", "Result", "run_jobs"]

Result = dict[str, Any]
_LONGEST_PROCESS = 600.0  # seconds


@dataclass(frozen=True)
class Competitor:
    """A row of the tables.

    Attributes:
        title: In the tables.
        module: In the package of competitors.
        variant: What its ``build`` is called with.
        needs: Package that must be installed.
    """

    title: str
    module: str
    variant: str
    needs: str


@dataclass(frozen=True)
class Job:
    """A process of its own.

    Attributes:
        names: What its result is found by: the row of a table, or program and competitor.
        module: As ``python -m`` takes it; prints its result as a last line of JSON.
        settings: Given to it as JSON, with ``threads`` and ``device``.
        needs: Package that must be installed.
    """

    names: dict[str, str]
    module: str
    settings: dict[str, Any]
    needs: str = "aevb"


def run_jobs(
    jobs: Sequence[Job],
    threads: int,
    log: Path,
    device: str = "cpu",
    deadline: float = float("inf"),
) -> list[Result]:
    """Run jobs in their order.

    Args:
        jobs: What to run.
        threads: That every library may use.
        log: Each result is appended to it as a line of JSON.
        device: ``"cpu"`` or ``"cuda"``.
        deadline: ``time.monotonic()`` after which no process is started or left running.

    Returns:
        One result per job: its names, and what it printed; ``{"absent": package}`` if that is not
        installed, ``{"failure": message}`` if it failed.
    """
    results = []
    with tempfile.TemporaryDirectory() as folder, log.open("a") as lines:
        path = make_importable(Path(folder) / "package")
        for number, job in enumerate(jobs, 1):
            found = _outcome(job, path, threads, device, deadline)
            results.append(job.names | found)
            lines.write(json.dumps(results[-1]) + "\n")
            lines.flush()
            brief = found.get("brief") or found.get("failure") or f"{job.needs} is not installed"
            print(f"[{number}/{len(jobs)}] {' '.join(job.names.values())}: {brief}", flush=True)
    return results


def _outcome(job: Job, path: str | None, threads: int, device: str, deadline: float) -> Result:
    from_checkout = job.needs == "aevb" and path is not None
    if not from_checkout and importlib.util.find_spec(job.needs) is None:
        return {"absent": job.needs}
    settings = json.dumps(job.settings | {"threads": threads, "device": device})
    left = deadline - time.monotonic()
    if left < 5:
        return {"failure": "time ran out"}
    with tempfile.TemporaryDirectory() as cache:
        try:
            done = subprocess.run(
                [sys.executable, "-m", job.module, settings],
                env=_environment(threads, device, path, cache),
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=min(left, _LONGEST_PROCESS),
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
    return {
        **os.environ,
        **({"JAX_PLATFORMS": "cpu"} if device == "cpu" else {}),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "NPROC": str(threads),  # of XLA's pools
        "PYTHONPATH": os.pathsep.join(paths),
        # else some libraries would be compiled to bytecode anew in each process
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONWARNINGS": "ignore",
        "TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor",
        "TRITON_CACHE_DIR": f"{cache}/triton",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
