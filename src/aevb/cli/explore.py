"""A page on which to look at a run."""

import sys
import time
import webbrowser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from aevb.cli.runs import SavedRun, Split, check

__all__ = ["explore"]


def explore(
    saved: SavedRun,
    split: Split = "test",
    limit: int | None = None,
    labels: Path | None = None,
    num_samples: int = 500,
    port: int = 0,
    browser: bool = False,
    export: Path | None = None,
    posteriors: int = 12,
) -> dict[str, Any]:
    """Look at the latents, posteriors and evidence of a run in a browser, until Ctrl-C.

    Args:
        saved: The run.
        split: train, validation or test.
        limit: Only the first so many datapoints; all of them on the page, 1,000 in an export.
        labels: File with a label for each row of the split, .npy or text with one in each line.
            MNIST and the digits have theirs.
        num_samples: Of each datapoint's importance sampling.
        port: To listen at, on this machine alone; 0 takes a free one.
        browser: Whether to open a browser at the address.
        export: Folder to write the page into as files that open without a server, instead.
        posteriors: Datapoints that an export puts on trial, those with the largest gaps.

    Returns:
        The address that was served, or what was written.
    """
    from aevb.explore.explorer import Explorer, read_labels

    check(limit=limit, num_samples=num_samples)
    if not export and not (find_spec("starlette") and find_spec("uvicorn")):
        raise RuntimeError(
            "the page is served by Starlette and uvicorn, which are not installed: "
            "pip install 'aevb[explore]', or write it with --export FOLDER"
        )
    limit = 1_000 if export and limit is None else limit
    x, began = saved.values(split, limit), time.perf_counter()
    about = {
        "run": saved.folder.name,
        "model": repr(saved.model),
        "data": saved.dataset.name,
        "split": split,
        "epoch": saved.epoch,
        "seed": saved.seed,
        **saved.weights,
    }
    known = read_labels(labels, len(x)) if labels else _own_labels(saved, split, len(x))
    # an export holds a covariance of each datapoint, which grows with the square
    explorer = Explorer(
        saved.at_means, x, known, about, saved.seed, num_samples, 12 if export else 40
    )
    if export:
        from aevb.explore.export import export as write

        written = write(explorer, export, posteriors, _progress)
        seconds = round(time.perf_counter() - began, 1)
        return {"run": str(saved.folder), "split": split, **written, "seconds": seconds}
    from aevb.explore.server import serve

    def announce(address: str) -> None:
        _say(f"{len(x):,} datapoints at {address}\nCtrl-C ends it.\n")
        if browser:
            webbrowser.open(address)

    address = serve(explorer, port, announce)
    seconds = round(time.perf_counter() - began, 1)
    return {"run": str(saved.folder), "split": split, "address": address, "seconds": seconds}


def _own_labels(saved: SavedRun, split: Split, num: int) -> np.ndarray[Any, Any] | None:
    """Those that are known of a named dataset, if they lie where it was read from."""
    from aevb.experiments.reproduction.labels import labels

    name, source = saved.dataset.name, Path(saved.dataset.source)
    try:
        parts = labels(name, source.parent.parent if name == "mnist" else None)
    except (ValueError, OSError, RuntimeError):  # none are known, or their files are missing
        return None
    found = dict(zip(("train", "validation", "test"), parts, strict=True))[split]
    if len(found) != len(getattr(saved.dataset, split)):  # another dataset of that name
        return None
    return found[:num].numpy()


def _progress(what: str, share: float) -> None:
    if sys.stderr.isatty():
        _say(f"\r{what:<24}{share:5.0%} " + "\n" * (share >= 1))


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
