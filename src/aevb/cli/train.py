"""Training a model on data, its evaluation and its pictures."""

import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch.distributions import constraints
from torch.optim.lr_scheduler import LRScheduler

from aevb import data as datasets
from aevb import inference
from aevb.cli.evaluate import evaluate
from aevb.cli.runs import CONFIG, PAGE, REPORT, Device, SavedRun, build_model, check, write_record
from aevb.cli.telling import Told, counted, evidence_lines, in_short, next_steps, of_run, rows
from aevb.data import Table
from aevb.inference import ELBO, Objective
from aevb.inference.process.randomness import stream
from aevb.models import VAE, Initializer, LatentVariableModel, Likelihood

__all__ = ["train"]

WEIGHTS = "weights.safetensors"
_DRAWN = 1000  # datapoints, and draws, that a picture of a table is made from

_ALGORITHMS: dict[str, Callable[..., inference.Run]] = {
    "svi": inference.fit,
    "wake-sleep": inference.wake_sleep,
    "mcem": inference.mcem,
}
_NO_GUIDE = "Monte Carlo EM trains no guide to propose by: aevb evaluate RUN --estimator hmc"


def train(
    write_config: Callable[[Path], None],
    data: str = "digits",
    data_root: Path | None = None,
    binarize: Literal["none", "fixed", "dynamic"] = "dynamic",
    data_kind: Literal["auto", "pixels", "counts"] = "auto",
    table: Table = Table(),
    model: Callable[[tuple[int, ...]], LatentVariableModel] = VAE,
    algorithm: Literal["svi", "wake-sleep", "mcem"] = "svi",
    objective: Objective = ELBO(),
    optimizer: Callable[[Any, float], torch.optim.Optimizer] = torch.optim.Adam,
    learning_rate: float = 3e-3,
    schedule: Callable[[torch.optim.Optimizer], LRScheduler] | None = None,
    weight_prior_scale: float | None = None,
    initializer: Initializer | None = None,
    train_on: Literal["train", "train+validation"] = "train",
    num_train: int | None = None,
    validate_on: Literal["validation", "test", "none"] = "validation",
    epochs: int | Literal["auto"] = 200,
    batch_size: int = 100,
    patience: int | None = None,
    log_every: int = 1,
    num_samples: int = 1000,
    limit: int | None = 1000,
    seed: int = 0,
    device: Device = "auto",
    compile: Literal["auto", "eager", "traced", "compiled"] = "auto",
    precision: Literal["float32", "tf32", "bf16"] = "float32",
    out: Path | None = None,
    resume: Path | None = None,
) -> dict[str, Any]:
    """Train a model, evaluate it on the test split, and draw its pictures.

    Args:
        write_config: Writes the resolved configuration to a file.
        data: digits, mnist, fashion-mnist, kmnist, cifar10, svhn, frey-face, or the path of a
            .npy or .npz array, of a .csv, .tsv, .parquet or .h5ad table, or of an image folder.
        data_root: Folder with the data; otherwise AEVB_DATA or the user's cache.
        binarize: none; fixed, drawn once; or dynamic, redrawn at every presentation.
        data_kind: What numbers of a file are: pixels, from 0 to 255; counts; auto goes by their
            type, and takes 8-bit values for counts if the likelihood does.
        table: How a table is read.
        model: A model by name or import path; its parts are flags below it.
        algorithm: svi ascends the objective; wake-sleep trains the guide on what the model
            dreams; mcem is Monte Carlo EM by HMC, which trains no guide.
        objective: Bound to maximize by svi.
        optimizer: Any class of torch.optim.
        learning_rate: Initial step size.
        schedule: Any class of torch.optim.lr_scheduler, stepped once an epoch.
        weight_prior_scale: Scale of a Gaussian prior over the model's weights (1 in AEVB).
        initializer: Where weights start; null leaves that to torch's layers.
        train_on: The training split, or with the validation split joined to it.
        num_train: Train on so many datapoints, the first ones; null for all.
        validate_on: Where the ELBO is watched; early stopping needs the validation split.
        epochs: Passes over the training split, in all; auto stops when the bound has converged.
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
    dataset = datasets.load(
        data, root=data_root, binarize=binarize, seed=seed, kind=data_kind, table=table
    )
    with stream(seed, "weights", torch.device("cpu")):
        built, dataset = build_model(model, dataset)
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
    if algorithm != "svi" and objective != ELBO():
        raise ValueError(f"objective: is for --algorithm svi; {algorithm} has none to choose")
    if algorithm == "mcem":
        watched = None  # no guide is trained, whose bound could be watched
    run = _ALGORITHMS[algorithm](
        built,
        training,
        **({"objective": objective} if algorithm == "svi" else {}),
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
        _set_reports_aside(folder, before[1])
    summary = {
        "run": str(folder),
        "epochs": run.epoch,
        "steps": run.step,
        "stopped": run.stopped,
        "level": run.level,
        "seconds": round(run.seconds, 1),
    }
    if run.rise is not None:
        summary["rise"] = run.rise.expected
        summary["rise_standard_error"] = run.rise.standard_error
    if run.stopped.startswith("SIG"):
        return Told(summary, _interrupted(run, folder, epochs))
    _save_weights(folder, built)
    saved = SavedRun(folder, built.eval(), dataset, run.epoch, target, seed, run.history)
    try:
        if algorithm == "mcem":
            raise inference.NoDensityError(_NO_GUIDE)
        figures = evaluate(saved, num_samples, limit=limit)
    except inference.NoDensityError as error:
        figures = {"evidence": None, "why": str(error)}  # an ordinary autoencoder
    _draw(saved, run.history)
    return Told({**summary, **figures}, _told(saved, training, summary, figures))


def _told(
    saved: SavedRun,
    training: datasets.Split,
    summary: dict[str, Any],
    figures: dict[str, Any],
) -> str:
    """What was trained on what, how good it is, where its pictures are and what comes next."""
    folder, shape = saved.folder, "×".join(map(str, saved.dataset.shape))
    data = f"{counted(len(training), 'datapoint')} of {saved.dataset.name} ({shape}"
    data += f", binarized {training.binarize})" if training.binarize != "none" else ")"
    how = {"finished": "", "patience": ", stopped early", "converged": ", until it converged"}
    length = f"{counted(summary['epochs'], 'epoch')} in {summary['seconds']:.1f} s"
    known, trusted = of_run(folder), figures.get("verdict") == "trusted"
    steps = ["compare", "sample", "embed"] if trusted else ["posterior", "evaluate", "compare"]
    if "verdict" not in figures:
        steps = ["sample", "embed"]
    return "\n".join(
        [
            f"{in_short(saved.model)}, trained on {data}: {length}"
            + how.get(summary["stopped"], ""),
            "",
            rows({**evidence_lines(figures), "pictures": str(folder / PAGE)}),
            "",
            next_steps([known[name] for name in steps]),
        ]
    )


def _interrupted(run: inference.Run, folder: Path, epochs: int | str) -> str:
    of = f" of {epochs:,}" if isinstance(epochs, int) else ""
    return (
        f"interrupted in epoch {run.epoch + 1:,}{of}, after {counted(run.step, 'step')}\n"
        f"resume it with: aevb train --resume {folder}"
    )


def _progress(folder: Path) -> tuple[int, int]:
    """Steps and recorded epochs of the run in a folder, 0 if there is none."""
    path = folder / inference.CHECKPOINT
    if not path.exists():
        return 0, 0
    state = inference.load_checkpoint(path)
    rows = state["history"]
    return state["counters"]["step"], rows[-1]["epoch"] if rows else 0


def _set_reports_aside(folder: Path, epoch: int) -> None:
    """Rename the report on the weights of an epoch, which training has changed since."""
    for name in REPORT:
        path = folder / name
        if path.exists():
            path.replace(path.with_name(f"{path.stem}-epoch{epoch}{path.suffix}"))


def _save_weights(folder: Path, model: torch.nn.Module) -> None:
    """Write the weights alone, for other programs to load."""
    # cloned, because safetensors refuses weights that share memory
    tensors = {name: value.contiguous().clone() for name, value in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)


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
    if num_train is not None and not 1 <= num_train <= len(training):
        raise ValueError(
            f"num_train: must be from 1 to {len(training):,}, all there are; got {num_train}"
        )
    watched = {"validation": dataset.validation, "test": dataset.test, "none": None}[validate_on]
    return training.first(num_train), watched if watched is not None and len(watched) else None


def _draw(saved: SavedRun, history: list[dict[str, Any]]) -> None:
    """The pictures of a run."""
    from aevb import evaluation  # with matplotlib, which training does not need

    folder, model, dataset = saved.folder, saved.at_means, saved.dataset
    what = f"{type(model).__name__} on {dataset.name}"
    evaluation.training_curve(history, folder / "loss.png", title=f"Training: {what}")
    x = saved.values("test", 40)
    means = evaluation.reconstructions(model.model, model.guide, x)
    if x.ndim == 2:  # a table
        data = dataset.test.evaluation(_DRAWN)
        draws = evaluation.prior_samples(model.model, _DRAWN)
        evaluation.table_plot(
            data,
            draws,
            folder / "samples.png",
            dataset.columns,
            title=f"Test data and draws: {what}",
        )
        evaluation.reconstruction_plot(x, means, folder / "reconstructions.png")
        return
    samples = evaluation.prior_means(model.model, 64)
    evaluation.image_grid(samples, folder / "samples.png", 8, "E[x|z], z from the prior")
    pairs = torch.stack([x, means], dim=1)
    evaluation.image_grid(
        pairs.flatten(0, 1), folder / "reconstructions.png", 10, "test data and reconstructions"
    )
    if getattr(model, "latent_dim", None) == 2:
        plane = evaluation.latent_manifold(model.model)
        evaluation.manifold_plot(plane, folder / "manifold.png", title=f"E[x|z]: {what}")


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
