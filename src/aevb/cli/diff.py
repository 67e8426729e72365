"""Runs beside each other: what was set otherwise, and what came of it on the same datapoints."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from aevb import inference
from aevb.cli.files import destination, write_json, write_rows
from aevb.cli.runs import CONFIG, Device, SavedRun, Split, check
from aevb.cli.telling import Told
from aevb.inference.evidence.estimate import error_of_mean, number

__all__ = ["diff"]

# Of data that two runs must have in common for their datapoints to be the same.
_SAME = ("sha256", "shape", "divisor", "binarize", "sizes")
_UNLIKE = {"data_root", "device", "out", "resume", "json", "config", "trust"}  # no part of a model


def diff(
    reopen: Callable[..., SavedRun],
    folders: list[Path],
    split: Split = "test",
    limit: int | None = 1000,
    num_samples: int = 1000,
    seed: int = 0,
    device: Device = "cpu",
    data_root: Path | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Compare runs: their settings, their evidence on the same datapoints, their curves.

    Differences are of each datapoint to itself under the first run, so that what makes some
    datapoints harder than others is no part of their errors. Runs on other data or with another
    binarization are refused: their evidences cannot be compared.

    Args:
        reopen: Opens a run folder.
        folders: Run folders; the others are compared to the first.
        split: train, validation, test or all.
        limit: Only the first so many datapoints; null for all.
        num_samples: Importance samples for each datapoint.
        seed: Of the draws.
        device: Where to compute.
        data_root: Folder with the data, if it has moved.
        out: Picture to write, .png; the rows, .csv, and the figures, .json, go beside it. By
            default diff-NAME-NAME here.

    Returns:
        Settings that differ, figures of each run and their differences, and the files written.
    """
    from aevb import evaluation

    check(limit=limit, num_samples=num_samples)
    if len(folders) < 2:
        raise ValueError(f"diff: {len(folders)} run; expected at least two run folders")
    runs = {
        name: reopen(folder, seed=seed, device=device, data_root=data_root)
        for name, folder in _named(folders).items()
    }
    first, *others = runs
    _refuse_other_data(runs)
    picture = destination(out or Path("-".join(["diff", *runs]) + ".png"), ".png")
    # of a dynamic binarization one draw for all: each run has its own by its seed
    found = runs[first].datapoints(split, limit)
    estimates = {
        name: _evidence(run, found.values, num_samples, seed, name) for name, run in runs.items()
    }
    own = {"run": lambda run: str(run.folder), "epoch": lambda run: run.epoch}
    rows = picture.with_suffix(".csv")
    figures: dict[str, Any] = {
        "split": split,
        "num_datapoints": len(found.values),
        "num_samples": num_samples,
        "seed": seed,
        "data": runs[first].dataset.name,
        "binarize": runs[first].dataset.train.binarize,
        "unit": "nats per datapoint",
        "settings": _differing({name: _flat(run.folder / CONFIG) for name, run in runs.items()}),
        "runs": {
            name: {key: value(run) for key, value in own.items()} | estimates[name].summary()
            for name, run in runs.items()
        },
        "differences": {name: _difference(estimates[name], estimates[first]) for name in others},
        "picture": str(picture),
        "rows": str(rows),
    }
    columns = {
        f"{key} {name}": getattr(estimate, key).tolist()
        for name, estimate in estimates.items()
        for key in ("log_evidence", "elbo")
    }
    write_rows(rows, found, columns)
    evaluation.training_curves(
        {name: run.history for name, run in runs.items()},
        picture,
        title=f"Training on {runs[first].dataset.name}",
    )
    write_json(picture.with_suffix(".json"), figures)
    return Told(figures, _told(figures))


def _named(folders: list[Path]) -> dict[str, Path]:
    """The runs by the last words of their paths that tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["-".join(part[-depth:]).replace("/", "") for part in parts]
        if len(set(names)) == len(names):
            return dict(zip(names, folders, strict=True))
    raise ValueError("diff: a run is named twice; expected different run folders")


def _refuse_other_data(runs: dict[str, SavedRun]) -> None:
    records = {name: run.dataset.record() for name, run in runs.items()}
    first, *others = records
    for name in others:
        for key in _SAME:
            mine, its = records[first][key], records[name][key]
            if mine != its:
                raise ValueError(
                    f"{name}: was trained on {records[name]['name']} with {key} {its!s:.30}, and "
                    f"{first} on {records[first]['name']} with {mine!s:.30}: evidences of other "
                    "datapoints, or of these presented otherwise, cannot be compared"
                )


def _evidence(
    run: SavedRun, x: Any, num_samples: int, seed: int, name: str
) -> inference.ImportanceEvidence:
    model = run.at_means
    try:
        return inference.importance_evidence(
            model.model, model.guide, x, num_samples=num_samples, seed=seed
        )
    except inference.NoDensityError as error:
        raise ValueError(f"{name}: has no evidence to compare: {error}") from error


def _difference(
    one: inference.ImportanceEvidence, other: inference.ImportanceEvidence
) -> dict[str, Any]:
    """Means of paired differences, with their standard errors."""
    figures: dict[str, Any] = {}
    for key in ("log_evidence", "elbo"):
        paired = getattr(one, key) - getattr(other, key)
        figures |= {key: number(paired.mean()), f"{key}_standard_error": error_of_mean(paired)}
    both = bool(one.summary()["verdict"] == other.summary()["verdict"] == "trusted")
    return {**figures, "is_trusted": both}


def _flat(path: Path) -> dict[str, Any]:
    """Settings of a configuration, which was checked when its run was opened, by their flags."""
    return dict(_flags("", yaml.safe_load(path.read_text())))


def _flags(key: str, value: Any) -> Any:
    if isinstance(value, dict) and value:
        return itertools.chain.from_iterable(
            _flags(
                key if name in ("class_path", "init_args") else f"{key}.{name}".lstrip("."), inner
            )
            for name, inner in value.items()
        )
    return [(key, value)]


def _differing(all_settings: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By flag what each run has, where that is not the same."""
    keys = dict.fromkeys(itertools.chain.from_iterable(all_settings.values()))
    found = {
        key: {name: settings.get(key) for name, settings in all_settings.items()} for key in keys
    }
    return {
        key: values
        for key, values in found.items()
        if key not in _UNLIKE and len({repr(value) for value in values.values()}) > 1
    }


def _told(figures: dict[str, Any]) -> str:
    """What a person reads."""
    names = list(figures["runs"])
    lines = [
        f"{figures['num_datapoints']:,} datapoints of {figures['data']} ({figures['split']}), "
        f"binarize {figures['binarize']}, nats per datapoint, ± one standard error"
    ]
    header = ["", "log p(x)", "ELBO", f"log p(x) − {names[0]}", "ELBO − same", "trusted"]
    table = [header]
    for name in names:
        own, paired = figures["runs"][name], figures["differences"].get(name)
        row = [name, _pair(own, "log_evidence", "standard_error")]
        row.append(_pair(own, "elbo", "elbo_standard_error"))
        if paired is None:
            row += ["", ""]
        else:
            row += [_pair(paired, k, f"{k}_standard_error", "+") for k in ("log_evidence", "elbo")]
        table.append([*row, "yes" if own["verdict"] == "trusted" else own["verdict"]])
    lines += ["", *_aligned(table), "", "settings that differ:" if figures["settings"] else ""]
    settings = [[f"  {key}", *map(str, of.values())] for key, of in figures["settings"].items()]
    lines += _aligned([["", *names], *settings]) if settings else ["no setting differs"]
    lines += ["", f"curves: {figures['picture']}", f"rows:   {figures['rows']}"]
    return "\n".join(lines)


def _pair(figures: dict[str, Any], key: str, error: str, sign: str = "") -> str:
    value, noise = figures[key], figures[error]
    if value is None:
        return "–"
    return f"{value:{sign}.3f}" + ("" if noise is None else f" ± {noise:.3f}")


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
