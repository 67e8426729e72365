"""Where and with what a measurement was made, without a word about whose machine it is."""

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["ROOT", "commit", "describe_cpu", "installed_versions", "peak_memory", "slug"]

ROOT = Path(__file__).parent.parent.parent
_PACKAGES = ("torch", "pyro-ppl", "numpyro", "jax", "jaxlib", "numpy", "triton")


def describe_cpu() -> str:
    """Model and number of usable cores."""
    text = Path("/proc/cpuinfo").read_text()
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    model = match[1].strip() if match else platform.machine()
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} core{'s' * (cores != 1)}"


def slug(words: str) -> str:
    """A file name made of words.

    Example:
        >>> slug("AMD EPYC, 2 cores")
        'amd-epyc-2-cores'
    """
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def installed_versions() -> dict[str, str]:
    """Versions of the libraries in question; absent ones are left out."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def peak_memory() -> float:
    """Largest resident size of this process so far, in MiB.

    Not from ``getrusage``, whose maximum a process inherits from the one that started it.
    """
    status = Path("/proc/self/status").read_text()
    return float(status.partition("VmHWM:")[2].split()[0]) / 1024


def commit() -> str:
    """The checkout's commit, and whether it has uncommitted changes."""
    try:
        name = _git("rev-parse", "--short", "HEAD")
        changes = _git("status", "--porcelain", "--", ":!benchmarks/results")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name + (", with uncommitted changes" if changes else "")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
