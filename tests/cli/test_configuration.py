"""Configurations: printed, read back, overridden; help and version."""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from aevb.cli import main

from command_runs import BRIEF, COMMANDS

# A user's own prior and likelihood, found in the working directory.
MINE = """
from dataclasses import dataclass
from pyro import distributions as dist
from torch import nn
from torch.distributions import constraints
import torch
from aevb.models import Likelihood, Prior

class _Wide(nn.Module):
    def __init__(self, latent_dim, scale):
        super().__init__()
        self.latent_dim, self.scale = latent_dim, scale
    def forward(self):
        return dist.Normal(torch.zeros(self.latent_dim), self.scale).to_event(1)

@dataclass(frozen=True)
class Wide(Prior):
    scale: float = 2.0
    def build(self, latent_dim):
        return _Wide(latent_dim, self.scale)

class _Laplace(nn.Module):
    def __init__(self, in_features, shape, scale):
        super().__init__()
        self.shape, self.scale = shape, scale
        self.loc = nn.Linear(in_features, torch.Size(shape).numel())
    def forward(self, features):
        loc = self.loc(features).unflatten(-1, self.shape)
        return dist.Laplace(loc, self.scale).to_event(len(self.shape))

@dataclass(frozen=True)
class Laplace(Likelihood):
    scale: float = 1.0
    support = constraints.real
    remedy = "use finite numbers"
    def build(self, in_features, shape):
        return _Laplace(in_features, shape, self.scale)
"""


# Configuration


def test_printed_configuration_is_read_back_as_it_is(tmp_path: Path, aevb: Any) -> None:
    flags = [*BRIEF, "--schedule", "StepLR", "--schedule.step_size", 3, "--objective.analytic_kl"]
    printed = aevb("train", *flags, "true", "--print_config")
    (tmp_path / "config.yaml").write_text(printed.out)
    again = aevb("train", "--config", "config.yaml", "--print_config")
    assert (printed.code, again.code) == (0, 0)
    assert again.out == printed.out
    assert yaml.safe_load(again.out)["schedule"]["init_args"]["step_size"] == 3


def test_flags_after_a_configuration_override_it(tmp_path: Path, aevb: Any) -> None:
    (tmp_path / "config.yaml").write_text("epochs: 7\nbatch_size: 50\n")
    flags = ["--config", "config.yaml", "--epochs", 9]
    config = yaml.safe_load(aevb("train", *flags, "--print_config").out)
    assert (config["epochs"], config["batch_size"]) == (9, 50)


def test_own_classes_are_found_in_the_working_directory(tmp_path: Path, aevb: Any) -> None:
    (tmp_path / "mine_of_test_cli.py").write_text(MINE)
    flags = ["--model.likelihood", "mine_of_test_cli.Laplace", "--model.likelihood.scale", 0.5]
    flags += ["--model.prior", "mine_of_test_cli.Wide", "--binarize", "none"]
    trained = aevb("train", *BRIEF, *flags, "--epochs", 1, "--out", "run", "--json")
    evaluated = aevb("evaluate", "run", "--num_samples", 3, "--limit", 20, "--json")
    sys.modules.pop("mine_of_test_cli")
    figures = json.loads(evaluated.out)
    assert "x | z ~ Laplace(scale=0.5)" in figures["model"]
    assert "z ~ Wide(scale=2.0)" in figures["model"]
    assert figures["elbo"] == json.loads(trained.out)["elbo"]


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["evaluate", "--help"]])
def test_help_goes_to_standard_output(words: list[str], aevb: Any) -> None:
    result = aevb(*words)
    assert (result.code, result.err) == (0, "")
    assert all(name in result.out for name in (COMMANDS if len(words) == 1 else ["--seed"]))


def test_version_is_that_of_the_package(aevb: Any) -> None:
    assert aevb("--version") == (0, f"aevb {version('aevb')}\n", "")


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--objective", "IWAE"], "num_particles: 5"),
        (["--objective", "DReG"], "num_particles: 5"),
        (["--model", "DLGM"], "- 200\n    - 200"),
        (["--model", "FactorAnalysis"], "posterior: null"),
    ],
)
def test_named_classes_have_their_own_defaults(
    flags: list[str], wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["train", *flags, "--print_config"])
    assert wanted in capsys.readouterr().out
