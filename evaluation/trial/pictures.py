"""Pictures of a trial, each small enough to be read on a phone."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from aevb.evaluation.latents.use import LatentUse
from aevb.evaluation.plots import new_axes
from aevb.evaluation.posterior.calibration import Calibration
from aevb.evaluation.posterior.errors import PosteriorErrors
from aevb.evaluation.predictive.checks import PredictiveCheck
from aevb.inference import ImportanceEvidence
from aevb.inference.evidence.psis import khat_limit

__all__ = [
    "calibration_pictures",
    "check_pictures",
    "data_picture",
    "draws_picture",
    "latents_picture",
    "overview_pictures",
    "worst_names",
]

_GREY = "0.5"
_SMALL = (3.2, 2.3)  # inches


def draws_picture(errors: PosteriorErrors, datapoint: int, names: Sequence[str]) -> Figure:
    """Guide and chains at one datapoint, in the two dimensions that differ most."""
    figure, axes = new_axes(3.2, 3.2)
    dims = _worst_dimensions(errors, datapoint)
    for values, label, colour in ((errors.chains, "chains", "C0"), (errors.guide, "guide", "C1")):
        points = values[:, datapoint]
        if len(dims) == 2:
            axes.scatter(
                points[:, dims[0]], points[:, dims[1]], s=6, alpha=0.6, label=label, c=colour
            )
            axes.set_ylabel(names[dims[1]])
        else:
            axes.hist(points[:, 0], bins=30, alpha=0.5, label=label, color=colour)
        axes.set_xlabel(names[dims[0]])
    axes.legend(fontsize="small")
    return figure


def worst_names(errors: PosteriorErrors, datapoint: int, names: Sequence[str]) -> list[str]:
    """The dimensions of :func:`draws_picture` by name."""
    return [names[dim] for dim in _worst_dimensions(errors, datapoint)]


def _worst_dimensions(errors: PosteriorErrors, datapoint: int) -> list[int]:
    error = errors.mean_error[datapoint].abs() + errors.log_scale_ratio[datapoint].abs()
    dims: list[int] = error.argsort(descending=True)[:2].sort().values.tolist()
    return dims


def data_picture(x: Tensor) -> Figure | None:
    """A datapoint that has the shape of a picture, small."""
    if x.ndim not in (2, 3):
        return None
    values = x.movedim(0, -1) if x.ndim == 3 else x
    low, high = float(values.min()), float(values.max())
    figure, axes = new_axes(1.1, 1.1)
    axes.imshow((values.numpy() - low) / max(high - low, 1e-9), cmap="gray")
    axes.axis("off")
    return figure


def overview_pictures(errors: PosteriorErrors, weights: ImportanceEvidence) -> dict[str, Figure]:
    """Errors of all datapoints at a glance, by what they are of."""
    khat = weights.khat_pooled.numpy()
    shown: dict[str, tuple[NDArray[np.float64], float | None]] = {
        "error of means, posterior sds": (errors.mean_error.flatten().numpy(), None),
        "guide's sd over the chains'": (errors.log_scale_ratio.exp().flatten().numpy(), 1.0),
        "upper limit of Pareto k̂": (khat[np.isfinite(khat)], khat_limit(weights.num_samples)),
    }
    return {name: _histogram(values, name, mark) for name, (values, mark) in shown.items()}


def calibration_pictures(calibration: Calibration, num_worst: int) -> dict[str, Figure]:
    """ECDF differences of the worst latents and of log p(x, z) with their bands, by name."""
    worst = calibration.worst
    joint = [dim for dim in worst if calibration.names[dim] == "log_joint"]
    shown = [dim for dim in worst if dim not in joint][:num_worst] + joint
    curves, (low, high), grid = calibration.ecdf_difference, calibration.band, calibration.grid
    limit = 1.1 * max(float(curves[shown].abs().max()), float(high.max()), -float(low.min()))
    figures = {}
    for dim in shown:
        figure, axes = new_axes(*_SMALL)
        axes.fill_between(grid, low, high, color=_GREY, alpha=0.3, linewidth=0)
        axes.axhline(0.0, color=_GREY, linewidth=0.8)
        axes.step(
            grid, curves[dim], where="mid", color="C1" if bool(calibration.strays[dim]) else "C0"
        )
        axes.set_ylim(-limit, limit)
        axes.set_xlabel("rank of the truth, as a share")
        axes.set_ylabel("ECDF − uniform")
        figures[calibration.names[dim]] = figure
    return figures


def check_pictures(check: PredictiveCheck) -> dict[str, Figure]:
    """Posterior predictive p-values of all datapoints, by statistic."""
    return {
        name: _histogram(
            p.numpy(), "posterior predictive p", bins=[step / 20 for step in range(21)]
        )
        for name, p in check.p_values.items()
    }


def latents_picture(use: LatentUse) -> Figure | None:
    """Nats of each part from the largest on, active units in colour."""
    if use.kl is None:
        return None
    kl, names = use.kl.mean, use.kl.names
    active = dict(zip(use.units.names, use.units.is_active.tolist(), strict=True))
    order = kl.argsort(descending=True).tolist()
    figure, axes = new_axes(4.5, 2.4)
    places = range(len(order))
    colours = ["C0" if active.get(names[part], True) else _GREY for part in order]
    axes.bar(places, kl[order].cpu().numpy(), color=colours)
    if len(order) <= 24:
        axes.set_xticks(places, [names[part] for part in order], rotation=90)
    else:
        axes.set_xlabel("latents, from the largest on")
    axes.set_ylabel("KL, nats")
    return figure


def _histogram(
    values: NDArray[np.float64],
    label: str,
    mark: float | None = None,
    bins: int | list[float] = 40,
) -> Figure:
    figure, axes = new_axes(*_SMALL)
    if len(values):
        axes.hist(values, bins=bins)
    if mark is not None:
        axes.axvline(mark, color=_GREY, linestyle="--")
    axes.set_xlabel(label)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
