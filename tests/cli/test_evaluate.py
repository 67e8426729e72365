"""`aevb evaluate` and its kin: figures, reports and files where they are said to be."""

import json
import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import escape

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz as az


from command_runs import BRIEF, stable, strict

REPORTED = {
    "elbo",
    "log_evidence",
    "standard_error",
    "num_datapoints",
    "num_samples",
    "split",
    "binarize",
    "seed",
}


# Evaluation


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_json_is_the_only_output(command: str, run: Path, aevb: Any) -> None:
    flags = [*BRIEF, "--epochs", 1, "--out", "new"] if command == "train" else [run, "--limit", 9]
    result = aevb(command, *flags, "--num_samples", 3, "--json")
    figures = json.loads(result.out)
    assert result.out.count("\n") == 1
    assert result.err == ""
    assert figures.keys() >= REPORTED


def test_evaluation_reports_its_settings(run: Path, aevb: Any) -> None:
    flags = ["--num_samples", 4, "--limit", 7, "--seed", 5, "--split", "validation"]
    figures = json.loads(aevb("evaluate", run, *flags, "--json").out)
    expected = {"num_samples": 4, "num_datapoints": 7, "seed": 5, "split": "validation"}
    expected |= {"binarize": "dynamic", "data": "digits", "unit": "nats per datapoint", "epoch": 2}
    assert expected.items() <= figures.items()
    assert json.loads((run / "evidence-validation-7x4-seed5.json").read_text()) == figures


def test_words_show_what_json_holds(run: Path, aevb: Any) -> None:
    flags = ["evaluate", run, "--num_samples", 3, "--limit", 5]
    figures, said = json.loads(aevb(*flags, "--json").out), aevb(*flags).out
    assert f"ELBO {figures['elbo']:.2f} ± {figures['elbo_standard_error']:.2f} nats" in said
    assert f"log p(x) ≥ {figures['log_evidence']:.2f} ± {figures['standard_error']:.2f}" in said
    assert "on 5 test datapoints" in said
    assert f"lower bound: {figures['why']}" in said
    assert said.count("\n") < 16
    assert all(name in said for name in (figures["better"], f"aevb compare {run}", "index.html"))


def test_evaluating_twice_gives_identical_figures(run: Path, aevb: Any) -> None:
    flags = ["evaluate", run, "--num_samples", 3, "--limit", 5, "--json"]
    first, second, other = (json.loads(aevb(*flags, "--seed", s).out) for s in (0, 0, 1))
    assert stable(first) == stable(second)
    assert first["elbo"] != other["elbo"]


@pytest.mark.parametrize("estimator", ["ais", "bounds", "bdmc", "hmc"])
def test_evidence_by_other_estimators(estimator: str, run: Path, aevb: Any) -> None:
    code, out, _ = aevb(
        "evaluate", run, "--estimator", estimator, "--limit", 5, "--num_samples", 40,
        "--num_temperatures", 20, "--num_chains", 4, "--json",
    )  # fmt: skip
    figures = json.loads(out)
    assert code == 0
    better = figures["verdict"] == "trusted" or figures["better"].startswith("aevb evaluate")
    assert better
    assert figures["num_datapoints"] == 5
    written = list(run.glob(f"evidence-{estimator}-test-5x*-seed0.json"))
    assert [json.loads(path.read_text()) for path in written] == [figures]


def test_refined_proposal_has_a_file_of_its_own(run: Path, aevb: Any) -> None:
    flags = ["evaluate", run, "--limit", 5, "--num_samples", 30, "--json"]
    plain = json.loads(aevb(*flags).out)
    assert plain["better"] == f"aevb evaluate {run} --proposal refined"
    code, out, _ = aevb(*flags, "--proposal", "refined")
    assert code == 0
    assert json.loads(out)["ess_median"] > plain["ess_median"]
    assert (run / "evidence-refined-test-5x30-seed0.json").exists()


@pytest.mark.parametrize("suffix", [".nc", ".npz"])
def test_posteriors_that_pass_are_written(
    suffix: str, run: Path, aevb: Any, tmp_path: Path
) -> None:
    path = tmp_path / f"draws{suffix}"
    code, out, _ = aevb(
        "posterior", run, "--limit", 4, "--num_samples", 1000, "--num_draws", 50, "--out", path,
        "--json",
    )  # fmt: skip
    found = json.loads(out)
    assert code == 0
    assert found["num_passed"] <= found["num_posteriors"] == 4
    assert sum(found["sources"].values()) == 4
    assert found["draws"] == str(path)
    assert path.stat().st_size > 1000


def test_importance_curve_has_its_picture(run: Path, aevb: Any) -> None:
    code, out, _ = aevb(
        "evaluate", run, "--limit", 5, "--num_samples", 64, "--curve", "true", "--json"
    )
    figures = json.loads(out)
    assert code == 0
    assert figures["curve"]["num_samples"][-1] == 64
    assert Path(figures["picture"]).stat().st_size > 1000


@pytest.mark.parametrize("estimator", ["importance", "ais", "bdmc", "hmc"])
def test_undefined_errors_are_null_in_json_and_a_dash_in_words(
    estimator: str, run: Path, aevb: Any
) -> None:
    flags = ["evaluate", run, "--estimator", estimator, "--limit", 1, "--num_samples", 1]
    flags += ["--num_temperatures", 2, "--num_chains", 1 if estimator != "hmc" else 2]
    result = aevb(*flags, "--json")
    if estimator == "hmc":
        assert result.code == 2
        return
    figures = strict(result.out)
    assert (result.code, result.err) == (0, "")
    (path,) = (
        run.glob("evidence-*-1x*.json")
        if estimator != "importance"
        else run.glob("evidence-test-1x1-*.json")
    )
    assert strict(path.read_text()) == figures
    assert figures["verdict"] != "trusted"
    undefined = "gap_standard_error" if estimator == "bdmc" else "standard_error"
    assert figures[undefined] is None
    shown = aevb(*flags).out
    assert "± –" in shown
    assert "nan" not in shown


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
def test_trial_writes_its_report(run: Path, aevb: Any) -> None:
    code, out, _ = aevb(
        "compare", run, "--datapoints", 4, "--num_chains", 4, "--num_samples", 60,
        "--num_warmup", 60, "--num_temperatures", 10, "--max_steps", 100, "--population", 30,
        "--num_simulations", 50, "--num_replications", 40, "--json",
    )  # fmt: skip
    figures = json.loads(out)
    assert code == 0
    assert figures["num_datapoints"] == 4
    assert figures["calibration"]["num_simulations"] == 50
    assert figures["predictive_checks"]["num_replications"] == 40
    assert figures["latents"]["num_datapoints"] == figures["settings"]["population"] == 30
    assert figures["gaps"]["inference_gap"]["mean"] > 0
    page = (run / "report.html").read_text()
    words = re.sub("</?abbr[^>]*>", "", page)
    assert all(escape(line) in words for line in figures["verdict"])
    assert (
        re.search(r"(src|href)=.(http|//)", page) is None
    )  # it opens from disk, asks for nothing
    assert f"run {run}" in words
    assert "data digits" in words
    assert "Next: <code>aevb " in page
    written = json.loads((run / "report.json").read_text())
    assert written["verdict"] == figures["verdict"]
    assert len(written["each"]["khat"]) == 4
    assert len(written["each"]["predictive_p"]["log_likelihood"]) == 4
    assert f"draws:  {figures['draws']}" in figures["table"]
    draws = az.from_netcdf(figures["draws"])
    assert draws["posterior"]["z"].sizes["datapoint"] == 4
    rows = 4 * figures["latents"]["latents"]
    assert len(az.summary(draws, var_names=["z"])) == rows
    assert not list(run.glob(".*partial"))


@pytest.mark.filterwarnings("ignore:HMC. chains of datapoints")  # 30 draws need not mix
@pytest.mark.parametrize("pattern", ["random", "square"])
def test_hidden_values_are_filled_in(pattern: str, run: Path, aevb: Any) -> None:
    code, out, _ = aevb(
        "impute", run, "--missing", 0.5, "--pattern", pattern, "--datapoints", 20,
        "--num_steps", 30, "--num_samples", 30, "--json",
    )  # fmt: skip
    figures = json.loads(out)
    assert code == 0
    # a model of a few epochs: better than a coin, which is wrong by 1/2
    assert 0 < figures["mse_chain"] < 0.4
    assert 0 < figures["mse_hmc"] < 0.4
    assert Path(figures["picture"]).stat().st_size > 1000


def test_embedding_is_written_with_its_picture(run: Path, aevb: Any) -> None:
    code, out, _ = aevb("embed", run, "--limit", 30, "--json")
    figures = json.loads(out)
    assert code == 0
    arrays = np.load(figures["array"])
    assert arrays["mean"].shape == (30, figures["latents"])
    assert 0 <= figures["active_units"] <= figures["latents"]
    assert sum(figures["kl_by_part"].values()) == pytest.approx(figures["kl"], rel=1e-5)
    assert Path(figures["picture"]).stat().st_size > 1000


@pytest.mark.parametrize(
    ("command", "asked", "written"),
    [
        ("embed", "new/emb", ["new/emb.npz", "new/emb.csv", "new/emb.png"]),
        ("embed", "emb.v2", ["emb.v2.npz", "emb.v2.csv", "emb.v2.png"]),
        ("sample", "new/draws", ["new/draws.png", "new/draws.npy"]),
        ("impute", "new/filled", ["new/filled.png"]),
        ("impute", "filled.jpg", ["filled.jpg"]),
    ],
)
def test_files_are_written_where_they_are_said_to_be(
    command: str, asked: str, written: list[str], run: Path, aevb: Any
) -> None:
    flags = {"embed": ["--limit", 5], "sample": ["--num", 2], "impute": ["--datapoints", 2]}
    if command == "impute":
        flags[command] += ["--num_samples", 0, "--num_steps", 2]
    code, out, err = aevb(command, run, *flags[command], "--out", asked, "--json")
    assert (code, err) == (0, "")
    figures = json.loads(out)
    assert {figures[key] for key in ("picture", "array", "rows") if key in figures} == set(written)
    assert all(Path(path).stat().st_size > 100 for path in written)


@pytest.mark.parametrize("missing", [1e-6, 0.3])
def test_one_datapoint_is_imputed_without_undefined_words(
    missing: float, run: Path, aevb: Any
) -> None:
    flags = ["--datapoints", 1, "--num_samples", 0, "--num_steps", 2, "--missing", missing]
    result = aevb("impute", run, *flags)
    if missing < 0.1:
        assert result.code == 2
        assert (
            "missing: a share of 1e-06 hides none of the 64 values of 1 datapoint;" in result.err
        )
    else:
        assert (result.code, result.err) == (0, "")
        assert "nan" not in result.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_chains", 1], "num_chains: must be at least 2, since R̂ compares chains; got 1"),
        (["--num_chains", 4, "--num_samples", 49], "num_samples: must be at least 50 for 4 chain"),
        (["--num_warmup", -1], "num_warmup: must be at least 0; got -1"),
        (["--num_temperatures", -1], "num_temperatures: must be at least 0; got -1"),
        (["--num_importance_samples", 0], "num_importance_samples: must be at least 1; got 0"),
        (["--max_steps", 0], "max_steps: must be at least 1; got 0"),
        (["--chain_batch_size", 0], "chain_batch_size: must be at least 1; got 0"),
        (["--num_replications", -1], "num_replications: must be at least 0; got -1"),
        (["--population", 0], "population: must be at least 1; got 0"),
    ],
)
def test_impossible_trial_is_refused_before_the_chains_run(
    flags: list[Any], message: str, run: Path, aevb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "aevb.evaluation.trial.compare.hmc", lambda *_, **__: pytest.fail("chains ran")
    )
    result = aevb("compare", run, *flags)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"aevb: error: {message}")


@pytest.mark.parametrize("command", ["compare", "evaluate", "embed", "impute", "sample"])
def test_folder_that_cannot_be_written_to_is_refused_before_the_work(
    command: str, run: Path, aevb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("trial.compare.hmc", "embed"):
        monkeypatch.setattr(f"aevb.evaluation.{name}", lambda *_, **__: pytest.fail("work"))
    for name in ("evaluation.prior_means", "evaluation.impute", "inference.importance_evidence"):
        monkeypatch.setattr(f"aevb.{name}", lambda *_, **__: pytest.fail("work"))
    # the tests may run as root, to whom every folder is open
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: (path, mode) != (run, os.W_OK) and real(path, mode)
    )
    result = aevb(command, run)
    assert (result.code, result.out) == (2, "")
    assert f"{run}: cannot be written to" in result.err
