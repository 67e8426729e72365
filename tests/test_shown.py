"""What results look like at a prompt and in a notebook."""

import dataclasses
import importlib
import inspect
from typing import Any

import pytest
import torch
from pyro.infer.autoguide import AutoNormal

from aevb import data, evaluation, inference, models

from plain_programs import PROGRAMS

LONGEST = 900  # characters of a repr: less than half a screen


@pytest.fixture(scope="module", name="shown")
def fixture_shown() -> dict[str, Any]:
    """One object of each kind."""
    torch.manual_seed(0)
    fa, x = models.FactorAnalysis((5,), 2, models.FullNormal()), torch.randn(12, 5)
    draws = inference.hmc(fa.model, x, num_chains=2, num_samples=50, num_warmup=20)
    brief: dict[str, Any] = {"num_samples": 100, "num_warmup": 50, "max_steps": 50}
    trial = evaluation.compare(fa, x, num_simulations=20, num_replications=20, **brief)
    temperatures = {"num_temperatures": 3, "num_chains": 4}
    return {
        "dataset": data.load("digits"),
        "split": data.load("digits").train,
        "run": inference.fit(fa, x, epochs=30, batch_size=6),
        "model": models.VAE((28, 28), latent_dim=20),
        "layers": models.DLGM((8, 8), latent_dims=[3, 2], hidden=[4]),
        "program": inference.Program(fa.model, AutoNormal(fa.model)),
        "draws": draws,
        "state": draws.state,
        "metric": draws.metric,
        "importance": inference.importance_evidence(fa.model, fa.guide, x, num_samples=30),
        "ais": inference.ais_evidence(fa.model, x, **temperatures),
        "bdmc": inference.bdmc_evidence(fa.model, x, **temperatures),
        "bounds": inference.bounded_evidence(fa, x, **temperatures),
        "posterior": inference.posterior(fa, x, num_samples=500),
        "trial": trial,
        "errors": trial.errors,
        "gaps": trial.gaps,
        "refinement": trial.gaps.refinement if trial.gaps else None,
        "latents": trial.latents,
        "checks": trial.predictive_checks,
        "calibration": trial.calibration,
        "simulation": inference.simulate(fa.model, x),
    }


def test_no_repr_prints_tensors_or_fills_a_screen(shown: dict[str, Any]) -> None:
    for name, value in shown.items():
        text = repr(value)
        assert "tensor(" not in text, name
        assert len(text) < LONGEST, name
        assert text.count("\n") < 8, name


TABLES = (
    "dataset", "run", "model", "layers", "program", "draws", "importance", "ais", "bdmc", "bounds",
    "posterior", "trial", "gaps",
)  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_small_whole_and_load_nothing(shown: dict[str, Any], name: str) -> None:
    from html.parser import HTMLParser

    html = shown[name]._repr_html_()
    opened: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert not attrs
            opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Reader().feed(html)
    assert not opened
    assert html.startswith("<table><caption>")
    assert len(html) < 4000
    assert "tensor(" not in html


def test_what_a_name_holds_is_text_and_no_markup() -> None:
    dataset = data.load(torch.zeros(20, 2))
    sneaky = dataclasses.replace(dataset, name="<script>alert(1)</script>")
    assert "<script>" not in sneaky._repr_html_()
    assert "&lt;script&gt;" in sneaky._repr_html_()


def test_every_public_record_with_tensors_says_how_it_is_shown() -> None:
    """The repr that dataclasses come with prints every tensor whole."""
    found = []
    for layer in ("data", "inference", "evaluation"):
        module = importlib.import_module(f"aevb.{layer}")
        for name in module.__all__:
            value = getattr(module, name)
            if not (inspect.isclass(value) and dataclasses.is_dataclass(value)):
                continue
            tensors = any("Tensor" in str(field.type) for field in dataclasses.fields(value))
            own = "__create_fn__" not in value.__repr__.__qualname__
            if tensors and not own:
                found.append(name)
    assert not found


def test_a_program_says_that_its_parameters_are_yet_to_come() -> None:
    case = PROGRAMS[0]
    text = repr(inference.Program(case.model, AutoNormal(case.model)))
    assert "created at the first call" in text


def test_the_history_of_a_run_is_a_table(shown: dict[str, Any]) -> None:
    run = shown["run"]
    frame = run.to_dataframe()
    assert frame.index.name == "epoch"
    assert frame["train_objective"].to_list() == [row["train_objective"] for row in run.history]


def test_estimates_are_rows_in_the_order_of_the_data(shown: dict[str, Any]) -> None:
    names = [f"cell-{number}" for number in range(12)]
    for kind in ("importance", "ais", "bdmc", "bounds"):
        evidence = shown[kind]
        frame = evidence.to_dataframe(index=names)
        assert frame.index.to_list() == names
        assert torch.equal(torch.tensor(frame["log_evidence"].to_numpy()), evidence.log_evidence)
        assert frame["is_trusted"].to_list() == evidence.is_trusted.tolist()
        assert list(evidence.to_dataframe().index) == list(range(12))
    frame = shown["posterior"].to_dataframe(torch.arange(12) + 100)
    assert frame.index.to_list() == list(range(100, 112))
    assert set(frame["source"]) <= set(inference.SOURCES)
    gaps = shown["gaps"].to_dataframe(names)
    assert gaps.loc["cell-3", "amortization"] == shown["gaps"].amortization[3].item()


def test_a_trial_is_rows_in_the_order_of_the_data(shown: dict[str, Any]) -> None:
    trial = shown["trial"]
    frame = trial.to_dataframe(index="abcdefghijkl")
    assert frame.loc["d", "energy_distance"] == trial.errors.energy_distance[3].item()
    assert frame["judged"].to_list() == trial.judged.tolist()
    assert frame.loc["c", "log_evidence"] == trial.gaps.log_evidence[2].item()
    with pytest.raises(ValueError, match="expected one for each of 12 rows; got 2"):
        trial.to_dataframe(index=[1, 2])
