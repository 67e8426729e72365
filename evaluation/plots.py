"""Pictures of a run, drawn without a display and without matplotlib's global state."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

__all__ = ["embedding_plot", "evidence_curve", "image_grid", "new_axes", "training_curve"]

_CURVES = {
    "train_objective": "training",
    "validation_elbo": "validation ELBO",
    "validation_log_joint": "validation log p(x, z) at a point: no bound",
}


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def training_curve(
    history: list[dict[str, Any]], path: Path, unit: str = "nats per datapoint"
) -> None:
    """Training objective and validation ELBO over epochs.

    Args:
        history: Rows of :class:`aevb.inference.Run`.
        path: Picture to write.
        unit: Of the objective, as the run says it.
    """
    figure, axes = new_axes(6, 4)
    epochs = [row["epoch"] for row in history]
    for key, label in _CURVES.items():
        values = [math.nan if row.get(key) is None else row[key] for row in history]
        if not all(map(math.isnan, values)):
            axes.plot(epochs, values, label=label)
    # the first epochs climb so far that they would flatten all that follows
    later = [row["train_objective"] for row in history[len(history) // 10 :]]
    if len(later) > 2:
        margin = 0.05 * (max(later) - min(later)) or 1.0
        axes.set_ylim(bottom=min(later) - margin)
    axes.set_xlabel("epoch")
    axes.set_ylabel(unit)
    axes.legend()
    figure.savefig(path, dpi=120)


def embedding_plot(points: Tensor, names: list[str], path: Path) -> None:
    """Posterior means in one or two dimensions.

    Args:
        points: ``(N, 1)`` or ``(N, 2)``.
        names: Of the dimensions.
        path: Picture to write.
    """
    figure, axes = new_axes(5, 5)
    if points.shape[1] == 1:
        axes.hist(points[:, 0].numpy(), bins=50)
    else:
        axes.scatter(points[:, 0], points[:, 1], s=3, alpha=0.5)
        axes.set_ylabel(names[1])
    axes.set_xlabel(names[0])
    figure.savefig(path, dpi=120)


def evidence_curve(curve: dict[str, Any], path: Path) -> None:
    """The importance bound against the number of samples, with its extrapolation.

    Args:
        curve: From :func:`aevb.evaluation.importance_curve`.
        path: Picture to write.
    """
    figure, axes = new_axes(6, 4)
    counts = curve["num_samples"]
    bounds, errors = (
        [math.nan if value is None else value for value in curve[key]]
        for key in ("bound", "monte_carlo_error")
    )
    axes.errorbar(counts, bounds, yerr=errors, marker="o", markersize=3, label="bound")
    if curve["limit"] is not None:
        label = f"extrapolated to {curve['limit']:.2f} ± {curve['limit_error']:.2f}, no bound"
        axes.axhline(curve["limit"], linestyle="--", color="grey", label=label)
    else:
        axes.set_title("no limit can be read off: the curve is still rising", fontsize=10)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("importance samples K")
    axes.set_ylabel("nats per datapoint")
    axes.legend()
    figure.savefig(path, dpi=120)


def image_grid(images: Tensor, path: Path, columns: int, title: str = "") -> None:
    """Datapoints side by side, on one grey or colour scale.

    Args:
        images: ``(N, height, width)``, ``(N, 3, height, width)`` or ``(N, features)``; features
            are drawn as a strip.
        path: Picture to write.
        columns: Datapoints in a row.
        title: Line above.

    Raises:
        ValueError: If there is nothing to draw or the shape is no picture's.
    """
    pixels = _as_pictures(images.detach().cpu().float().numpy())
    count, height, width = pixels.shape[:3]
    rows = math.ceil(count / columns)
    gap = 1 if height > 1 else 0
    low, high = float(pixels.min()), float(pixels.max())
    low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    sheet = np.full((rows * (height + gap), columns * (width + gap), *pixels.shape[3:]), high)
    for number, picture in enumerate(pixels):
        top, left = divmod(number, columns)
        top, left = top * (height + gap), left * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    if sheet.ndim == 3 and high > low:
        sheet = (sheet - low) / (high - low)
    tall = sheet.shape[0] / sheet.shape[1]
    figure, axes = new_axes(6, max(1.0, 6 * tall) + 0.3)
    axes.imshow(sheet, cmap="gray", vmin=low, vmax=high, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    if title:
        axes.set_title(title, fontsize=10)
    figure.savefig(path, dpi=150)


def _as_pictures(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """``(N, H, W)`` or ``(N, H, W, 3)``."""
    if not len(images):
        raise ValueError("images: expected at least one datapoint; got none")
    if images.ndim == 2:
        return images[:, None, :]
    if images.ndim == 3:
        return images
    if images.ndim == 4 and images.shape[1] in (1, 3):
        moved = np.moveaxis(images, 1, -1)
        return moved[..., 0] if moved.shape[-1] == 1 else moved
    raise ValueError(
        f"images: expected (N, H, W), (N, 3, H, W) or (N, features); got shape {images.shape}"
    )
