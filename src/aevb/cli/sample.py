"""Draws from the model of a run."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from aevb.cli.files import PICTURES, destination
from aevb.cli.runs import PAGE, SavedRun, check
from aevb.cli.telling import Told, counted, rows

__all__ = ["sample"]


def sample(saved: SavedRun, num: int = 64, out: Path | None = None) -> dict[str, Any]:
    """Draw from the model: a picture of E[x|z] at z from the prior, and the array of it.

    Args:
        saved: The run.
        num: Number of draws.
        out: Picture to write, .png; the array goes beside it as .npy. By default in the run.

    Returns:
        The files written.
    """
    from aevb import evaluation

    check(num=num)
    seed = saved.seed
    picture = destination(out or saved.folder / f"samples-{num}-seed{seed}.png", *PICTURES)
    means = evaluation.prior_means(saved.at_means.model, num, seed).cpu()
    if means.ndim == 2:  # a table
        data, draws = saved.values("test"), saved.sample(num)
        title = f"Test data and {num} draws, seed {seed}"
        evaluation.table_plot(data, draws, picture, saved.dataset.columns, title=title)
    else:
        evaluation.image_grid(means, picture, math.isqrt(num), f"{num} samples, seed {seed}")
    array = picture.with_suffix(".npy")
    np.save(array, means.numpy(), allow_pickle=False)
    figures = {
        "run": str(saved.folder),
        "num": num,
        **saved.weights,
        "seed": seed,
        "picture": str(picture),
        "array": str(array),
    }
    shown = {
        "drawn": f"{counted(num, 'mean')} E[x|z] of {saved.dataset.name}, z from the prior",
        "picture": str(picture),
        "array": str(array),
        "page": str(saved.folder / PAGE),
    }
    return Told(figures, rows(shown))
