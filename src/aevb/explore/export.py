"""The explorer as a folder that opens without a server: what the page would ask, in advance."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from aevb.cli.files import as_json, refuse_read_only
from aevb.explore.explorer import Explorer
from aevb.explore.pictures import sheet
from aevb.explore.server import PAGE

__all__ = ["export"]

# Pictures along each slider, and draws of the prior for regions.
_STOPS, _PRIOR_DRAWS = 15, 400

Progress = Callable[[str, float], None]


def export(
    explorer: Explorer, folder: Path, posteriors: int, progress: Progress = lambda *_: None
) -> dict[str, Any]:
    """Write the page with everything that it shows.

    Args:
        explorer: What is explored.
        folder: To write into; it is made.
        posteriors: Datapoints that are put on trial: those with the largest gaps.
        progress: Called with what is done and how much of it.

    Returns:
        Number of datapoints and posteriors, the page, and the bytes written.

    Raises:
        FileExistsError: If the folder holds something else than an export.
        ValueError: If ``posteriors`` is negative.
    """
    if posteriors < 0:
        raise ValueError(f"posteriors: must be at least 0; got {posteriors}")
    page = folder / "index.html"
    if folder.exists() and not (folder.is_dir() and (page.exists() or not any(folder.iterdir()))):
        raise FileExistsError(f"{folder}: exists and is no earlier export; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    refuse_read_only(folder)
    weighed, why = _weighed(explorer, progress)
    chosen = _chosen(weighed, len(explorer), posteriors)
    trials = {}
    for number, index in enumerate(chosen):
        for step in explorer.trial(index):
            share = (number + step["share"]) / len(chosen)
            progress(f"posterior {number + 1} of {len(chosen)}", share)
            trials[index] = step
    shown = []
    for index in range(len(explorer)):
        found = explorer.datapoint(index)
        if index not in trials:  # its pictures are in the sheets, and its draws few would see
            found = {key: found[key] for key in ("index", "label", "values", "guide")}
            found["guide"] = {**found["guide"], "draws": []}
        shown.append(found)
        progress("datapoints", (index + 1) / len(explorer))
    space = explorer.space
    (folder / "sprite.png").write_bytes(explorer.thumbnails)
    rebuilt, _ = sheet(explorer.paint(_decoded(explorer, space.mean)))
    (folder / "reconstructions.png").write_bytes(rebuilt)
    overview = explorer.overview()
    if overview["plane"]:
        (folder / "plane.png").write_bytes(explorer.plane())
    content = {
        "overview": overview,
        "datapoints": shown,
        "weighed": weighed,
        "why": why,
        "trials": trials,
        "sliders": None if overview["plane"] else _sliders(explorer, folder),
        "prior": _prior(explorer, folder),
    }
    (folder / "data.js").write_text(
        f"window.AEVB_EXPORT = {as_json(content, ensure_ascii=True)};\n", encoding="utf-8"
    )
    source = files(__package__).joinpath("page")
    for name in PAGE:
        (folder / name).write_bytes(source.joinpath(name).read_bytes())
    text = page.read_text(encoding="utf-8")
    mark = '<script src="sources.js"'
    page.write_text(text.replace(mark, f'<script src="data.js" defer></script>\n{mark}'), "utf-8")
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return {
        "datapoints": len(explorer), "posteriors": len(trials), "page": str(page), "bytes": size
    }  # fmt: skip


def _weighed(explorer: Explorer, progress: Progress) -> tuple[dict[str, Any] | None, str | None]:
    """Evidence of all datapoints, or why there is none."""
    found: dict[str, Any] = {}
    try:
        for found in explorer.weigh():
            progress("weights", found["share"])
    except (ValueError, NotImplementedError) as error:  # as of a posterior that is a point
        return None, str(error).splitlines()[0]
    return found, None


def _chosen(weighed: dict[str, Any] | None, count: int, num: int) -> list[int]:
    if weighed is None:
        return []
    gaps = torch.tensor(weighed["figures"]["gap"]).nan_to_num(float("inf"))
    order: list[int] = gaps.argsort(descending=True)[: min(num, count)].tolist()
    return order


def _decoded(explorer: Explorer, z: torch.Tensor) -> torch.Tensor:
    return torch.cat([explorer.space.decode(part) for part in z.split(1_000)])


def _sliders(explorer: Explorer, folder: Path) -> dict[str, int]:
    """Each shown latent moved alone from the mean over all data."""
    space = explorer.space
    centre = space.centre[space.shown]
    rows = []
    for place, (low, high) in enumerate(zip(space.low, space.high, strict=True)):
        values = centre.repeat(_STOPS, 1)
        values[:, place] = torch.linspace(float(low), float(high), _STOPS).to(values)
        rows.append(values)
    z = space.with_shown(space.centre, torch.cat(rows))
    content, _ = sheet(explorer.paint(_decoded(explorer, z)), _STOPS)
    (folder / "sliders.png").write_bytes(content)
    return {"stops": _STOPS}


def _prior(explorer: Explorer, folder: Path) -> dict[str, Any]:
    space = explorer.space
    z = space.prior_draws(_PRIOR_DRAWS, space.seed)
    content, where = sheet(explorer.paint(_decoded(explorer, z)))
    (folder / "prior.png").write_bytes(content)
    return {"at": space.columns(z).double().cpu().numpy().round(3).tolist(), "sprite": where}
