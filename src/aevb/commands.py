"""What the commands do."""

import math
import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import torch
from torch.distributions import constraints
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from aevb import data as datasets
from aevb import evaluation, inference
from aevb import sweep as sweeps
from aevb.embeddings import embed_split
from aevb.estimates import Estimator, Schedule, check, estimate, plain, weights_record
from aevb.imputations import Pattern, impute_split
from aevb.inference import ELBO, Objective
from aevb.models import VAE, Initializer, LatentVariableModel, Likelihood
from aevb.parts import FAMILIES
from aevb.parts import parts as list_parts
from aevb.runs import (
    CONFIG,
    PICTURES,
    SavedRun,
    build_model,
    destination,
    open_run,
    save_weights,
    set_reports_aside,
    write_record,
    write_text,
)
from aevb.trials import try_posterior

__all__ = ["compare", "embed", "evaluate", "impute", "parts", "sample", "sweep", "train"]

Reopen = Callable[[Path], Any]


def train(
    write_config: Callable[[Path], None],
    data: str = "digits",
    data_root: Path | None = None,
    binarize: Literal["none", "fixed", "dynamic"] = "dynamic",
    model: Callable[[tuple[int, ...]], LatentVariableModel] = VAE,
    objective: Objective = ELBO(),
    optimizer: Callable[[Any, float], torch.optim.Optimizer] = torch.optim.Adam,
    learning_rate: float = 3e-3,
    schedule: Callable[[torch.optim.Optimizer], LRScheduler] | None = None,
    weight_prior_scale: float | None = None,
    initializer: Initializer | None = None,
    train_on: Literal["train", "train+validation"] = "train",
    num_train: int | None = None,
    validate_on: Literal["validation", "test", "none"] = "validation",
    epochs: int = 200,
    batch_size: int = 100,
    patience: int | None = None,
    log_every: int = 1,
    num_samples: int = 1000,
    limit: int | None = 1000,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    compile: Literal["auto", "eager", "traced", "compiled"] = "auto",
    precision: Literal["float32", "tf32", "bf16"] = "float32",
    out: Path | None = None,
    resume: Path | None = None,
) -> dict[str, Any]:
    """Train a model, evaluate it on the test split, and draw its pictures.

    Args:
        write_config: Writes the resolved configuration to a file.
        data: digits, mnist, fashion-mnist, kmnist, cifar10, svhn, frey-face, or the path of a
            .npy or .npz array or of an image folder.
        data_root: Folder with the data; otherwise AEVB_DATA or the user's cache.
        binarize: none; fixed, drawn once; or dynamic, redrawn at every presentation.
        model: A model by name or import path; its parts are flags below it.
        objective: Bound to maximize.
        optimizer: Any class of torch.optim.
        learning_rate: Initial step size.
        schedule: Any class of torch.optim.lr_scheduler, stepped once an epoch.
        weight_prior_scale: Scale of a Gaussian prior over the model's weights (1 in AEVB).
        initializer: Where weights start; null leaves that to torch's layers.
        train_on: The training split, or with the validation split joined to it.
        num_train: Train on so many datapoints, the first ones; null for all.
        validate_on: Where the ELBO is watched; early stopping needs the validation split.
        epochs: Passes over the training split, in all.
        batch_size: Datapoints of a minibatch.
        patience: Stop after so many validations without a better one; keep the best weights.
        log_every: Epochs between rows of metrics.
        num_samples: Importance samples of the final evaluation.
        limit: Test datapoints of the final evaluation; null for all.
        seed: Of everything random.
        device: Where to compute; auto takes CUDA where there is one.
        compile: How training steps are made; auto makes a graph if the work ahead repays it.
        precision: Of matrix products; all else stays in float32.
        out: Run folder; by default runs/DATA-TIME.
        resume: Continue the run in this folder, with its configuration.

    Returns:
        The final evaluation.
    """
    target = inference.pick_device(device)
    check(num_samples=num_samples, limit=limit)  # now, and not when the training is done
    dataset = datasets.load(data, root=data_root, binarize=binarize, seed=seed)
    torch.manual_seed(seed)
    built = build_model(model, dataset)
    training, watched = _splits(dataset, train_on, num_train, validate_on, patience)
    if initializer is not None:
        initializer(built, training.evaluation().mean(0))
    _warn_of_binary_data(built, dataset)
    folder = resume or out or Path("runs") / f"{Path(data).stem}-{datetime.now():%Y%m%d-%H%M%S}"
    if resume is None and (folder / inference.CHECKPOINT).exists():
        raise ValueError(f"out: {folder} already holds a run; continue it with --resume {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder / CONFIG)
    write_record(folder, dataset, target)
    before = _progress(folder)
    run = inference.fit(
        built,
        training,
        objective=objective,
        optimizer=lambda parameters, lr: optimizer(parameters, lr),
        learning_rate=learning_rate,
        schedule=schedule,
        weight_prior_scale=weight_prior_scale,
        epochs=epochs,
        batch_size=batch_size,
        validation=watched,
        patience=patience,
        seed=seed,
        device=target,
        out=folder,
        resume=True,
        compile=compile,
        precision=precision,
        log_every=log_every,
    )
    if run.step > before[0]:
        set_reports_aside(folder, before[1])
    summary = {
        "run": str(folder),
        "epochs": run.epoch,
        "steps": run.step,
        "stopped": run.stopped,
        "level": run.level,
        "seconds": round(run.seconds, 1),
    }
    if run.stopped.startswith("SIG"):
        return summary
    save_weights(folder, built)
    saved = SavedRun(folder, None, built.eval(), dataset, run.epoch, run.stopped)
    try:
        figures = estimate(saved, "test", num_samples, limit, seed, target)
    except inference.NoDensityError as error:
        figures = {"evidence": None, "why": str(error)}  # an ordinary autoencoder
    _draw(saved, run.history, target)
    return {**summary, **figures}


def evaluate(
    run: Path,
    reopen: Reopen,
    num_samples: int | None = None,
    split: Literal["train", "validation", "test"] = "test",
    limit: int | None = None,
    estimator: Estimator = "importance",
    num_chains: int = 16,
    num_temperatures: int = 1000,
    schedule: Schedule = "sigmoid",
    start: Literal["prior", "guide"] = "guide",
    chain_batch_size: int | None = None,
    curve: bool = False,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    data_root: Path | None = None,
) -> dict[str, Any]:
    """Estimate the evidence of a trained model.

    Args:
        run: Run folder.
        reopen: Reads the configuration of a run folder.
        num_samples: Importance samples for each datapoint, 5,000 by default; for hmc draws of each
            chain, 500 by default.
        split: train, validation or test; of bdmc only the number of datapoints is taken.
        limit: Only the first so many datapoints.
        estimator: importance; ais, annealing; bdmc, bounds from both sides on simulated data; or
            hmc, posterior draws (AEVB, appendix D).
        num_chains: Chains of each datapoint, for all but importance.
        num_temperatures: Steps of annealing.
        schedule: How temperatures lie: sigmoid, linear or adaptive.
        start: Where annealing starts: prior or guide.
        chain_batch_size: Chains evaluated at once, to bound the memory.
        curve: Also the importance bound against its number of samples, with a picture.
        seed: Of the draws.
        device: Where to compute.
        data_root: Folder with the data, if it has moved.

    Returns:
        Means in nats per datapoint, with their errors and settings.
    """
    if num_samples is None:
        num_samples = 500 if estimator == "hmc" else 5000
    target = inference.pick_device(device)
    saved = open_run(run, reopen(run), data_root, target)
    return estimate(
        saved, split, num_samples, limit, seed, target, estimator, num_chains, num_temperatures,
        schedule, start, chain_batch_size, curve,
    )  # fmt: skip


def compare(
    run: Path,
    reopen: Reopen,
    datapoints: int = 64,
    split: Literal["train", "validation", "test"] = "test",
    num_chains: int = 16,
    num_samples: int = 500,
    num_warmup: int = 500,
    num_importance_samples: int = 2000,
    num_temperatures: int = 200,
    max_steps: int = 5000,
    num_simulations: int = 1000,
    num_replications: int = 1000,
    population: int | None = 1000,
    chain_batch_size: int | None = None,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    data_root: Path | None = None,
) -> dict[str, Any]:
    """Put the posterior of a run on trial: chains, gaps, calibration and predictive checks.

    Args:
        run: Run folder; report.html, report.json and draws.nc are written into it.
        reopen: Reads the configuration of a run folder.
        datapoints: The first so many of the split.
        split: train, validation or test.
        num_chains: Chains of each datapoint.
        num_samples: Draws that each chain keeps.
        num_warmup: Iterations before.
        num_importance_samples: Of each importance estimate.
        num_temperatures: Of annealing from the refined posterior; 0 for none.
        max_steps: Of refinement.
        num_simulations: Datapoints simulated from the model for calibration; 0 for none.
        num_replications: Of each datapoint for predictive checks; 0 for none.
        population: The first so many of the split for active units and KL; null for all.
        chain_batch_size: Chains evaluated at once, to bound the memory.
        seed: Of everything random.
        device: Where to compute.
        data_root: Folder with the data, if it has moved.

    Returns:
        The verdict and the figures behind it.
    """
    target = inference.pick_device(device)
    saved = open_run(run, reopen(run), data_root, target)
    return try_posterior(
        saved, split, datapoints, population, seed, target,
        num_chains=num_chains, num_samples=num_samples, num_warmup=num_warmup,
        num_importance_samples=num_importance_samples, num_temperatures=num_temperatures,
        max_steps=max_steps, num_simulations=num_simulations,
        num_replications=num_replications, chain_batch_size=chain_batch_size,
    )  # fmt: skip


def embed(
    run: Path,
    reopen: Reopen,
    split: Literal["train", "validation", "test"] = "test",
    limit: int | None = None,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    data_root: Path | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Embed a split: posterior means and scales, active units, and the KL of each latent.

    Args:
        run: Run folder.
        reopen: Reads the configuration of a run folder.
        split: train, validation or test.
        limit: Only the first so many datapoints.
        seed: Of Monte Carlo, where there is no closed form.
        device: Where to compute.
        data_root: Folder with the data, if it has moved.
        out: Array to write, .npz; a picture goes beside it. By default in the run.

    Returns:
        Figures, and the files written.
    """
    target = inference.pick_device(device)
    saved = open_run(run, reopen(run), data_root, target)
    return embed_split(saved, split, limit, seed, target, out)


def impute(
    run: Path,
    reopen: Reopen,
    missing: float = 0.6,
    pattern: Pattern = "random",
    datapoints: int = 64,
    split: Literal["train", "validation", "test"] = "test",
    num_steps: int = 100,
    num_chains: int = 4,
    num_samples: int = 300,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    data_root: Path | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Hide values and fill them in: by the DLGM paper's Markov chain, and by HMC.

    Args:
        run: Run folder.
        reopen: Reads the configuration of a run folder.
        missing: Share of the values that is hidden.
        pattern: random, or square: one in the middle.
        datapoints: The first so many of the split.
        split: train, validation or test.
        num_steps: Of the Markov chain, whose second half counts.
        num_chains: Of both methods, for each datapoint.
        num_samples: Draws, and warm-up, of each chain of HMC; 0 for none.
        seed: Of everything random.
        device: Where to compute.
        data_root: Folder with the data, if it has moved.
        out: Picture to write, .png. By default in the run.

    Returns:
        Errors over the hidden values, and the picture.
    """
    target = inference.pick_device(device)
    saved = open_run(run, reopen(run), data_root, target)
    return impute_split(
        saved, split, missing, pattern, datapoints, num_steps, num_chains, num_samples, seed,
        target, out,
    )  # fmt: skip


def sample(
    run: Path,
    reopen: Reopen,
    num: int = 64,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    data_root: Path | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Draw from the model: a picture of E[x|z] at z from the prior, and the array of it.

    Args:
        run: Run folder.
        reopen: Reads the configuration of a run folder.
        num: Number of draws.
        seed: Of the draws.
        device: Where to compute.
        data_root: Folder with the data, if it has moved.
        out: Picture to write, .png; the array goes beside it as .npy. By default in the run.

    Returns:
        The files written.
    """
    if num < 1:
        raise ValueError(f"num: must be at least 1; got {num}")
    target = inference.pick_device(device)
    saved = open_run(run, reopen(run), data_root, target)
    picture = destination(out or run / f"samples-{num}-seed{seed}.png", *PICTURES)
    torch.manual_seed(seed)
    means = evaluation.prior_means(plain(saved.model).model, num).cpu()
    evaluation.image_grid(means, picture, _columns(num), f"{num} samples, seed {seed}")
    array = picture.with_suffix(".npy")
    _save_array(array, means)
    return {
        "run": str(run),
        "num": num,
        **weights_record(saved),
        "seed": seed,
        "picture": str(picture),
        "array": str(array),
    }


def parts(family: str | None = None) -> list[dict[str, str]]:
    """List every part: its family, one line on it, its parameters and its source.

    Args:
        family: One of model, prior, likelihood, posterior, network, input_noise, weights, scale
            or objective; by default all.

    Returns:
        A row for each part.
    """
    if family is not None and family not in FAMILIES:
        raise ValueError(f"family: unknown name {family!r}; valid: {', '.join(FAMILIES)}")
    return [row for row in list_parts() if family in (None, row["family"])]


def sweep(quick: bool = False, seed: int = 0, out: Path | None = None) -> dict[str, Any]:
    """Try every prior with every likelihood, posterior and objective, three steps each.

    Args:
        quick: Only so many that any two parts meet: seconds in place of a quarter of an hour.
        seed: Of data, weights and draws.
        out: Table to write, .md.

    Returns:
        The table, and how many combinations train, are refused and fail.
    """
    if out is not None:
        out = destination(out, ".md")
    chosen = sweeps.covering() if quick else list(sweeps.combinations())
    outcomes = [sweeps.examine(parts, seed) for parts in tqdm(chosen, leave=False)]
    table = sweeps.summary(outcomes)
    if out is not None:
        write_text(out, f"# Every combination of parts\n\n{table}\n")
    verdicts = [outcome.verdict for outcome in outcomes]
    counts = {verdict: verdicts.count(verdict) for verdict in ("trains", "refused", "fails")}
    return {"table": table, **counts, "seed": seed}


def _progress(folder: Path) -> tuple[int, int]:
    """Steps and recorded epochs of the run in a folder, 0 if there is none."""
    path = folder / inference.CHECKPOINT
    if not path.exists():
        return 0, 0
    state = inference.load_checkpoint(path)
    rows = state["history"]
    return state["counters"]["step"], rows[-1]["epoch"] if rows else 0


def _splits(
    dataset: datasets.Dataset,
    train_on: str,
    num_train: int | None,
    validate_on: str,
    patience: int | None,
) -> tuple[datasets.Split, datasets.Split | None]:
    """What is trained on, and what is watched meanwhile."""
    training = dataset.train
    if train_on == "train+validation":
        if validate_on == "validation":
            raise ValueError("validate_on: is trained on; use --validate_on test or none")
        training = training.joined(dataset.validation)
    if validate_on == "test" and patience is not None:
        raise ValueError("patience: would choose the weights by the test split")
    watched = {"validation": dataset.validation, "test": dataset.test, "none": None}[validate_on]
    return training.first(num_train), watched if watched is not None and len(watched) else None


def _draw(saved: SavedRun, history: list[dict[str, Any]], device: torch.device) -> None:
    """The pictures of a run."""
    folder, model = saved.folder, plain(saved.model)
    evaluation.training_curve(history, folder / "loss.png")
    torch.manual_seed(0)
    samples = evaluation.prior_means(model.model, 64)
    evaluation.image_grid(samples, folder / "samples.png", 8, "E[x|z], z from the prior")
    x = saved.dataset.test.evaluation(40).to(device)
    pairs = torch.stack([x, evaluation.reconstructions(model.model, model.guide, x)], dim=1)
    evaluation.image_grid(
        pairs.flatten(0, 1), folder / "reconstructions.png", 10, "test data and reconstructions"
    )
    if getattr(model, "latent_dim", None) == 2:
        plane = evaluation.latent_manifold(model.model)
        evaluation.image_grid(plane, folder / "manifold.png", 20, "E[x|z] over the latent plane")


def _columns(num: int) -> int:
    return max(1, math.isqrt(num))


def _save_array(path: Path, values: torch.Tensor) -> None:
    import numpy as np

    np.save(path, values.numpy(), allow_pickle=False)


def _warn_of_binary_data(model: LatentVariableModel, dataset: datasets.Dataset) -> None:
    """Say that a density of values that are only 0 and 1 has no upper bound."""
    likelihoods = [part for part in getattr(model, "parts", ()) if isinstance(part, Likelihood)]
    if dataset.train.binarize == "none" or not likelihoods:
        return
    if likelihoods[0].support is constraints.real:
        name = type(likelihoods[0]).__name__
        warnings.warn(
            f"{name}: a density of numbers that binarization has made 0 or 1 grows without bound "
            "as its scale shrinks: use Bernoulli, or --binarize none",
            stacklevel=2,
        )
