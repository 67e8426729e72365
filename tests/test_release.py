"""A release is made of a tag, a version and a part of the changelog that agree."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture(name="checkout")
def fixture_checkout(tmp_path: Path) -> Path:
    """What a release reads, and an `uv` that only says what it was asked for."""
    for name in (".ci/release", "pyproject.toml", "CHANGELOG.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text('#!/bin/sh\necho "uv $*"\n')
    uv.chmod(0o755)
    return tmp_path


def release(checkout: Path, tag: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [".ci/release", tag], cwd=checkout, capture_output=True, text=True, check=False,
        env={"PATH": f"{checkout}/bin:/usr/local/bin:/usr/bin:/bin"},
    )  # fmt: skip


def test_notes_are_the_part_of_the_changelog(checkout: Path) -> None:
    log = checkout / "CHANGELOG.md"
    heading = f"## [{VERSION}] - 2030-01-01\n\n- New.\n\n## [0.0.1] - 2020-01-01\n\n- Old.\n"
    log.write_text(re.sub(r"## \[Unreleased\].*", heading, log.read_text(), flags=re.DOTALL))
    made = release(checkout, f"v{VERSION}")
    assert made.returncode == 0, made.stderr
    assert (checkout / "dist" / f"notes-{VERSION}.md").read_text().strip() == "- New."
    assert "uv build" in made.stdout
    assert f"dist/aevb-{VERSION}-py3-none-any.whl" in made.stdout


def test_another_tag_is_refused(checkout: Path) -> None:
    refused = release(checkout, "v999")
    assert refused.returncode == 2
    assert VERSION in refused.stderr


def test_a_version_without_changes_is_refused(checkout: Path) -> None:
    log = checkout / "CHANGELOG.md"
    log.write_text(log.read_text().replace(f"## [{VERSION}]", "## [other]"))
    refused = release(checkout, f"v{VERSION}")
    assert refused.returncode == 2
    assert "CHANGELOG.md" in refused.stderr
