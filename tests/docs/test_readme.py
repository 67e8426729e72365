"""The README fits on a screen or two, its code runs, and it says what is there."""

import re
from pathlib import Path

import pytest

from aevb.cli import main

from pages import DOCS, ROOT, blocks

README = (ROOT / "README.md").read_text()


def test_is_short() -> None:
    assert len(README.splitlines()) <= 80


def test_python_runs_and_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = blocks("python", README)
    assert len(first.strip().splitlines()) <= 12
    names: dict[str, object] = {}
    exec(compile(first, "README.md", "exec"), names)
    assert -30 < float(capsys.readouterr().out.split()[0]) < -20
    exec(compile(second, "README.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "trusted"
    assert printed[1] == "torch.Size([4, 200, 2])"


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", README)
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert links
    assert not missing


def test_recipe_of_a_prior_works_as_printed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (DOCS / "contributing.md").read_text()
    (code,) = blocks("python", text)
    assert len([line for line in code.splitlines() if line.strip()]) < 20
    (tmp_path / "cauchy.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r"`aevb (train .*?)`", text.replace("\n", " "))
    assert "cauchy.Cauchy" in command
    brief = "--epochs 1 --num_samples 10 --limit 10 --out run --json"
    assert main([*command.split(), *brief.split()]) == 0
    assert "Cauchy(scale=0.5)" in capsys.readouterr().out
