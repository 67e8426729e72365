"""Pictures: figures that say what they show and leave nothing out in silence."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from aevb import evaluation

HISTORY = [
    {"epoch": n, "train_objective": -100.0 / n, "validation_elbo": -90.0 / n if n % 2 else None}
    for n in range(1, 41)
]
IMAGES = torch.arange(25 * 16.0).reshape(25, 4, 4) / 400
COUNTS = torch.poisson(
    torch.linspace(0.1, 30, 20).expand(200, 20), generator=torch.Generator().manual_seed(0)
)


def notes(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


PLOTS = {
    "curve": lambda **ax: evaluation.training_curve(HISTORY, **ax),
    "curves": lambda **ax: evaluation.training_curves({"a": HISTORY, "b": HISTORY}, **ax),
    "embedding": lambda **ax: evaluation.embedding_plot(torch.rand(9, 2), ["a", "b"], **ax),
    "histogram": lambda **ax: evaluation.embedding_plot(torch.rand(9, 1), ["a"], **ax),
    "images": lambda **ax: evaluation.image_grid(IMAGES, **ax),
    "manifold": lambda **ax: evaluation.manifold_plot(IMAGES, **ax),
    "imputation": lambda **ax: evaluation.imputation_plot(
        IMAGES, IMAGES > 0.5, {"chain": IMAGES}, **ax
    ),
    "imputed table": lambda **ax: evaluation.imputation_plot(
        COUNTS, COUNTS > 3, {"chain": COUNTS}, **ax
    ),
    "reconstruction": lambda **ax: evaluation.reconstruction_plot(COUNTS, COUNTS + 1, **ax),
}


@pytest.mark.parametrize("name", PLOTS)
def test_plots_return_figures_with_titles_and_draw_into_axes(name: str) -> None:
    figure = PLOTS[name]()
    assert isinstance(figure, Figure)
    if name != "images":  # whose title is the caller's
        assert figure.axes[0].get_title()
    outer = Figure()
    left, right = outer.subplots(1, 2)
    assert PLOTS[name](ax=right) is outer
    assert right.has_data()
    assert not left.has_data()


def test_plots_are_written_where_they_are_told(tmp_path: Path) -> None:
    evaluation.training_curve(HISTORY, tmp_path / "loss.png")
    with Image.open(tmp_path / "loss.png") as picture:
        assert picture.size == (900, 600)


def test_what_a_curve_leaves_out_is_said() -> None:
    figure = evaluation.training_curve(HISTORY)
    assert notes(figure) == ["↓ values of epochs 1–4 lie below, down to -100"]
    bottom = figure.axes[0].get_ylim()[0]
    assert -100 / 4 < bottom < -100 / 5
    flat = [{"epoch": n, "train_objective": -5.0 - n % 3} for n in range(40)]
    assert notes(evaluation.training_curve(flat)) == []
    dip = [*flat[:20], {"epoch": 20, "train_objective": -5.0, "validation_elbo": -99.0}]
    assert notes(evaluation.training_curve(dip)) == ["↓ epoch 20 lies below, down to -99"]


def test_validation_at_some_epochs_is_one_line() -> None:
    lines = evaluation.training_curve(HISTORY).axes[0].lines
    assert [len(line.get_xdata()) for line in lines] == [40, 20]
    assert np.isfinite(lines[1].get_ydata()).all()


def test_coordinates_of_the_plane_are_where_its_pictures_are() -> None:
    from scipy.special import ndtri

    side, wide = 40, 2
    axes = evaluation.manifold_plot(torch.zeros(side**2, wide, wide), names=["u", "v"]).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("u", "v")
    latents = ndtri((np.arange(side) + 0.5) / side)  # as latent_manifold lays them out
    centres = np.arange(side) * wide + (wide - 1) / 2
    marks = [float(label.get_text()) for label in axes.get_xticklabels()]
    inner = np.abs(marks) <= 1
    expected = np.interp(marks, latents, centres)[inner]
    assert np.allclose(axes.get_xticks()[inner], expected, atol=0.1)
    assert axes.get_yticks()[0] > axes.get_yticks()[-1]  # the second latent rises upwards
    with pytest.raises(ValueError, match="images: 24; expected the square"):
        evaluation.manifold_plot(IMAGES[:24])


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_imputation_is_as_wide_as_a_page_and_labelled(channels: tuple[int, ...]) -> None:
    x = torch.rand(16, *channels, 28, 28, generator=torch.Generator().manual_seed(0))
    seen = torch.ones_like(x, dtype=torch.bool)
    seen[..., 10:] = False
    figure = evaluation.imputation_plot(x, seen, {"chain": x, "HMC": x})
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["data", "observed", "chain", "HMC"] * 2
    width, height = figure.get_size_inches()
    assert width == 6
    assert height < 8
    sheet = np.asarray(figure.axes[0].images[0].get_array())
    row = sheet[30:58, 0:28]  # of what was observed
    assert np.allclose(row[:, 10:], [0.62, 0.75, 0.90])
    assert not np.allclose(row[:, :10], [0.62, 0.75, 0.90])


def of(counts: Tensor, draws: Tensor) -> list[str]:
    return [axes.get_title() for axes in evaluation.table_plot(counts, draws).axes]


def test_tables_are_shown_by_what_they_are() -> None:
    assert of(COUNTS, COUNTS) == ["mean and variance", "share of zeros", "largest features"]
    assert of(COUNTS - 0.5, COUNTS) == ["mean", "standard deviation", "features that vary most"]
    names = [f"gene {place}" for place in range(20)]
    figure = evaluation.table_plot(COUNTS, COUNTS, names=names)
    largest = [label.get_text() for label in figure.axes[2].get_yticklabels()]
    assert largest[-1] == names[int(COUNTS.mean(0).argmax())]
    assert len(largest) == 12
