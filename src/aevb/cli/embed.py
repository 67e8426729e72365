"""Where the posterior of a run puts its data."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from aevb import evaluation
from aevb.cli.evaluate import check, plain, weights_record
from aevb.cli.runs import SavedRun, destination

__all__ = ["embed_split"]


def embed_split(
    saved: SavedRun,
    split: str,
    limit: int | None,
    seed: int,
    device: torch.device,
    out: Path | None,
) -> dict[str, Any]:
    """Posterior means and scales of a split, the units in use, and the KL of each.

    Args:
        saved: The run.
        split: Of its data.
        limit: Only the first so many datapoints.
        seed: Of Monte Carlo, where there is no closed form.
        device: Where to compute.
        out: Array to write, .npz; by default in the run.

    Returns:
        What is printed.
    """
    check(limit=limit)
    x = getattr(saved.dataset, split).evaluation(limit).to(device)
    path = destination(out or saved.folder / f"embedding-{split}-{len(x)}-seed{seed}.npz", ".npz")
    model = plain(saved.model)
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
        **weights_record(saved),
        "seed": seed,
        "array": str(path),
        "picture": str(picture),
    }
