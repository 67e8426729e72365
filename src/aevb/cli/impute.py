"""Missing values of a run's data, filled in by the DLGM's chain and by Hamiltonian Monte Carlo."""

import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from aevb.cli.files import PICTURES, destination, refuse_read_only, write_json
from aevb.cli.runs import PAGE, SavedRun, Split, check
from aevb.cli.telling import Told, counted, rows, with_error

__all__ = ["impute"]

_SHOWN = {"chain": "chain", "hmc": "HMC"}


def impute(
    saved: SavedRun,
    missing: float = 0.6,
    pattern: Literal["random", "square"] = "random",
    datapoints: int = 64,
    split: Split = "test",
    num_steps: int = 100,
    num_chains: int = 4,
    num_samples: int = 300,
    out: Path | None = None,
) -> dict[str, Any]:
    """Hide values and fill them in: by the DLGM paper's Markov chain, and by HMC.

    Args:
        saved: The run.
        missing: Share of the values that is hidden.
        pattern: random, or square: one in the middle.
        datapoints: The first so many of the split.
        split: train, validation, test or all.
        num_steps: Of the Markov chain, whose second half counts.
        num_chains: Of both methods, for each datapoint.
        num_samples: Draws, and warm-up, of each chain of HMC; 0 for none.
        out: Picture to write, .png. By default in the run.

    Returns:
        Errors over the hidden values, and the picture.
    """
    from aevb import evaluation

    check(datapoints=datapoints, num_steps=num_steps, num_chains=num_chains)
    if not 0 < missing < 1:
        raise ValueError(f"missing: must lie between 0 and 1; got {missing}")
    x, seed, model = saved.values(split, datapoints), saved.seed, saved.at_means
    observed = _mask(x, missing, pattern, seed).to(x.device)
    if bool(observed.all()):
        raise ValueError(
            f"missing: a share of {missing:g} hides none of the {x[0].numel()} values of "
            f"{len(x)} datapoint{'s' * (len(x) != 1)}; take more of either"
        )
    refuse_read_only(saved.folder)
    stem = f"imputation-{pattern}-{missing:g}-{split}-{len(x)}-seed{seed}"
    picture = destination(out or saved.folder / f"{stem}.png", *PICTURES)
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
    filled = {_SHOWN[name]: row.mean.to(x)[:16].cpu() for name, row in rows.items()}
    title = f"{missing:.0%} of the values hidden; means by {' and '.join(filled)}"
    evaluation.imputation_plot(x[:16].cpu(), observed[:16].cpu(), filled, picture, title=title)
    figures: dict[str, Any] = {
        "run": str(saved.folder),
        "split": split,
        "num_datapoints": len(x),
        "missing": missing,
        "pattern": pattern,
        **saved.weights,
        "mse_half": float((x - 0.5).square()[~observed].mean()),
        "seed": seed,
        "picture": str(picture),
    }
    for name, row in rows.items():
        errors = torch.as_tensor(row.mse)
        errors = errors[~torch.isnan(errors)]
        many, error = len(errors), math.nan
        if many > 1:
            error = float(errors.std()) / math.sqrt(many)
        figures |= {f"mse_{name}": float(errors.mean()), f"mse_{name}_error": error}
    if "hmc" in rows and rows["hmc"].draws is not None:
        figures["hmc_suspicious"] = int(rows["hmc"].draws.suspicious.sum())
    write_json(saved.folder / f"{stem}.json", figures)
    return Told(figures, _told(figures, saved))


def _told(figures: dict[str, Any], saved: SavedRun) -> str:
    on = counted(figures["num_datapoints"], f"{figures['split']} datapoint")
    where = "at random" if figures["pattern"] == "random" else "as a square"
    errors = {
        f"by {words}": with_error(figures[f"mse_{name}"], figures[f"mse_{name}_error"], 4)
        for name, words in (("chain", "chain"), ("hmc", "HMC"))
        if f"mse_{name}" in figures
    }
    unsure = figures.get("hmc_suspicious")
    shown = {
        "hidden": f"{figures['missing']:.0%} of the values of {on} of {saved.dataset.name}, "
        + where,
        **{name: f"mean squared error {error}" for name, error in errors.items()},
        "by 1/2": f"mean squared error {figures['mse_half']:.4f}, of a guess without a model",
        "unsure": f"the chains of HMC did not mix at {unsure} of {on}" if unsure else None,
        "picture": figures["picture"],
        "page": str(saved.folder / PAGE),
    }
    return rows(shown)


def _mask(x: Tensor, missing: float, pattern: str, seed: int) -> Tensor:
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
