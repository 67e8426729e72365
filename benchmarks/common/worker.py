"""A process of its own: settings in, one line of JSON out."""

import json
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from benchmarks.common.machine import installed_versions

__all__ = ["run_worker"]


def run_worker(measure: Callable[[SimpleNamespace], dict[str, Any]]) -> None:
    """Print what is measured with the settings of a :class:`benchmarks.common.runs.Job`.

    Args:
        measure: Gets the job's settings, with ``threads`` and ``device``.
    """
    settings = SimpleNamespace(**json.loads(sys.argv[1]))
    # JAX has no setting for its threads, but makes one for each processor it may run on
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: settings.threads])
    print(json.dumps(measure(settings) | {"versions": installed_versions()}), flush=True)
