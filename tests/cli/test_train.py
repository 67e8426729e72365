"""`aevb train`: run folders that suffice."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from aevb import inference

from command_runs import BRIEF, FIGURES, metrics

FILES = {
    "checkpoint.safetensors",
    "config.yaml",
    "index.html",
    "loss.png",
    "manifold.png",
    "metrics.csv",
    "reconstructions.png",
    "record.json",
    "samples.png",
    "tensorboard",
    "weights.safetensors",
    FIGURES,
    FIGURES.replace(".json", ".csv"),
}


# Run folders


def test_training_writes_every_file_of_the_run_folder(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == FILES
    assert all(path.stat().st_size > 0 for path in finished.rglob("*") if path.is_file())
    assert list((finished / "tensorboard").iterdir())


@pytest.mark.parametrize("name", ["loss", "manifold", "reconstructions", "samples"])
def test_pictures_show_something(name: str, finished: Path) -> None:
    with Image.open(finished / f"{name}.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert min(pixels.shape) > 100
    assert len(np.unique(pixels)) > 2


def test_weights_file_holds_the_weights_of_the_checkpoint(finished: Path) -> None:
    weights = load_file(finished / "weights.safetensors")
    kept = inference.load_checkpoint(finished / "checkpoint.safetensors")["weights"]
    assert weights.keys() == kept.keys()
    assert all(torch.equal(weights[name], kept[name]) for name in kept)


def test_record_tells_data_versions_and_machine(finished: Path) -> None:
    record = json.loads((finished / "record.json").read_text())
    assert record["data"]["name"] == "digits"
    assert record["data"]["sizes"] == {"train": 1297, "validation": 250, "test": 250}
    assert record["versions"]["torch"] == version("torch")
    assert record["machine"]["device"] == "cpu"


def test_metrics_have_a_row_for_every_epoch(finished: Path) -> None:
    rows = metrics(finished)
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "4"), ("2", "8")]


def test_saved_configuration_is_the_resolved_one(finished: Path) -> None:
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert config["model"]["class_path"] == "aevb.models.VAE"
    assert config["model"]["init_args"]["hidden"] == [6]
    assert config["optimizer"]["init_args"]["betas"] == [0.9, 0.999]
    assert (config["epochs"], config["batch_size"], config["seed"]) == (2, 400, 0)


def test_saved_configuration_trains_the_same_weights(
    finished: Path, tmp_path: Path, aevb: Any
) -> None:
    config = finished / "config.yaml"
    assert aevb("train", "--config", config, "--out", "again").code == 0
    weights = "weights.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() == (finished / weights).read_bytes()


def test_run_goes_into_a_folder_named_by_data_and_time(tmp_path: Path, aevb: Any) -> None:
    result = aevb("train", *BRIEF, "--epochs", 1, "--json")
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("digits-20")
    assert json.loads(result.out)["run"] == f"runs/{folder.name}"


def test_manifold_is_drawn_for_two_latents_only(tmp_path: Path, aevb: Any) -> None:
    out = tmp_path / "run"
    result = aevb("train", *BRIEF, "--epochs", 1, "--model.latent_dim", 3, "--out", out)
    assert result.code == 0
    assert {path.name for path in out.iterdir()} == FILES - {"manifold.png"}


def test_folder_named_like_a_dataset_does_not_take_its_place(tmp_path: Path, aevb: Any) -> None:
    (tmp_path / "digits").mkdir()
    aevb("train", *BRIEF, "--epochs", 1, "--out", "run")
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["data"] == "digits"
    assert aevb("evaluate", "run", "--num_samples", 2, "--limit", 2).code == 0


def test_data_given_by_path_are_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aevb: Any
) -> None:
    np.save("rows.npy", np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32))
    flags = ["--data", "rows.npy", "--binarize", "none", "--model", "FactorAnalysis"]
    flags += ["--batch_size", "20", "--epochs", "1", "--num_samples", "2", "--device", "cpu"]
    assert aevb("train", *flags, "--out", "run").code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert aevb("evaluate", "../run", "--num_samples", 2).code == 0


def test_mnist_from_the_data_folder_trains(data_folder: Path, aevb: Any) -> None:
    flags = ["--data", "mnist", "--data_root", data_folder, "--model.hidden", "[8]"]
    flags += ["--batch_size", 1000, "--num_samples", 2, "--limit", 50, "--device", "cpu"]
    figures = json.loads(aevb("train", *flags, "--epochs", 1, "--out", "run", "--json").out)
    assert (figures["epochs"], figures["steps"], figures["num_datapoints"]) == (1, 50, 50)
    # better than knowing nothing: a fair coin for each of the pixels has 784 log 2 nats
    assert figures["elbo"] > -784 * np.log(2)


def test_run_remembers_where_its_data_were(
    aevb: Any, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--data", "mnist", "--model.hidden", "[4]", "--batch_size", 10000]
    flags += ["--num_samples", 2, "--limit", 2, "--epochs", 1, "--out", "run"]
    assert aevb("train", *flags).code == 0
    monkeypatch.delenv("AEVB_DATA")
    figures = aevb("evaluate", "run", "--num_samples", 2, "--limit", 2, "--json")
    assert json.loads(figures.out)["data"] == "mnist"
