"""The page as files: complete, bounded, and never over something else."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from aevb import models
from aevb.explore.explorer import Explorer
from aevb.explore.export import export
from aevb.explore.server import PAGE


def content(folder: Path) -> dict[str, Any]:
    text = (folder / "data.js").read_text()
    assert text.startswith("window.AEVB_EXPORT = ")
    return dict(json.loads(text.removeprefix("window.AEVB_EXPORT = ").rstrip(";\n")))


def test_an_export_holds_all_that_the_page_asks(explorer: Explorer, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    told: list[str] = []
    done = export(explorer, folder, posteriors=1, progress=lambda what, _: told.append(what))
    names = {path.name for path in folder.iterdir()}
    sheets = {"sprite.png", "reconstructions.png", "plane.png", "prior.png"}
    assert names == {*PAGE, *sheets, "data.js"}
    assert done["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    found = content(folder)
    assert len(found["datapoints"]) == 40
    gaps = found["weighed"]["figures"]["gap"]
    assert list(found["trials"]) == [str(gaps.index(max(gaps)))]
    (trial,) = found["trials"].values()
    assert trial["verdict"]["line"]
    page = (folder / "index.html").read_text()
    assert page.index('src="data.js"') < page.index('src="sources.js"')
    assert {"weights", "posterior 1 of 1", "datapoints"} == set(told)
    assert export(explorer, folder, posteriors=0)["posteriors"] == 0  # over an earlier one


def test_more_latents_have_a_sheet_of_sliders(tmp_path: Path) -> None:
    explorer = Explorer(models.VAE((4, 4), latent_dim=3), torch.rand(6, 4, 4).round())
    export(explorer, tmp_path, posteriors=0)
    assert content(tmp_path)["sliders"] == {"stops": 15}
    assert (tmp_path / "sliders.png").is_file()
    assert not (tmp_path / "plane.png").exists()


def test_an_autoencoder_without_a_density_is_exported_without_evidence(tmp_path: Path) -> None:
    model = models.VAE((4, 4), latent_dim=3, posterior=models.Delta())
    export(Explorer(model, torch.rand(6, 4, 4).round()), tmp_path, posteriors=3)
    found = content(tmp_path)
    assert found["weighed"] is None
    assert found["why"]
    assert found["trials"] == {}


def test_a_folder_of_something_else_is_left_alone(explorer: Explorer, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(FileExistsError, match="no earlier export"):
        export(explorer, tmp_path, posteriors=0)
    with pytest.raises(ValueError, match="posteriors"):
        export(explorer, tmp_path / "new", posteriors=-1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_page_is_packed_into_the_wheel() -> None:
    """Its patterns name every file, and the server every file but no other."""
    import tomllib
    from importlib.resources import files

    root = Path(__file__).parents[2]
    setup = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert setup["package-data"]["aevb.explore"] == ["page/*"]
    page = files("aevb.explore").joinpath("page")
    assert {path.name for path in page.iterdir()} == set(PAGE)
