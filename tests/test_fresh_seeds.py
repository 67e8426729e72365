"""``seed=None`` draws afresh and says what it drew."""

from pathlib import Path
from typing import Any

import pytest
import torch

from aevb import data, evaluation, inference, models
from aevb.data.seeds import fresh_if_none, stream_seed

X = torch.linspace(-1.0, 1.0, 15).view(3, 5)


def test_fresh_seeds_are_different_and_fit_everywhere() -> None:
    seeds = {fresh_if_none(None) for _ in range(100)}
    assert len(seeds) == 100  # of 2³¹; a repetition has a chance of 2e-6
    assert all(0 <= seed < 2**31 for seed in seeds)
    torch.manual_seed(0)
    first = fresh_if_none(None)
    torch.manual_seed(0)
    assert fresh_if_none(None) != first


def test_no_seed_is_no_name_of_a_stream() -> None:
    with pytest.raises(ValueError, match="expected a whole number; got None"):
        stream_seed(None, "hmc")  # type: ignore[arg-type]


def test_a_recorded_seed_gives_the_same_again() -> None:
    fa = models.FactorAnalysis((5,), 2, models.DiagonalNormal())
    functions: dict[str, Any] = {
        "hmc": lambda seed: inference.hmc(fa.model, X, num_chains=2, num_samples=5,
                                          num_warmup=5, seed=seed),
        "importance": lambda seed: inference.importance_evidence(fa.model, fa.guide, X,
                                                                 num_samples=9, seed=seed),
        "ais": lambda seed: inference.ais_evidence(fa.model, X, num_temperatures=3, num_chains=2,
                                                   seed=seed),
    }  # fmt: skip
    for name, run in functions.items():
        found = [run(None), run(None)]
        again = run(found[0].seed)
        values = [r.unconstrained if name == "hmc" else r.log_evidence for r in (*found, again)]
        assert not torch.equal(values[0], values[1]), name
        assert torch.equal(values[0], values[2]), name


def test_binary_draws_of_a_recorded_seed_are_the_same() -> None:
    first = data.load("digits", binarize="dynamic", seed=None)
    again = data.load("digits", binarize="dynamic", seed=first.record()["seed"])
    other = data.load("digits", binarize="dynamic", seed=None)
    assert torch.equal(first.test.evaluation(), again.test.evaluation())
    assert not torch.equal(first.test.evaluation(), other.test.evaluation())


def fitted(seed: int | None, **settings: Any) -> inference.Run:
    torch.manual_seed(0)
    fa = models.FactorAnalysis((5,), 2, models.DiagonalNormal())
    settings = {"epochs": 2, **settings}
    return inference.fit(fa, X.repeat(10, 1), batch_size=10, seed=seed, **settings)


def test_training_records_its_seed() -> None:
    first, other = fitted(None), fitted(None)
    again = fitted(first.seed)
    weight = [run.program.decoder.weight for run in (first, other, again)]
    assert torch.equal(weight[0], weight[2])
    assert not torch.equal(weight[0], weight[1])
    assert f"seed={first.seed}" in repr(first)


def test_a_run_is_resumed_with_the_seed_that_it_drew(tmp_path: Path) -> None:
    first = fitted(None, out=tmp_path)
    later = fitted(None, out=tmp_path, resume=True, epochs=4)
    whole = fitted(first.seed, epochs=4)
    assert later.seed == first.seed
    assert torch.equal(later.program.decoder.weight, whole.program.decoder.weight)


def test_a_trial_records_its_seed() -> None:
    fa = models.FactorAnalysis((5,), 2, models.FullNormal())
    brief: dict[str, Any] = {"num_samples": 15, "num_warmup": 5, "max_steps": 5}
    trial = evaluation.compare(fa, X, seed=None, num_simulations=0, num_replications=0, **brief)
    assert f"seed={trial.draws.seed}" in repr(trial)
