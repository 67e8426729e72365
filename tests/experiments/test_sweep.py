"""The product of all parts, in the few combinations in which any two of them meet."""

import re
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from aevb import models
from aevb.cli import main
from aevb.cli.parts import parts
from aevb.inference import ELBO
from experiments import sweep


def test_any_two_parts_train_together_or_are_refused_with_a_reason() -> None:
    outcomes = [sweep.examine(parts) for parts in sweep.covering()]
    assert [outcome.row() for outcome in outcomes if outcome.verdict == "fails"] == []
    refused = [outcome.reason for outcome in outcomes if outcome.verdict == "refused"]
    assert 0 < len(refused) < len(outcomes) / 4
    assert all(": use " in reason for reason in refused)


def test_covering_covers() -> None:
    axes = sweep.axes()
    met = {
        pair
        for parts in sweep.covering()
        for pair in combinations([(i, repr(part)) for i, part in enumerate(parts)], 2)
    }
    every = {
        ((i, repr(a)), (j, repr(b)))
        for (i, first), (j, second) in combinations(enumerate(axes.values()), 2)
        for a in first
        for b in second
    }
    assert met == every


@dataclass(frozen=True)
class Deaf(models.Posterior):
    """Its scale hears nothing of the data."""

    def build(self, in_features: int, latent_dim: int) -> nn.Module:
        return _Deaf(models.DiagonalNormal().build(in_features, latent_dim))


class _Deaf(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, features: Tensor) -> torch.distributions.Distribution:
        return self.inner(features.detach())


def outcome(prior: models.Prior, posterior: models.Posterior) -> sweep.Outcome:
    return sweep.examine((prior, models.Bernoulli(), posterior, ELBO()))


def test_broken_parts_are_found_out() -> None:
    deaf = outcome(models.StandardNormal(), Deaf())
    assert deaf.verdict == "fails"
    assert "no gradient reaches encoder.features" in deaf.reason


def test_command_prints_and_writes_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "covering", lambda: sweep_of_two())
    sweep.main(["--quick", "--out", str(tmp_path / "table.md")])
    printed = capsys.readouterr().out
    assert "| posterior | `Delta()` | 0 | 1 | 0 |" in printed
    assert "2 combinations: 1 trains, 1 refused, 0 fails." in printed
    assert printed.strip() in (tmp_path / "table.md").read_text()


def sweep_of_two() -> list[sweep.Combination]:
    plain = models.Bernoulli(), models.DiagonalNormal(), ELBO()
    return [
        (models.StandardNormal(), *plain),
        (models.VampPrior(3), models.Bernoulli(), models.Delta(), ELBO()),
    ]


def test_parts_are_listed_with_their_sources(capsys: pytest.CaptureFixture[str]) -> None:
    rows = parts()
    assert all(row["summary"] for row in rows)
    assert not [r["name"] for r in rows if not re.search("http|chapter|section", r["source"])]
    assert main(["parts", "--family", "posterior"]) == 0
    printed = capsys.readouterr().out
    assert "posterior  LowRankNormal(rank=2)" in printed
    assert "prior  " not in printed
    assert main(["parts", "--family", "priors"]) == 2
    assert "valid: model, prior, likelihood" in capsys.readouterr().err
