"""Where the posterior of a run puts its data."""

from pathlib import Path
from typing import Any

import numpy as np

from aevb.cli.files import destination, names_of_rows, write_json, write_rows
from aevb.cli.runs import PAGE, SavedRun, Split, check
from aevb.cli.telling import Told, counted, next_steps, of_run, with_error
from aevb.cli.telling import rows as lines
from aevb.data import Table

__all__ = ["embed"]


def embed(
    saved: SavedRun,
    split: Split = "test",
    data: str | None = None,
    table: Table | None = None,
    limit: int | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Embed a split or new data: posterior means and scales, active units, KL of each latent.

    Args:
        saved: The run.
        split: train, validation, test or all, which is in the order of the data's file.
        data: New data in place of a split: a file or folder, prepared as the run's own data were.
        table: How a table of new data is read; by default as the run's own.
        limit: Only the first so many datapoints.
        out: Array to write, .npz; a table of the same, .csv, and a picture go beside it. By
            default in the run.

    Returns:
        Figures, and the files written.
    """
    from aevb import evaluation

    check(limit=limit)
    found = saved.datapoints(data or split, limit, table)
    x, seed, model = found.values, saved.seed, saved.at_means
    name = split if data is None else Path(data).stem
    path = destination(out or saved.folder / f"embedding-{name}-{len(x)}-seed{seed}.npz", ".npz")
    embedding = evaluation.embed(model.guide, x, seed=seed)
    arrays = names_of_rows(found)
    figures: dict[str, Any] = {}
    order = [0, 1][: embedding.mean.shape[1]]
    if len(x) > 1:  # what data move takes more than one datapoint
        use = evaluation.latent_use(model.model, model.guide, x, seed=seed)
        figures, arrays["variance"] = use.summary(), use.units.variance.cpu().numpy()
        order = use.units.variance.argsort(descending=True)[:2].tolist()
        if use.kl is not None:
            arrays |= {"kl": use.kl.mean.cpu().numpy(), "kl_names": np.array(use.kl.names)}
    mean, scale = embedding.mean.cpu(), embedding.scale.cpu()
    names = np.array(embedding.names)
    np.savez(path, mean=mean.numpy(), scale=scale.numpy(), names=names, **arrays)
    rows = path.with_suffix(".csv")
    columns = {name: mean[:, place].tolist() for place, name in enumerate(embedding.names)}
    columns |= {f"sd {n}": scale[:, place].tolist() for place, n in enumerate(embedding.names)}
    write_rows(rows, found, columns)
    picture = path.with_suffix(".png")
    evaluation.embedding_plot(mean[:, order], [embedding.names[p] for p in order], picture)
    result = {
        "run": str(saved.folder),
        "split": split if data is None else "new",
        **({} if data is None else {"data": data}),
        "num_datapoints": len(x),
        **figures,
        **saved.weights,
        "seed": seed,
        "array": str(path),
        "rows": str(rows),
        "picture": str(picture),
    }
    write_json(path.with_suffix(".json"), result)
    return Told(result, _told(result, saved))


def _told(figures: dict[str, Any], saved: SavedRun) -> str:
    what = f"{figures['split']} datapoint"
    of = figures.get("data", saved.dataset.name)
    shown = {"embedded": f"{counted(figures['num_datapoints'], what)} of {of}"}
    if "active_units" in figures:
        latents = counted(figures["latents"], "latent")
        shown["active"] = f"{figures['active_units']} of {latents}: the data move their means"
        shown["KL"] = f"not defined: {figures.get('why_no_kl')}"
        if figures["kl"] is not None:
            kl = with_error(figures["kl"], figures["kl_error"])
            shown["KL"] = f"{kl} nats per datapoint from the prior"
    shown |= {name: figures[name] for name in ("array", "rows", "picture")}
    shown["page"] = str(saved.folder / PAGE)
    known = of_run(saved.folder)
    return "\n".join([lines(shown), "", next_steps([known["compare"], known["sample"]])])
