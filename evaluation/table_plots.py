"""Pictures of data that are no pictures: tables of counts or of real numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from torch import Tensor

from aevb.evaluation.plots import axes_for, saved_figure

__all__ = ["reconstruction_plot", "table_plot"]

_SHOWN = 12  # largest features
_MOST_POINTS = 20_000  # of a scatter plot


def table_plot(
    data: Tensor,
    draws: Tensor,
    path: Path | None = None,
    names: Sequence[str] | None = None,
    *,
    title: str = "Data and draws from the model",
) -> Figure:
    """Whether draws from the model are like the data, feature by feature.

    Of counts: mean against variance, with the Poisson's line; the share of zeros; and the means of
    the largest features. Of other numbers: means; standard deviations; and the latter of the
    features that vary most.

    Args:
        data: ``(N, features)``, or of any shape per datapoint, which is flattened.
        draws: From the model, noise included, ``(M, features)``.
        path: Picture to write, or None.
        names: Of the features.
        title: Line above.

    Returns:
        The figure.

    Example:
        >>> counts = torch.poisson(torch.full((50, 4), 3.0))
        >>> [axes.get_title() for axes in table_plot(counts, counts).axes]
        ['mean and variance', 'share of zeros', 'largest features']
    """
    data, draws = (part.detach().cpu().double().flatten(1) for part in (data, draws))
    names = [str(place) for place in range(data.shape[1])] if names is None else names
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    if _are_counts(data):
        _mean_and_variance(first, data, draws)
        zeros, drawn = ((part == 0).double().mean(0) for part in (data, draws))
        _against_each_other(second, zeros, drawn, "share of zeros")
        _largest(third, data.mean(0), draws.mean(0), names, "largest features", "mean")
    else:
        _against_each_other(first, data.mean(0), draws.mean(0), "mean")
        spreads = (data.std(0), draws.std(0))
        _against_each_other(second, *spreads, "standard deviation")
        _largest(third, *spreads, names, "features that vary most", "standard deviation")
    figure.suptitle(title, fontsize=10)
    return saved_figure(figure, path)


def reconstruction_plot(
    x: Tensor,
    means: Tensor,
    path: Path | None = None,
    *,
    title: str = "Data and E[x|z]",
    ax: Axes | None = None,
) -> Figure:
    """Every value of the data against its reconstruction.

    Args:
        x: Data, ``(B, *shape)``.
        means: Of :func:`~aevb.evaluation.reconstructions`, ``(B, *shape)``.
        path: Picture to write, or None.
        title: Line above.
        ax: Axes to draw into.

    Returns:
        The figure.

    Example:
        >>> x = torch.arange(6.0).reshape(2, 3)
        >>> reconstruction_plot(x, x).axes[0].get_xlabel()
        'data + 1'
    """
    figure, axes = axes_for(ax, 4.5, 4.5)
    pair = torch.stack([x.detach().cpu().flatten(), means.detach().cpu().flatten()])
    counts = _are_counts(x)
    pair = pair[:, :: max(1, pair.shape[1] // _MOST_POINTS)] + counts
    axes.scatter(pair[0], pair[1], s=4, alpha=0.3, linewidths=0)
    if counts:
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.axline((1, 1), (2, 2), color="0.5", linestyle="--", linewidth=1)
    axes.set_xlabel("data" + " + 1" * counts)
    axes.set_ylabel("E[x|z]" + " + 1" * counts)
    axes.set_title(title, fontsize=10)
    return saved_figure(figure, path)


def _are_counts(x: Tensor) -> bool:
    return bool((x >= 0).all() and (x == x.round()).all() and (x > 1).any())


def _mean_and_variance(axes: Axes, data: Tensor, draws: Tensor) -> None:
    for part, label, colour in ((data, "data", "C0"), (draws, "model", "C1")):
        mean, variance = part.mean(0), part.var(0)
        kept = (mean > 0) & (variance > 0)
        axes.scatter(
            mean[kept], variance[kept], s=8, alpha=0.5, linewidths=0, label=label, c=colour
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.axline((1, 1), (2, 2), color="0.5", linestyle="--", linewidth=1, label="Poisson")
    axes.set_xlabel("mean")
    axes.set_ylabel("variance")
    axes.set_title("mean and variance", fontsize=10)
    axes.legend(fontsize=8)


def _against_each_other(axes: Axes, data: Tensor, draws: Tensor, what: str) -> None:
    axes.scatter(data, draws, s=8, alpha=0.5, linewidths=0)
    low = float(min(data.min(), draws.min()))
    axes.axline((low, low), slope=1, color="0.5", linestyle="--", linewidth=1)
    axes.set_xlabel("data")
    axes.set_ylabel("model")
    axes.set_title(what, fontsize=10)


def _largest(
    axes: Axes, data: Tensor, draws: Tensor, names: Sequence[str], title: str, what: str
) -> None:
    order = data.argsort(descending=True)[:_SHOWN].tolist()[::-1]
    places = np.arange(len(order))
    axes.barh(places + 0.2, data[order].numpy(), height=0.4, label="data")
    axes.barh(places - 0.2, draws[order].numpy(), height=0.4, label="model")
    axes.set_yticks(places, [f"{names[place]:.16}" for place in order], fontsize=7)
    axes.set_xlabel(what)
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8)
