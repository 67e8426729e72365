"""The site is whole: it builds without a warning, and every public name and page is on it."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pages import DOCS, ROOT

LAYERS = {
    "data": "data", "models": "models", "models.priors": "priors",
    "models.likelihoods": "likelihoods", "models.posteriors": "posteriors",
    "inference": "inference", "evaluation": "evaluation", "sklearn": "sklearn",
}  # fmt: skip
FAMILIES = ("models.priors", "models.likelihoods", "models.posteriors")


@pytest.mark.parametrize("layer", LAYERS)
def test_every_public_name_is_in_the_reference(layer: str) -> None:
    public = set(importlib.import_module(f"aevb.{layer}").__all__)
    if layer == "models":  # whose other names are those of the families
        for family in FAMILIES:
            public -= set(importlib.import_module(f"aevb.{family}").__all__)
        public -= {"priors", "likelihoods", "posteriors"}
    page = (DOCS / "reference" / f"{LAYERS[layer]}.md").read_text()
    shown = re.findall(rf"^::: aevb\.{re.escape(layer)}\.(\w+)$", page, flags=re.MULTILINE)
    assert sorted(shown) == sorted(public)


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs the group docs: uv sync --group docs")
    pytest.importorskip("mkdocstrings")
    environment = {**os.environ, "AEVB_DOCS_EXECUTE": "false", "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "tutorials" / "aevb.ipynb").is_file()
    foreign = {
        address
        for page in tmp_path.rglob("*.html")
        for address in re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="(http[^"]+)', page.read_text()
        )
    }
    assert not foreign  # the pages are read without a network


def test_pages_of_tasks_are_listed_for_machines() -> None:
    listed = set(re.findall(r"\]\(([^)]+)\.html\)", (DOCS / "llms.txt").read_text()))
    listed = {name.replace("explorer/index", "explorer/README") for name in listed}
    missing = [name for name in listed if not (DOCS / f"{name}.md").is_file()]
    assert not missing
    tasks = {f"how-to/{path.stem}" for path in (DOCS / "how-to").glob("*.md")}
    assert tasks - {"how-to/index"} <= listed


def test_ten_tasks_for_newcomers() -> None:
    tasks = re.findall(r"^\d+\. .*\.$", (DOCS / "tasks.md").read_text(), flags=re.MULTILINE)
    assert len(tasks) == 10


def test_version_is_in_one_place() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    texts = [ROOT / "README.md", ROOT / "CITATION.cff", *DOCS.rglob("*.md"), *DOCS.glob("*.txt")]
    assert not [path for path in texts if f"aevb-{version}" in path.read_text()]
