"""Missing values of a run's data, filled in by the DLGM's chain and by Hamiltonian Monte Carlo."""

import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from aevb import evaluation
from aevb.cli.evaluate import check, plain, weights_record
from aevb.cli.runs import PICTURES, SavedRun, destination, refuse_read_only, write_json

__all__ = ["Pattern", "impute_split"]

Pattern = Literal["random", "square"]


def impute_split(
    saved: SavedRun,
    split: str,
    missing: float,
    pattern: Pattern,
    datapoints: int,
    num_steps: int,
    num_chains: int,
    num_samples: int,
    seed: int,
    device: torch.device,
    out: Path | None,
) -> dict[str, Any]:
    """Hide values of a split, fill them in, and measure against what they were.

    Args:
        saved: The run.
        split: Of its data.
        missing: Share of the values that is hidden.
        pattern: Which: at random, or a square in the middle.
        datapoints: The first so many.
        num_steps: Of the DLGM's chain.
        num_chains: Of both methods.
        num_samples: Draws of each chain of Hamiltonian Monte Carlo, and its warm-up; 0 for none.
        seed: Of everything random.
        device: Where to compute.
        out: Picture to write; by default in the run.

    Returns:
        What is printed.
    """
    check(datapoints=datapoints, num_steps=num_steps, num_chains=num_chains)
    if not 0 < missing < 1:
        raise ValueError(f"missing: must lie between 0 and 1; got {missing}")
    x = getattr(saved.dataset, split).evaluation(datapoints).to(device)
    observed = _mask(x, missing, pattern, seed).to(device)
    if bool(observed.all()):
        raise ValueError(
            f"missing: a share of {missing:g} hides none of the {x[0].numel()} values of "
            f"{len(x)} datapoint{'s' * (len(x) != 1)}; take more of either"
        )
    refuse_read_only(saved.folder)
    stem = f"imputation-{pattern}-{missing:g}-{split}-{len(x)}-seed{seed}"
    picture = destination(out or saved.folder / f"{stem}.png", *PICTURES)
    model = plain(saved.model)
    chain = evaluation.impute(
        model.model, model.guide, x, observed, num_steps=num_steps, num_chains=num_chains,
        seed=seed, truth=x,
    )  # fmt: skip
    rows = {"chain": chain}
    if num_samples:
        rows["hmc"] = evaluation.impute_hmc(
            model.model, x, observed, guide=model.guide, num_chains=num_chains,
            num_samples=num_samples, num_warmup=num_samples, seed=seed, truth=x,
        )  # fmt: skip
    columns = [x, torch.where(observed, x, 0.5 * torch.ones_like(x))]
    columns += [row.mean.to(x) for row in rows.values()]
    shown = torch.stack([column[:16] for column in columns], 1).flatten(0, 1)
    evaluation.image_grid(shown.cpu(), picture, len(columns), "data, observed, " + ", ".join(rows))
    figures: dict[str, Any] = {
        "run": str(saved.folder),
        "split": split,
        "num_datapoints": len(x),
        "missing": missing,
        "pattern": pattern,
        **weights_record(saved),
        "mse_half": float((x - 0.5).square()[~observed].mean()),
        "seed": seed,
        "picture": str(picture),
    }
    for name, row in rows.items():
        errors = torch.zeros(0) if row.mse is None else row.mse
        errors = errors[~torch.isnan(errors)]
        many = len(errors) > 1
        figures[f"mse_{name}"] = float(errors.mean()) if len(errors) else None
        figures[f"mse_{name}_error"] = (
            float(errors.std()) / math.sqrt(len(errors)) if many else None
        )
    if rows.get("hmc") is not None and rows["hmc"].draws is not None:
        figures["hmc_suspicious"] = int(rows["hmc"].draws.suspicious.sum())
    write_json(saved.folder / f"{stem}.json", figures)
    return figures


def _mask(x: Tensor, missing: float, pattern: Pattern, seed: int) -> Tensor:
    """True where a value is known."""
    if pattern == "random":
        generator = torch.Generator().manual_seed(seed)
        # all channels of a pixel together
        shape = (len(x), 1, *x.shape[2:]) if x.ndim == 4 else x.shape
        return (torch.rand(shape, generator=generator) >= missing).expand(x.shape)
    if x.ndim < 3:
        raise ValueError(f"pattern: a square needs pictures; got data of shape {x.shape[1:]}")
    observed = torch.ones(x.shape, dtype=torch.bool)
    spans = []
    for size in x.shape[-2:]:
        side = max(1, round(size * math.sqrt(missing)))
        start = (size - side) // 2
        spans.append(slice(start, start + side))
    observed[..., spans[0], spans[1]] = False
    return observed
