"""One style for all figures: legible at the width of a paper's column."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

__all__ = ["COLOURS", "COLUMN", "PAGE", "image_grid", "panels", "style"]

COLUMN, PAGE = 3.4, 7.0  # inches: one column, and both
# Of Okabe and Ito, told apart by every kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "lines.linewidth": 1.2,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def style() -> AbstractContextManager[None]:
    """Inside it all figures have one style; titles and legends read it as they are added."""
    context: AbstractContextManager[None] = rc_context(_STYLE)
    return context


def panels(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (COLUMN, 2.6), **options: Any
) -> tuple[Figure, list[Axes]]:
    """Empty axes in the style of all figures.

    Args:
        rows: Of panels.
        columns: Of panels.
        size: Of the figure, in inches.
        options: Of matplotlib's ``subplots``, as ``sharey``.

    Returns:
        The figure, and its axes row by row.
    """
    with style():
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def image_grid(
    images: Tensor, columns: int, titles: Sequence[str] = (), colours: str = "gray_r"
) -> Figure:
    """Images side by side without axes, grey levels from 0 to 1.

    Args:
        images: ``(N, H, W)``; or ``(G, N, H, W)`` for groups side by side.
        columns: In each group.
        titles: Of the groups.
        colours: Map of the grey levels: ink on paper for digits, ``"gray"`` for photographs.
    """
    groups = images if images.ndim == 4 else images.unsqueeze(0)
    rows = -(-groups.shape[1] // columns)
    height, width = groups.shape[-2:]
    each = min(PAGE / len(groups), COLUMN)
    shape = (each * len(groups), each * rows * height / (columns * width) + 0.2 * bool(titles))
    figure, axes = panels(1, len(groups), shape)
    for number, (axis, group) in enumerate(zip(axes, groups, strict=True)):
        axis.imshow(_tiled(group, rows, columns), cmap=colours, vmin=0, vmax=1)
        axis.set_axis_off()
        if titles:
            axis.set_title(titles[number])
    return figure


def _tiled(images: Tensor, rows: int, columns: int) -> Any:
    missing = rows * columns - len(images)
    height, width = images.shape[-2:]
    filled = torch.cat([images, images.new_zeros(missing, height, width)])
    square = filled.reshape(rows, columns, height, width).permute(0, 2, 1, 3)
    return square.reshape(rows * height, columns * width).clamp(0, 1).cpu().numpy()
