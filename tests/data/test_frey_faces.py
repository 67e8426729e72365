"""The Frey faces."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from aevb.data import load
from aevb.data.readers import frey

from small_datasets import everything, sorted_rows


def _save_faces(path: Path, frames: NDArray[Any], name: str = "ff") -> None:
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {name: frames.T}, do_compression=True)


@pytest.mark.parametrize("folder", ["", "FreyFace"])
def test_frey_faces_are_found_in_the_root_or_its_folder(
    folder: str, faces: NDArray[np.uint8], tmp_path: Path
) -> None:
    path = tmp_path / folder / "frey_rawface.mat"
    _save_faces(path, faces)
    dataset = load("frey-face", root=tmp_path, download=False)
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [1565, 200, 200]
    assert (dataset.shape, dataset.source, dataset.divisor) == ((28, 20), str(path), 255)
    assert sorted_rows(everything(dataset)) == sorted_rows(faces)


def test_frey_faces_are_downloaded_once(
    faces: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, root = tmp_path / "server.mat", tmp_path / "root"
    _save_faces(server, faces)
    monkeypatch.setattr(frey, "URL", server.as_uri())
    dataset = load("frey-face", root=root)
    server.unlink()
    assert load("frey-face", root=root).sha256 == dataset.sha256
    assert os.listdir(root / "FreyFace") == ["frey_rawface.mat"]


def test_failed_or_wrong_download_of_the_frey_faces_leaves_nothing_behind(
    faces: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, root = tmp_path / "server.mat", tmp_path / "root"
    monkeypatch.setattr(frey, "URL", server.as_uri())
    with pytest.raises(FileNotFoundError, match="frey-face: not in .*the download failed"):
        load("frey-face", root=root)
    _save_faces(server, 255 - faces)
    with pytest.raises(ValueError, match="file://.*server.mat: pixels with SHA-256"):
        load("frey-face", root=root)
    server.write_bytes(server.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="file://.*server.mat: cannot be decoded"):
        load("frey-face", root=root)
    assert os.listdir(root / "FreyFace") == []


def test_frey_faces_with_other_pixels_are_an_error(
    faces: NDArray[np.uint8], tmp_path: Path
) -> None:
    path = tmp_path / "frey_rawface.mat"
    faces[1000, 300] ^= 1
    _save_faces(path, faces)
    message = f"{re.escape(str(path))}: pixels with SHA-256 .*; expected {frey.SHA256}"
    with pytest.raises(ValueError, match=message):
        load("frey-face", root=tmp_path)
    _save_faces(path, faces[:100])
    with pytest.raises(ValueError, match=r"ff of shape \(560, 100\) and dtype uint8; expected"):
        load("frey-face", root=tmp_path)
    _save_faces(path, faces, name="gg")
    with pytest.raises(ValueError, match="cannot be decoded .*'ff'.*expected .* variable ff"):
        load("frey-face", root=tmp_path)
