"""Datapoints that are pictures: side by side, over a latent plane, and what was hidden."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor

from aevb.evaluation.plots import axes_for, saved_figure

__all__ = ["image_grid", "imputation_plot", "manifold_plot"]

_HIDDEN = (0.62, 0.75, 0.90)  # no grey level


def image_grid(
    images: Tensor,
    path: Path | None = None,
    columns: int = 8,
    title: str = "",
    *,
    ax: Axes | None = None,
) -> Figure:
    """Datapoints side by side, on one grey or colour scale.

    Args:
        images: ``(N, height, width)``, ``(N, 3, height, width)`` or ``(N, features)``; features
            are drawn as a strip.
        path: Picture to write, or None.
        columns: Datapoints in a row.
        title: Line above.
        ax: Axes to draw into.

    Returns:
        The figure.

    Raises:
        ValueError: If there is nothing to draw or the shape is no picture's.

    Example:
        >>> import torch
        >>> image_grid(torch.zeros(6, 8, 8), columns=3, title="black").axes[0].get_title()
        'black'
    """
    pixels, _ = _greys(images)
    sheet = _tiled(pixels, min(columns, len(pixels)), gap=1 if pixels.shape[1] > 1 else 0)
    figure, axes = axes_for(ax, 6, max(1.0, 6 * sheet.shape[0] / sheet.shape[1]) + 0.3)
    _show(axes, sheet, None if ax else "auto")
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)
    return saved_figure(figure, path)


def manifold_plot(
    images: Tensor,
    path: Path | None = None,
    names: Sequence[str] = ("z[0]", "z[1]"),
    *,
    title: str = "E[x|z] over the latent plane",
    ax: Axes | None = None,
) -> Figure:
    """The plane of a two-dimensional latent space, with its coordinates.

    Args:
        images: Of :func:`~aevb.evaluation.latent_manifold`, ``(side * side, *shape)``: even in
            probability, so that coordinates are not evenly spaced.
        path: Picture to write, or None.
        names: Of the latents: across, and up.
        title: Line above.
        ax: Axes to draw into.

    Returns:
        The figure.

    Raises:
        ValueError: If these are no square of pictures.

    Example:
        >>> import torch
        >>> manifold_plot(torch.zeros(25, 8, 8)).axes[0].get_ylabel()
        'z[1]'
    """
    side = math.isqrt(len(images))
    if side * side != len(images):
        raise ValueError(f"images: {len(images)}; expected the square of a whole number")
    pixels, _ = _greys(images)
    sheet = _tiled(pixels, side, gap=0)
    figure, axes = axes_for(ax, 6, 6 * sheet.shape[0] / sheet.shape[1] + 0.3)
    _show(axes, sheet, None)
    marks = np.array([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
    shares, labels = ndtr(marks), [f"{mark:g}" for mark in marks]
    axes.set_xticks(shares * sheet.shape[1] - 0.5, labels)
    axes.set_yticks((1 - shares) * sheet.shape[0] - 0.5, labels)
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    axes.set_title(title, fontsize=10)
    return saved_figure(figure, path)


def imputation_plot(
    x: Tensor,
    observed: Tensor,
    filled: Mapping[str, Tensor],
    path: Path | None = None,
    *,
    title: str = "Missing values filled in",
    columns: int = 8,
    ax: Axes | None = None,
) -> Figure:
    """What was hidden and what each method put there: a column for each datapoint.

    Of pictures the rows are the data, what was seen of them (the rest is blue) and the means of
    each method; a second band follows below. Of other data the hidden values are drawn against
    what was put there.

    Args:
        x: Data, ``(N, *shape)``.
        observed: True where a value was seen, ``(N, *shape)``.
        filled: Means of each method, ``(N, *shape)``, by its name.
        path: Picture to write, or None.
        title: Line above.
        columns: Datapoints side by side.
        ax: Axes to draw into.

    Returns:
        The figure.

    Example:
        >>> import torch
        >>> x, seen = torch.rand(3, 4, 4), torch.rand(3, 4, 4) > 0.5
        >>> figure = imputation_plot(x, seen, {"chain": x}, title="half is hidden")
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['data', 'observed', 'chain']
    """
    if x.ndim < 3:
        return _imputed_values(x, observed, filled, path, title, ax)
    images, scale = _greys(x)
    seen = np.broadcast_to(_pictures(observed.float()), images.shape)[..., :1] > 0.5
    blue = np.where(seen, images, np.array(_HIDDEN))
    rows = {"data": images, "observed": blue}
    rows |= {name: _greys(mean, scale)[0] for name, mean in filled.items()}
    height, width = images.shape[1:3]
    gap = max(1, height // 14)
    bands = []
    for start in range(0, len(images), columns):
        parts = [_tiled(row[start : start + columns], columns, gap) for row in rows.values()]
        parts = [np.broadcast_to(part, (*part.shape[:2], 3)) for part in parts]
        bands.append(np.concatenate(parts))
    spacer = np.ones((2 * gap, *bands[0].shape[1:]))
    sheet = np.concatenate([part for band in bands for part in (band, spacer)][:-1])
    figure, axes = axes_for(ax, 6, 6 * sheet.shape[0] / sheet.shape[1] + 0.3)
    _show(axes, sheet, None)
    pitch, step = height + gap, len(bands[0]) + len(spacer)
    places = [
        b * step + r * pitch + height / 2 for b in range(len(bands)) for r in range(len(rows))
    ]
    axes.set_yticks(places, list(rows) * len(bands))
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=10)
    return saved_figure(figure, path)


def _imputed_values(
    x: Tensor,
    observed: Tensor,
    filled: Mapping[str, Tensor],
    path: Path | None,
    title: str,
    ax: Axes | None,
) -> Figure:
    figure, axes = axes_for(ax, 5, 5)
    hidden = ~observed.cpu()
    truth = x.cpu()[hidden]
    for name, mean in filled.items():
        axes.scatter(truth, mean.cpu()[hidden], s=6, alpha=0.4, label=name)
    axes.axline((float(truth.min()), float(truth.min())), slope=1, color="grey", linestyle="--")
    axes.set_xlabel("hidden value")
    axes.set_ylabel("filled in")
    axes.legend()
    axes.set_title(title, fontsize=10)
    return saved_figure(figure, path)


def _greys(
    images: Tensor, scale: tuple[float, float] | None = None
) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """``(N, H, W, 1 or 3)`` from 0 to 1 on one scale, and that scale."""
    pixels = _pictures(images)
    low, high = scale or (float(pixels.min()), float(pixels.max()))
    if scale is None and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    return np.clip((pixels - low) / ((high - low) or 1.0), 0, 1), (low, high)


def _tiled(pixels: NDArray[Any], columns: int, gap: int) -> NDArray[Any]:
    """Pictures ``(N, H, W, C)`` on a white sheet."""
    count, height, width, channels = pixels.shape
    rows = math.ceil(count / columns)
    sheet = np.ones((rows * (height + gap), columns * (width + gap), channels))
    for number, picture in enumerate(pixels):
        top, left = divmod(number, columns)
        top, left = top * (height + gap), left * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def _show(axes: Axes, sheet: NDArray[Any], aspect: Any) -> None:
    shown = sheet[..., 0] if sheet.shape[-1] == 1 else sheet
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect=aspect)


def _pictures(images: Tensor) -> NDArray[np.float64]:
    """``(N, H, W, 1)`` or ``(N, H, W, 3)``."""
    values = images.detach().cpu().double().numpy()
    if not len(values):
        raise ValueError("images: expected at least one datapoint; got none")
    if values.ndim == 2:
        return values[:, None, :, None]
    if values.ndim == 3:
        return values[..., None]
    if values.ndim == 4 and values.shape[1] in (1, 3):
        return np.moveaxis(values, 1, -1)
    raise ValueError(
        f"images: expected (N, H, W), (N, 3, H, W) or (N, features); got shape {values.shape}"
    )
