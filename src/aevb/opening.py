"""A run folder opened from Python, by the mechanism and under the rules of the command line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aevb.cli.runs import Device, SavedRun

__all__ = ["open"]


def open(
    run: str | os.PathLike[str],
    *,
    seed: int = 0,
    device: Device = "auto",
    data_root: str | os.PathLike[str] | None = None,
    trust: Sequence[str] = (),
) -> SavedRun:
    """Open a run folder of ``aevb train``: its model with its weights, its data, its history.

    A folder may be a stranger's: it names parts of this package and of torch alone, unless
    ``trust`` names the modules of others, and nothing of it is unpickled (``docs/security.md``).

    Args:
        run: The folder.
        seed: Of everything random that is done with it.
        device: Where to compute: ``"auto"`` (CUDA where there is one), ``"cpu"`` or ``"cuda"``.
        data_root: Folder with the data, if it has moved.
        trust: Modules beyond aevb and torch whose classes the run may name; their code runs.

    Returns:
        The run, with ``model``, ``history``, ``data`` and ``embed``, ``log_evidence``,
        ``log_prob``, ``compare``, ``sample``, ``reconstruct``.

    Raises:
        FileNotFoundError: If there is no run or checkpoint in the folder, or its data are missing.
        ValueError: If the run names what is not trusted, or is damaged.

    Example:
        >>> open("no-such-run")
        Traceback (most recent call last):
        FileNotFoundError: no-such-run is no run folder: it has no config.yaml
    """
    from aevb.cli.configurations import reopen
    from aevb.cli.jsonargparse_hooks import hooked
    from aevb.cli.parser import Parsers
    from aevb.cli.runs import open_run

    folder = Path(run)
    root = None if data_root is None else Path(data_root)
    with hooked():
        settings = reopen(Parsers(trust)["train"], folder)
        return open_run(settings, folder, seed=seed, device=device, data_root=root)
