"""Folders of images."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from aevb.data import load

from small_datasets import GREY


def _save_images(folder: Path, images: NDArray[Any], mode: str, suffix: str = ".png") -> None:
    for index, image in enumerate(images):
        path = folder / f"{index % 3}" / f"{index:03d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).convert(mode).save(path)


def test_folder_of_grey_images_is_read_in_sorted_order(tmp_path: Path) -> None:
    _save_images(tmp_path, GREY, "L")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_text("no image")
    in_order = np.concatenate([GREY[0::3], GREY[1::3], GREY[2::3]])
    dataset = load(tmp_path)
    assert dataset.shape == (6, 5)
    assert dataset.sha256 == load(in_order).sha256
    assert (dataset.name, dataset.source) == (tmp_path.name, str(tmp_path))


@pytest.mark.parametrize("suffix", [".png", ".BMP"])
def test_folder_of_colour_images_has_channels_first(suffix: str, tmp_path: Path) -> None:
    colours = np.stack([GREY, GREY // 2, 255 - GREY], axis=-1)
    for index, image in enumerate(colours):
        Image.fromarray(image).save(tmp_path / f"{index:03d}{suffix}")
    dataset = load(tmp_path)
    assert dataset.shape == (3, 6, 5)
    assert dataset.sha256 == load(colours.transpose(0, 3, 1, 2)).sha256


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".gif", ".webp", ".tif"])
def test_folder_may_hold_any_usual_image_format(suffix: str, tmp_path: Path) -> None:
    colours = np.full((12, 8, 7, 3), (250, 120, 3), dtype=np.uint8)
    _save_images(tmp_path, colours, "RGB", suffix)
    dataset = load(tmp_path)
    assert dataset.shape == (3, 8, 7)
    error = dataset.train.values.float() - torch.tensor([250.0, 120.0, 3.0])[:, None, None]
    assert error.abs().max() < 8  # lossy formats round a flat colour by a few of 255 levels


def test_folder_of_one_bit_images_is_binary(tmp_path: Path) -> None:
    bits = GREY > 100
    for index, image in enumerate(bits):
        Image.fromarray(image).save(tmp_path / f"{index:03d}.png")
    assert load(tmp_path).sha256 == load(bits).sha256


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("L", (6, 6)), r"odd.png: image of shape \(6, 6\) .* expected .*\(6, 5\)"),
        (Image.new("RGB", (5, 6)), r"odd.png: image of shape \(3, 6, 5\)"),
        (Image.new("1", (5, 6)), "odd.png: image of .* dtype bool; expected .* uint8"),
        (Image.new("RGBA", (5, 6)), "odd.png: mode RGBA; expected one opaque"),
        (Image.new("I;16", (5, 6)), "odd.png: mode I;16"),
    ],
)
def test_folder_of_mixed_images_is_an_error(
    image: Image.Image, message: str, tmp_path: Path
) -> None:
    _save_images(tmp_path, GREY, "L")
    image.save(tmp_path / "odd.png")
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_image_with_several_frames_or_transparency_is_an_error(tmp_path: Path) -> None:
    frames = [Image.fromarray(image) for image in GREY]
    (tmp_path / "film").mkdir()
    frames[0].save(tmp_path / "film" / "x.gif", save_all=True, append_images=frames[1:3])
    with pytest.raises(ValueError, match="x.gif: several frames; expected one"):
        load(tmp_path / "film")
    (tmp_path / "glass").mkdir()
    frames[0].save(tmp_path / "glass" / "x.png", transparency=0)
    with pytest.raises(ValueError, match="x.png: transparency; expected one"):
        load(tmp_path / "glass")


@pytest.mark.parametrize("keep", [0, 20, 60])
def test_truncated_image_is_an_error_that_names_it(keep: int, tmp_path: Path) -> None:
    _save_images(tmp_path, GREY, "L")
    path = tmp_path / "1" / "004.png"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: cannot be decoded"):
        load(tmp_path)


def test_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no image; expected files with .png, .jpg"):
        load(tmp_path)


def test_folder_named_like_a_dataset_is_reached_as_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _save_images(tmp_path / "digits", GREY, "L")
    assert load("digits").shape == (8, 8)
    assert load("./digits").shape == load(Path("digits")).shape == (6, 5)
