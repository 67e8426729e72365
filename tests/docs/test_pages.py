"""Every block of code on the pages runs, and every command on them is one."""

import shlex
import time
from pathlib import Path

import matplotlib
import pytest
import torch
from matplotlib import pyplot

from aevb.cli import main

from pages import blocks, commands, pages

PAGES = pages()
TUTORIALS = [
    page for page in PAGES if page.startswith("docs/tutorials/") and "exec" in PAGES[page]
]
ELSEWHERE = {
    "README.md",  # in test_readme
    "docs/contributing.md",  # likewise
    "docs/reference/command-line.md",  # prints help for the site alone
}
OTHERS = [page for page in PAGES if blocks("python", PAGES[page])]
OTHERS = [page for page in OTHERS if page not in TUTORIALS and page not in ELSEWHERE]
COMMANDS = sorted({command for text in PAGES.values() for command in commands(text)})
# of those that open no run: a word of what they print in place of working
WITHOUT_RUN = {"train": "latent_dim", "parts": "family", "reproduce": "budget"}


def run(page: str) -> dict[str, object]:
    """All Python of a page, as one program with one set of names."""
    names: dict[str, object] = {"__name__": "page"}
    for code in blocks("python", PAGES[page]):
        exec(compile(code, page, "exec"), names)
    return names


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    monkeypatch.setattr(pyplot, "show", lambda: pyplot.close("all"))


@pytest.mark.parametrize("page", OTHERS)
def test_code_of_a_page_runs(page: str) -> None:
    torch.manual_seed(1)  # of what a page does not seed itself
    run(page)


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS)
def test_tutorial_runs_in_a_minute_of_one_core(page: str) -> None:
    began = time.process_time()
    run(page)
    assert time.process_time() - began < 60


@pytest.mark.slow
def test_processes_run_as_printed(tmp_path: Path) -> None:
    import subprocess
    import sys

    (code,) = blocks("python", PAGES["docs/how-to/processes.md"])
    (tmp_path / "seeds.py").write_text(code)
    told = subprocess.run(
        [sys.executable, "seeds.py"], capture_output=True, text=True, check=True
    ).stdout
    figures = [float(word) for word in told.strip("[]\n").split(",")]
    assert len(figures) == 4
    assert all(-30 < figure < -20 for figure in figures)


def test_pages_show_many_commands() -> None:
    assert len(COMMANDS) > 30


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_understood(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command)
    if words[0] in WITHOUT_RUN and "--resume" not in words:
        with pytest.raises(SystemExit) as stopped:
            main([*own_parts_left_out(words), "--print_config"])
        assert stopped.value.code == 0
        assert WITHOUT_RUN[words[0]] in capsys.readouterr().out
    else:
        assert main(words) == 2  # no such run, but every flag was understood
        assert "is no run folder" in capsys.readouterr().err


def own_parts_left_out(words: list[str]) -> list[str]:
    """Without parts that a page has the reader write, whose modules are not here."""
    own = [i for i, word in enumerate(words) if word.split(".")[0] in ("cauchy", "lognormals")]
    for i in reversed(own):
        flag = words[i - 1]
        words = [w for j, w in enumerate(words) if j not in (i - 1, i)]
        settings = [j for j, word in enumerate(words) if word.startswith(f"{flag}.")]
        for j in reversed(settings):
            del words[j : j + 2]
    return words


def test_a_flag_that_is_none_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    """The broken twin: the test above would not pass it."""
    assert main(["embed", "RUN", "--everything"]) == 2
    assert "is no run folder" not in capsys.readouterr().err
