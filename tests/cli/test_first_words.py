"""What is loaded for what: help, version and typing errors, and training until it draws."""

import json
import subprocess
import sys
from typing import Any

import pytest

from aevb.cli import main
from aevb.cli.commands import COMMANDS

HEAVY = (
    "torch", "pyro", "numpy", "scipy", "sklearn", "torchvision", "matplotlib", "arviz", "sympy",
    "tensorboard", "jsonargparse",
)  # fmt: skip
# Of these, what even training does without until it draws, converts or logs.
LATER = ("sklearn", "torchvision", "matplotlib", "arviz", "sympy", "tensorboard", "scipy")

RUN = """
import json, sys
from aevb.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as leaving:
    code = leaving.code
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""


def loaded(*words: str) -> tuple[int, set[str]]:
    """Exit code and modules after a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words], capture_output=True, text=True, check=True
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    return code, {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["trian"], 2),
        ([], 2),
        (["--bogus"], 2),
    ],
)
def test_words_without_a_command_load_nothing_heavy(words: list[str], code: int) -> None:
    found, modules = loaded(*words)
    assert found == code
    assert modules.isdisjoint(HEAVY)


def test_help_of_training_loads_only_what_models_are_made_of() -> None:
    code, modules = loaded("train", "--help")
    assert code == 0
    assert {"torch", "pyro"} <= modules
    assert modules.isdisjoint(LATER)


def test_heavy_modules_would_be_found() -> None:
    _, modules = loaded("parts", "--family", "prior")
    assert "torch" in modules


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n    {name} " in shown for name in COMMANDS)
    assert "--print_completion" in shown


# Help


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_of_each_command_is_short_and_whole(
    command: str, aevb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    code, out, err = aevb(command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: aevb {command}")
    assert "--json" in out
    assert "default:" not in out
    assert out.count("\n") < 100


def test_flags_of_training_stand_below_headings_with_those_of_the_model(aevb: Any) -> None:
    out = aevb("train", "--help").out
    places = [out.index(f"\n{name}:\n") for name in ("data", "model", "training", "run folder")]
    assert places == sorted(places)
    assert places[1] < out.index("--model.latent_dim") < places[2] < out.index("--learning_rate")
    other = aevb("train", "--model", "DLGM", "--help").out
    assert "--model.latent_dims" in other
    assert "--model.latent_dims" not in out


def test_help_of_everything_has_the_flags_of_every_part(aevb: Any) -> None:
    out = aevb("train", "--help-all").out
    for flag in ("--model.prior.components", "--objective.num_particles", "--schedule.milestones"):
        assert flag in out


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--model.help"], ["--model NAME", "VAE", "FactorAnalysis"]),
        (["--model.help", "VAE"], ["--model VAE", "--model.latent_dim", "(2)"]),
        (["--model.prior.help"], ["--model.prior NAME", "VampPrior"]),
        (["--model.likelihood.help", "NegativeBinomial"], ["--model.likelihood.dispersion"]),
        (["--model.likelihood.help=Normal"], ["--model.likelihood Normal", "likelihood.scale"]),
        (["--optimizer.help", "SGD"], ["--optimizer.momentum"]),
    ],
)
def test_help_on_parts(words: list[str], wanted: list[str], aevb: Any) -> None:
    code, out, _ = aevb("train", *words)
    assert code == 0
    assert [text for text in wanted if text not in out] == []


def test_help_on_no_part_says_which_there_are(aevb: Any) -> None:
    result = aevb("train", "--model.prior.help", "vampprior")
    assert result.code == 2
    assert "did you mean VampPrior?" in result.err
    result = aevb("train", "--model.hidden.help")
    assert result.code == 2
    assert "takes no part" in result.err


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_commands_flags_and_names(shell: str, aevb: Any) -> None:
    pytest.importorskip("shtab")
    code, out, err = aevb("--print_completion", shell)
    assert code == 0
    assert f"aevb --print_completion {shell} >" in err
    for word in ("evaluate", "learning_rate", "model.prior.components", "VampPrior", "fashion"):
        assert word in out


def test_completion_names_the_shells_it_knows(aevb: Any) -> None:
    result = aevb("--print_completion", "fish")
    assert result.code == 2
    assert "bash, zsh, tcsh" in result.err


# Terminals and pipes


def test_closed_pipe_is_no_failure() -> None:
    words = [sys.executable, "-m", "aevb", "train", "--help"]
    shown = subprocess.run(
        ["bash", "-c", '"$@" | true; exit ${PIPESTATUS[0]}', "-", *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (shown.returncode, shown.stdout, shown.stderr) == (141, "", "")


def test_letters_that_a_terminal_lacks_are_spelled() -> None:
    import codecs

    from aevb.__main__ import _spelled

    codecs.register_error("aevb-test", _spelled)
    text = "k̂ ≥ 0.7 ± 0.1, 8×8 – naïve → ☃"
    assert text.encode("ascii", "aevb-test") == b"k-hat >= 0.7 +/- 0.1, 8x8 - naive -> ?"
    assert text.encode("utf-8", "aevb-test").decode() == text
