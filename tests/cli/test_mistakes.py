"""Mistakes: one line that names what is valid."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from command_runs import BRIEF, COMMANDS, snapshot

FLAGS = ["--data", "--binarize", "--model", "--epochs", "--batch_size", "--resume"]


DATA = ["digits", "mnist", "fashion-mnist", "kmnist", "cifar10", "svhn", "frey-face", ".npy"]

MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    "no command": ([], COMMANDS),
    "unknown command": (["trian"], ["'trian'", *COMMANDS]),
    "unknown flag of all": (["--bogus"], ["--bogus", *COMMANDS]),
    "unknown flag": (["train", "--epoks", "3"], ["--epoks", "did you mean --epochs", *FLAGS]),
    "abbreviated flag": (["train", "--epoch=3"], ["--epoch=3", "did you mean --epochs"]),
    "flag of another command": (
        ["evaluate", "run", "--data", "new.npy"],
        ["--data of evaluate", "did you mean --data_root"],
    ),
    "abbreviated flag of evaluate": (
        ["evaluate", "run", "--num_sample", "5"],
        ["--num_sample of evaluate", "did you mean --num_samples"],
    ),
    "abbreviated flag of a model": (["train", "--model.latent", "3"], ["'latent'", "latent_dim"]),
    "abbreviated flag of a part": (
        ["train", "--model.likelihood.rel", "true"],
        ["Bernoulli", "'rel'", "valid: relaxed"],
    ),
    "abbreviated trust": (["evaluate", "run", "--trus", "os"], ["did you mean --trust"]),
    "abbreviated --print_config": (["train", "--print_conf"], ["did you mean --print_config"]),
    "data with letters exchanged": (["train", "--data", "minst"], ["--data: ", "mean mnist?"]),
    "data in capitals": (["train", "--data", "MNIST"], ["did you mean mnist?"]),
    "model in small letters": (["train", "--model", "vae"], ["did you mean VAE?"]),
    "optimizer in small letters": (["train", "--optimizer", "adam"], ["did you mean Adam?"]),
    "initials of a flag": (["train", "--lr", "0.1"], ["did you mean --learning_rate?"]),
    "flag of a model without it": (
        ["train", "--latent_dim", "3"],
        ["did you mean --model.latent_dim?"],
    ),
    "part without its model": (["train", "--prior", "VampPrior"], ["did you mean --model.prior?"]),
    "hyphens": (["train", "--batch-size", "3"], ["did you mean --batch_size?"]),
    "nonlinearity without its place": (
        ["train", "--model.activation", "ReLU"],
        ["did you mean torch.nn.ReLU?"],
    ),
    "choice in capitals": (["train", "--binarize", "Dynamic"], ["did you mean dynamic?"]),
    "command with letters exchanged": (["evalaute"], ["did you mean evaluate?"]),
    "unknown word": (["train", "extra"], ["extra", *FLAGS]),
    "unknown flag of evaluate": (["evaluate", "run", "--epochs", "3"], ["--epochs", "--split"]),
    "flag without its value": (["train", "--epochs"], ["--epochs", "expected one argument"]),
    "resume without its value": (["train", "--resume"], ["--resume", "expected one argument"]),
    "word for a number": (["train", "--epochs", "many"], ["--epochs", "int", "'many'"]),
    "fraction for an integer": (["train", "--epochs", "1.5"], ["--epochs", "int", "'1.5'"]),
    "word for a flag of a part": (
        ["train", "--model.likelihood.relaxed", "perhaps"],
        ["--model.likelihood.relaxed", "bool", "'perhaps'"],
    ),
    "number for a list": (["train", "--model.hidden", "3"], ["--model.hidden", "'3'"]),
    "unknown data": (["train", "--data", "mnst"], ["'mnst'", *DATA]),
    "unknown binarization": (
        ["train", "--binarize", "always"],
        ["--binarize", "'always'", "'none'", "'fixed'", "'dynamic'"],
    ),
    "unknown device": (["train", "--device", "tpu"], ["'tpu'", "'auto'", "'cpu'", "'cuda'"]),
    "unknown split": (
        ["evaluate", "run", "--split", "tset"],
        ["'tset'", "'validation'", "'test'"],
    ),
    "unknown model": (
        ["train", "--model", "VEA"],
        ["--model: ", "'VEA'", "FactorAnalysis", "ProbabilisticPCA", "VAE"],
    ),
    "unknown prior": (
        ["train", "--model.prior", "Normale"],
        ["--model.prior: ", "'Normale'", "StandardNormal"],
    ),
    "unknown likelihood": (
        ["train", "--model.likelihood", "Bernuli"],
        ["--model.likelihood: ", "'Bernuli'", "Bernoulli", "Normal"],
    ),
    "unknown scale": (
        ["train", "--model.likelihood", "Normal", "--model.likelihood.scale", "Big"],
        ["--model.likelihood.scale: ", "'Big'", "FixedScale", "LearnedScale", "PredictedScale"],
    ),
    "unknown objective": (["train", "--objective", "ELBA"], ["--objective: ", "'ELBA'", "ELBO"]),
    "unknown optimizer": (
        ["train", "--optimizer", "Adm"],
        ["--optimizer: ", "'Adm'", "Adagrad", "Adam", "SGD"],
    ),
    "unknown schedule": (
        ["train", "--schedule", "Steps"],
        ["--schedule: ", "'Steps'", "MultiStepLR", "ReduceLROnPlateau"],
    ),
    "schedule without what it needs": (
        ["train", "--schedule", "MultiStepLR"],
        ["--schedule: needs --schedule.milestones"],
    ),
    "unknown option of a model": (
        ["train", "--model.latent_dims", "3"],
        ["VAE", "'latent_dims'", "latent_dim, hidden, prior, likelihood, posterior, activation"],
    ),
    "unknown option of a part": (
        ["train", "--model.likelihood.relax", "true"],
        ["Bernoulli", "'relax'", "valid: relaxed"],
    ),
    "unknown option of an optimizer": (
        ["train", "--optimizer.momentum", "0.9"],
        ["Adam", "'momentum'", "betas", "weight_decay"],
    ),
    "module that is not there": (
        ["train", "--model", "nowhere.Model"],
        ["'nowhere'", "run from the folder of nowhere.py", "PYTHONPATH", "VAE"],
    ),
    "name that is not there": (["train", "--model", "aevb.models.VEA"], ["'VEA'", "VAE"]),
    "class of another kind": (
        ["train", "--model.likelihood", "torch.nn.Linear"],
        ["torch.nn.Linear", "Likelihood", "Bernoulli", "Normal"],
    ),
    "number in place of a part": (
        ["train", *BRIEF, "--model.likelihood", "Normal", "--model.likelihood.scale", "0.5"],
        ["--model.likelihood.scale", "'0.5' is no name", "FixedScale"],
    ),
    "impossible size": (["train", *BRIEF, "--model.latent_dim", "0"], ["latent_dim", "got 0"]),
    "impossible batch": (["train", *BRIEF, "--batch_size", "5000"], ["batch_size", "1..1297"]),
    "impossible epochs": (["train", *BRIEF, "--epochs", "0"], ["epochs", "got 0"]),
    "impossible limit": (["train", *BRIEF, "--limit", "0"], ["limit", "got 0"]),
    "impossible samples": (["train", *BRIEF, "--num_samples", "0"], ["num_samples", "got 0"]),
    "impossible prior": (["train", *BRIEF, "--weight_prior_scale", "0"], ["weight_prior_scale"]),
    "impossible number": (["sample", "run", "--num", "0"], ["num", "got 0"]),
    "data outside the support": (
        ["train", *BRIEF, "--binarize", "none"],
        ["Bernoulli needs values in {0, 1}", "binarize='dynamic'", "relaxed=True"],
    ),
    "no such configuration": (["train", "--config", "no.yaml"], ["no.yaml"]),
    "broken configuration": (["train", "--config", "broken.yaml"], ["flow sequence"]),
    "unknown key of a configuration": (
        ["train", "--config", "unknown.yaml"],
        ["--epoks", "did you mean --epochs"],
    ),
    "no such run to resume": (["train", "--resume", "nowhere"], ["--resume", "nowhere"]),
    "no such run to evaluate": (["evaluate", "nowhere"], ["nowhere is no run folder"]),
    "no such run to sample": (["sample", "nowhere"], ["nowhere is no run folder"]),
    "run without a checkpoint": (["evaluate", "empty"], ["no checkpoint at empty"]),
    "run with a broken checkpoint": (["evaluate", "broken"], ["truncated or corrupt checkpoint"]),
    "no run at all": (["evaluate"], ["run"]),
    "existing run": (
        ["train", *BRIEF, "--out", "run"],
        ["run already holds a run", "--resume run"],
    ),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_mistake_is_one_line_that_names_what_is_valid(mistake: str, run: Path, aevb: Any) -> None:
    Path("broken.yaml").write_text("epochs: [1\n")
    Path("unknown.yaml").write_text("epoks: 3\n")
    for folder in ("empty", "broken"):
        Path(folder).mkdir()
        shutil.copy(run / "config.yaml", folder)
    Path("broken", "checkpoint.safetensors").write_bytes(b"nothing")
    words, needed = MISTAKES[mistake]
    result = aevb(*words)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith("aevb: error: ")
    assert [part for part in needed if part not in result.err] == []


def test_refusal_to_overwrite_a_run_changes_nothing(run: Path, aevb: Any) -> None:
    before = snapshot(run)
    assert aevb("train", *BRIEF, "--epochs", 9, "--out", run).code == 2
    assert snapshot(run) == before


def test_mistake_in_the_final_evaluation_is_found_before_training(aevb: Any) -> None:
    aevb("train", *BRIEF, "--limit", 0, "--out", "run")
    assert not Path("run").exists()


def test_divergence_is_one_line_with_step_site_and_checkpoint(aevb: Any) -> None:
    flags = ["--learning_rate", "1e20", "--epochs", 9, "--out", "run"]
    result = aevb("train", *BRIEF, *flags)
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert "loss is not finite at step 2: site 'z' of the guide" in result.err
    assert "last good checkpoint: run/checkpoint.safetensors" in result.err
