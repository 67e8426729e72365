"""Where the posterior of a run puts its data."""

from pathlib import Path
from typing import Any

import numpy as np

from aevb.cli.files import destination, write_json
from aevb.cli.runs import PAGE, SavedRun, Split, check
from aevb.cli.telling import Told, counted, next_steps, of_run, rows, with_error

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
    figures = {
        "run": str(saved.folder),
        "split": split,
        **use.summary(),
        **saved.weights,
        "seed": seed,
        "array": str(path),
        "picture": str(picture),
    }
    write_json(path.with_suffix(".json"), figures)
    return Told(figures, _told(figures, saved))


def _told(figures: dict[str, Any], saved: SavedRun) -> str:
    latents = counted(figures["latents"], "latent")
    kl = f"not defined: {figures.get('why_no_kl')}"
    if figures["kl"] is not None:
        kl = f"{with_error(figures['kl'], figures['kl_error'])} nats per datapoint from the prior"
    shown = {
        "embedded": counted(figures["num_datapoints"], f"{figures['split']} datapoint")
        + f" of {saved.dataset.name}",
        "active": f"{figures['active_units']} of {latents}: the data move their means",
        "KL": kl,
        "array": figures["array"],
        "picture": figures["picture"],
        "page": str(saved.folder / PAGE),
    }
    known = of_run(saved.folder)
    return "\n".join([rows(shown), "", next_steps([known["compare"], known["sample"]])])
