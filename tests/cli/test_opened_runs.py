"""Runs opened from Python, new data, and rows that say which datapoint they are."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import aevb as package
from aevb.data import load
from aevb.evaluation import reconstructions

from command_runs import BRIEF, metrics

BINARY = [*BRIEF, "--epochs", 1, "--data", "x.npy", "--binarize", "none", "--out", "own"]


def rows(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def counts(name: str, dtype: Any = np.int64) -> np.ndarray[Any, Any]:
    values = np.random.RandomState(0).poisson(2.0, size=(40, 5)).astype(dtype)
    np.save(name, values)
    return values


# From Python


def test_opened_run_is_what_the_commands_work_with(run: Path, aevb: Any) -> None:
    opened = package.open(run, device="cpu")
    assert [row["epoch"] for row in opened.history] == [int(m["epoch"]) for m in metrics(run)]
    assert opened.data.sha256 == load("digits").sha256
    assert not opened.model.training
    arrays = np.load(json.loads(aevb("embed", run, "--limit", 30, "--json").out)["array"])
    assert np.array_equal(opened.embed("test", 30).mean, arrays["mean"])
    figures = json.loads(aevb("evaluate", run, "--limit", 9, "--num_samples", 30, "--json").out)
    evidence = opened.log_evidence("test", 9, num_samples=30)
    assert evidence.summary()["log_evidence"] == figures["log_evidence"]
    assert torch.equal(opened.log_prob("test", 9, num_samples=30), evidence.log_evidence)
    assert opened.sample(3).shape == (3, 8, 8)
    x = opened.data.test.evaluation(4)
    expected = reconstructions(opened.model.model, opened.model.guide, x)
    assert torch.equal(opened.reconstruct("test", 4), expected)
    trial = opened.compare(
        "test", 2, num_chains=4, num_samples=50, num_warmup=20, num_temperatures=0, max_steps=10,
        num_simulations=0, num_replications=0,
    )  # fmt: skip
    assert len(trial.khat) == 2
    assert str(run) in repr(opened)


def test_opened_run_takes_new_data(run: Path) -> None:
    opened = package.open(run)
    levels = np.full((2, 8, 8), 16, dtype=np.uint8)
    assert opened.values(levels).unique().tolist() == [1.0]
    assert opened.embed(levels).mean.shape == (2, 2)
    with pytest.raises(ValueError, match=r"datapoints of shape \(7, 8\); expected \(8, 8\)"):
        opened.embed(levels[:, 1:])


@pytest.mark.parametrize("name", ["os.system", "aevb.cli.runs.SavedRun"])
def test_opening_obeys_the_rules_of_the_command_line(name: str, run: Path) -> None:
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("aevb.models.VAE", name))
    with pytest.raises(ValueError, match=name):
        package.open(run)


def test_opening_refuses_links_and_runs_no_module_that_is_not_trusted(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "strange.py").write_text(
        "from pathlib import Path\nPath('ran').touch()\nfrom aevb.models import VAE as Own\n"
        "class Mine(Own): pass\n"
    )
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("aevb.models.VAE", "strange.Mine"))
    with pytest.raises(ValueError, match="strange.Mine.*--trust strange"):
        package.open(run)
    assert not Path("ran").exists()
    assert type(package.open(run, trust=["strange"]).model).__name__ == "Mine"
    assert Path("ran").exists()
    os.symlink(path, run / "loss.pdf")
    with pytest.raises(ValueError, match="symbolic link"):
        package.open(run, trust=["strange"])


def test_open_does_not_take_the_place_of_pythons() -> None:
    assert "open" not in package.__all__
    assert "open" in dir(package)


# Rows


def test_embedding_of_all_rows_is_in_the_order_of_the_file(run: Path, aevb: Any) -> None:
    result = json.loads(aevb("embed", run, "--split", "all", "--json").out)
    arrays = np.load(result["array"], allow_pickle=False)
    dataset = load("digits")
    assert np.array_equal(arrays["index"], np.arange(1797))
    assert set(arrays["split"][dataset.test.indices]) == {"test"}
    parts = json.loads(aevb("embed", run, "--split", "test", "--json").out)
    test = np.load(parts["array"])
    assert np.allclose(arrays["mean"][test["index"]], test["mean"], atol=1e-6)
    table = rows(result["rows"])
    assert list(table[0]) == ["index", "split", "z[0]", "z[1]", "sd z[0]", "sd z[1]"]
    assert np.array_equal([float(row["z[1]"]) for row in table], arrays["mean"][:, 1])


def test_evidence_and_posteriors_say_which_rows_they_are_of(run: Path, aevb: Any) -> None:
    expected = load("digits").test.indices[:4].tolist()
    aevb("evaluate", run, "--limit", 4, "--num_samples", 30)
    table = rows(run / "evidence-test-4x30-seed0.csv")
    assert [int(row["index"]) for row in table] == expected
    figures = json.loads((run / "evidence-test-4x30-seed0.json").read_text())
    mean = np.mean([float(row["log_evidence"]) for row in table])
    assert mean == pytest.approx(figures["log_evidence"], rel=1e-12)
    flags = ["posterior", run, "--limit", 4, "--num_samples", 500, "--num_draws", 20, "--out"]
    assert aevb(*flags, "draws.npz").code == 0
    assert np.load("draws.npz")["index"].tolist() == expected
    assert aevb(*flags, "draws.nc").code == 0
    import arviz

    constant = arviz.from_netcdf("draws.nc")["constant_data"]
    assert constant["index"].values.tolist() == expected
    assert constant["split"].values.tolist() == ["test"] * 4


def test_names_of_a_table_reach_the_embedding(aevb: Any, tmp_path: Path) -> None:
    values = counts("x.npy")
    lines = [f"c{place:02},{','.join(map(str, row))}" for place, row in enumerate(values)]
    Path("x.csv").write_text("\n".join(["cell,a,b,c,d,e", *lines]))
    words = [*BRIEF, "--epochs", 1, "--data", "x.csv", "--table.id_column", "cell"]
    words += ["--binarize", "none", "--model.likelihood", "Poisson", "--batch_size", 10]
    trained = aevb("train", *words, "--out", "own")
    assert trained.code == 0, trained.err
    found = json.loads(aevb("embed", "own", "--split", "all", "--json").out)
    assert np.load(found["array"])["id"].tolist() == [f"c{place:02}" for place in range(40)]
    Path("new.csv").write_text("e,d,c,b,a,cell\n1,2,3,4,5,q\n")
    new = json.loads(aevb("embed", "own", "--data", "new.csv", "--json").out)
    assert (new["split"], new["num_datapoints"]) == ("new", 1)
    assert [(row["id"], row["split"]) for row in rows(new["rows"])] == [("q", "new")]
    as_array = package.open("own").embed(np.array([[5, 4, 3, 2, 1]]))
    assert np.allclose(np.load(new["array"])["mean"], as_array.mean)


def test_new_data_that_the_model_does_not_admit_are_refused(run: Path, aevb: Any) -> None:
    np.save("new.npy", np.full((3, 8, 8), 17))
    result = aevb("embed", run, "--data", "new.npy")
    assert result.code == 2
    assert "new.npy: whole numbers from 0 to 17; expected 0 to 16, as digits has" in result.err


# 8-bit counts


def test_8_bit_counts_are_counts_to_a_likelihood_of_counts(aevb: Any) -> None:
    values = counts("x.npy", np.uint8)
    words = [*BINARY, "--batch_size", 10, "--model.likelihood", "NegativeBinomial"]
    trained = aevb("train", *words)
    assert trained.code == 0, trained.err
    opened = package.open("own")
    assert torch.equal(opened.values("all"), torch.from_numpy(values).float())
    assert json.loads(Path("own/record.json").read_text())["data"]["divisor"] == 1
    pixels = aevb("train", *words[:-2], "--model.likelihood", "Normal", "--out", "pixels")
    assert pixels.code == 0, pixels.err
    assert float(package.open("pixels").values("all").max()) == values.max() / np.float32(255)


def test_8_bit_counts_are_not_binarized_unasked(aevb: Any) -> None:
    counts("x.npy", np.uint8)
    words = [*BRIEF, "--data", "x.npy", "--model.likelihood", "Poisson", "--batch_size", 10]
    result = aevb("train", *words, "--out", "own")
    assert result.code == 2
    assert "would take counts for pixels; use binarize='none'" in result.err
