"""Where the posterior of a run puts its data."""

from pathlib import Path
from typing import Any

import numpy as np

from aevb.cli.files import destination
from aevb.cli.runs import SavedRun, Split, check

__all__ = ["embed"]


def embed(
    saved: SavedRun, split: Split = "test", limit: int | None = None, out: Path | None = None
) -> dict[str, Any]:
    """Embed a split: posterior means and scales, active units, and the KL of each latent.

    Args:
        saved: The run.
        split: train, validation or test.
        limit: Only the first so many datapoints.
        out: Array to write, .npz; a picture goes beside it. By default in the run.

    Returns:
        Figures, and the files written.
    """
    from aevb import evaluation

    check(limit=limit)
    x, seed, model = saved.values(split, limit), saved.seed, saved.at_means
    path = destination(out or saved.folder / f"embedding-{split}-{len(x)}-seed{seed}.npz", ".npz")
    embedding = evaluation.embed(model.guide, x, seed=seed)
    use = evaluation.latent_use(model.model, model.guide, x, seed=seed)
    arrays: dict[str, Any] = {}
    if use.kl is not None:
        arrays = {"kl": use.kl.mean.cpu().numpy(), "kl_names": np.array(use.kl.names)}
    np.savez(
        path,
        mean=embedding.mean.cpu().numpy(),
        scale=embedding.scale.cpu().numpy(),
        names=np.array(embedding.names),
        variance=use.units.variance.cpu().numpy(),
        **arrays,
    )
    picture = path.with_suffix(".png")
    order = use.units.variance.argsort(descending=True)[:2].tolist()
    evaluation.embedding_plot(
        embedding.mean[:, order].cpu(), [embedding.names[place] for place in order], picture
    )
    return {
        "run": str(saved.folder),
        "split": split,
        **use.summary(),
        **saved.weights,
        "seed": seed,
        "array": str(path),
        "picture": str(picture),
    }
