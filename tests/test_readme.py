"""The README's code runs, and its commands exist."""

import re
import shlex
from pathlib import Path

import pytest

from aevb.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands() -> list[str]:
    joined = "\n".join(blocks("bash")).replace("\\\n", " ")
    return [line[line.index("aevb ") :] for line in joined.splitlines() if "aevb " in line]


def test_python_runs_and_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = blocks("python")
    assert len(first.strip().splitlines()) <= 20
    names: dict[str, object] = {}
    exec(compile(first, "README.md", "exec"), names)
    assert -30 < float(capsys.readouterr().out) < -20
    exec(compile(second, "README.md", "exec"), names)
    shapes = ["([8, 100, 16, 2])", "([4000, 16, 2])", "([4000, 16])"]
    assert re.findall(r"\(\[[^]]*\]\)", capsys.readouterr().out) == shapes


def test_readme_shows_commands() -> None:
    assert len(commands()) >= 3


@pytest.mark.parametrize("command", commands())
def test_command_of_the_readme_is_understood(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command.replace("$AEVB_DATA", "."), comments=True)[1:]
    if words[0] in ("train", "parts"):
        with pytest.raises(SystemExit) as stopped:
            main([*words, "--print_config"])
        assert stopped.value.code == 0
        shown = {"train": "latent_dim", "parts": "family"}
        assert shown[words[0]] in capsys.readouterr().out
    else:
        assert main(words) == 2  # no such run, but every flag was understood
        assert "is no run folder" in capsys.readouterr().err


def test_recipe_of_a_prior_works_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (code,) = blocks("python", text)
    assert len([line for line in code.splitlines() if line.strip()]) < 20
    (tmp_path / "cauchy.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    (command,) = re.findall(r"`aevb (train .*?)`", text.replace("\n", " "))
    assert "cauchy.Cauchy" in command
    brief = "--epochs 1 --num_samples 10 --limit 10 --out run --json"
    assert main([*command.split(), *brief.split()]) == 0
    assert "Cauchy(scale=0.5)" in capsys.readouterr().out
