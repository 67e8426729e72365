"""Pictures of a run, drawn without a display and without matplotlib's global state.

Each function returns its figure, writes it where a ``path`` is given, and draws into ``ax`` where
one is given.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

__all__ = [
    "axes_for",
    "embedding_plot",
    "evidence_curve",
    "new_axes",
    "saved_figure",
    "training_curve",
    "training_curves",
]

History = Sequence[Mapping[str, Any]]
_CURVES = {
    "train_objective": "training",
    "validation_elbo": "validation ELBO",
    "validation_log_joint": "validation log p(x, z) at a point: no bound",
}


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def axes_for(ax: Axes | None, width: float, height: float) -> tuple[Figure, Axes]:
    """Those that were given with their figure, or new ones of a size in inches."""
    if ax is None:
        return new_axes(width, height)
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError("ax: belongs to no figure; expected axes of a figure")
    return figure, ax


def saved_figure(figure: Figure, path: Path | None, dpi: int = 150) -> Figure:
    """The figure, written if it has a place."""
    if path is not None:
        figure.savefig(path, dpi=dpi)
    return figure


def training_curve(
    history: History,
    path: Path | None = None,
    unit: str = "nats per datapoint",
    *,
    title: str = "Training",
    ax: Axes | None = None,
) -> Figure:
    """Training objective and validation ELBO over epochs.

    The first tenth of the epochs, which would flatten all that follows, may lie below the picture;
    a note in it says so.

    Args:
        history: Rows of :class:`aevb.inference.Run`.
        path: Picture to write, or None.
        unit: Of the objective, as the run says it.
        title: Line above.
        ax: Axes to draw into, or None for a new figure.

    Returns:
        The figure.

    Example:
        >>> history = [{"epoch": n, "train_objective": -1 / n} for n in range(1, 30)]
        >>> training_curve(history, title="VAE on digits").axes[0].get_title()
        'VAE on digits'
    """
    figure, axes = axes_for(ax, 6, 4)
    for key, label in _CURVES.items():
        epochs, values = _curve(history, key)
        if values:
            axes.plot(epochs, values, label=label, marker="o" if len(values) == 1 else None)
    _leave_out_beginning(axes, [history])
    _name_axes(axes, title, unit)
    return saved_figure(figure, path)


def training_curves(
    histories: Mapping[str, History],
    path: Path | None = None,
    unit: str = "nats per datapoint",
    *,
    title: str = "Training",
    ax: Axes | None = None,
) -> Figure:
    """The curves of several runs over each other: validation drawn through, training dotted.

    Args:
        histories: Rows of each run, by its name.
        path: As for :func:`training_curve`, as are the others.
        unit: Of the objectives.
        title: Line above.
        ax: Axes to draw into.

    Returns:
        The figure.

    Example:
        >>> rows = [{"epoch": n, "train_objective": -n, "validation_elbo": -n} for n in (1, 2)]
        >>> len(training_curves({"a": rows, "b": rows}).axes[0].lines)
        4
    """
    figure, axes = axes_for(ax, 6, 4)
    for number, (name, history) in enumerate(histories.items()):
        shown = False
        for key, style in (("validation_elbo", "-"), ("train_objective", ":")):
            epochs, values = _curve(history, key)
            if values:
                label = None if shown else name
                axes.plot(epochs, values, style, color=f"C{number}", label=label)
                shown = True
    _leave_out_beginning(axes, list(histories.values()))
    _name_axes(axes, f"{title} (dotted: training objective)", unit)
    return saved_figure(figure, path)


def embedding_plot(
    points: Tensor,
    names: Sequence[str],
    path: Path | None = None,
    *,
    title: str = "Posterior means",
    ax: Axes | None = None,
) -> Figure:
    """Posterior means in one or two dimensions.

    Args:
        points: ``(N, 1)`` or ``(N, 2)``.
        names: Of the dimensions.
        path: Picture to write, or None.
        title: Line above.
        ax: Axes to draw into.

    Returns:
        The figure.

    Example:
        >>> import torch
        >>> embedding_plot(torch.zeros(3, 2), ["z[0]", "z[1]"]).axes[0].get_xlabel()
        'z[0]'
    """
    figure, axes = axes_for(ax, 5, 5)
    if points.shape[1] == 1:
        axes.hist(points[:, 0].numpy(), bins=50)
        axes.set_ylabel("datapoints")
    else:
        axes.scatter(points[:, 0], points[:, 1], s=3, alpha=0.5)
        axes.set_ylabel(names[1])
    axes.set_xlabel(names[0])
    axes.set_title(f"{title} of {len(points):,} datapoints", fontsize=10)
    return saved_figure(figure, path)


def evidence_curve(
    curve: dict[str, Any], path: Path | None = None, *, ax: Axes | None = None
) -> Figure:
    """The importance bound against the number of samples, with its extrapolation.

    Args:
        curve: From :func:`aevb.evaluation.importance_curve`.
        path: Picture to write, or None.
        ax: Axes to draw into.

    Returns:
        The figure.

    Example:
        >>> import torch
        >>> from aevb import models
        >>> from aevb.evaluation import importance_curve
        >>> fa, x = models.FactorAnalysis((5,), 2), torch.zeros(3, 5)
        >>> curve = importance_curve(fa.model, fa.guide, x, num_samples=64)
        >>> evidence_curve(curve).axes[0].get_xlabel()
        'importance samples K'
    """
    figure, axes = axes_for(ax, 6, 4)
    counts = curve["num_samples"]
    bounds, errors = (
        [math.nan if value is None else value for value in curve[key]]
        for key in ("bound", "monte_carlo_error")
    )
    axes.errorbar(counts, bounds, yerr=errors, marker="o", markersize=3, label="bound")
    if curve["limit"] is not None:
        label = f"extrapolated to {curve['limit']:.2f} ± {curve['limit_error']:.2f}, no bound"
        axes.axhline(curve["limit"], linestyle="--", color="grey", label=label)
        axes.set_title("Importance bound on log p(x)", fontsize=10)
    else:
        axes.set_title("no limit can be read off: the curve is still rising", fontsize=10)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("importance samples K")
    axes.set_ylabel("nats per datapoint")
    axes.legend()
    return saved_figure(figure, path)


def _curve(history: History, key: str) -> tuple[list[Any], list[float]]:
    """Epochs that have a value, and their values."""
    rows = [row for row in history if row.get(key) is not None and not math.isnan(row[key])]
    return [row["epoch"] for row in rows], [row[key] for row in rows]


def _leave_out_beginning(axes: Axes, histories: Sequence[History]) -> None:
    """Cut off the climb of the first epochs, and say so in the picture."""
    curves = [_curve(history, "train_objective") for history in histories]
    later = [value for _, values in curves for value in values[len(values) // 10 :]]
    if len(later) < 3:
        return
    bottom = min(later) - (0.05 * (max(later) - min(later)) or 1.0)
    # any curve may dip below: nothing but the beginning is left out without a note
    below = [
        (epoch, value)
        for history in histories
        for key in _CURVES
        for epoch, value in zip(*_curve(history, key), strict=True)
        if value < bottom
    ]
    axes.set_ylim(bottom=bottom)
    if below:
        first, last = min(epoch for epoch, _ in below), max(epoch for epoch, _ in below)
        epochs = f"epoch {first} lies" if first == last else f"values of epochs {first}–{last} lie"
        lowest = min(value for _, value in below)
        note = f"↓ {epochs} below, down to {lowest:,.4g}"
        axes.text(0.98, 0.02, note, transform=axes.transAxes, fontsize=8, color="0.35", ha="right")


def _name_axes(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("epoch")
    axes.set_ylabel(unit)
    if axes.lines:
        axes.legend(loc="center right", fontsize=8)
