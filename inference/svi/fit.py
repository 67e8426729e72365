"""Stochastic variational inference of any Pyro program pair."""

from pathlib import Path
from typing import Literal

import torch
from pyro.infer.elbo import ELBO as Estimator

from aevb.data.seeds import fresh_if_none
from aevb.inference.process import randomness
from aevb.inference.process.devices import pick_device
from aevb.inference.process.limits import refuse_below
from aevb.inference.process.precision import PRECISIONS
from aevb.inference.programs.protocol import ProgramPair, as_module
from aevb.inference.svi.checkpoint import load_checkpoint
from aevb.inference.svi.feeds import Data, Feed
from aevb.inference.svi.objectives import ELBO, Objective
from aevb.inference.svi.preparation import prepare_training
from aevb.inference.svi.pyro_loss import as_objective
from aevb.inference.svi.run import Run
from aevb.inference.svi.steps import check_level
from aevb.inference.svi.stopping import UntilConverged
from aevb.inference.svi.training import CHECKPOINT, Optimizer, Schedule, Training

__all__ = ["fit"]


def fit(
    program: ProgramPair,
    data: Data | Feed,
    *,
    objective: Objective | Estimator = ELBO(),
    optimizer: Optimizer = torch.optim.Adam,
    learning_rate: float = 1e-3,
    schedule: Schedule | None = None,
    weight_prior_scale: float | None = None,
    epochs: int | Literal["auto"] | None = None,
    steps: int | Literal["auto"] | UntilConverged | None = None,
    batch_size: int | None = None,
    validation: Data | None = None,
    patience: int | None = None,
    seed: int | None = 0,
    device: str | torch.device = "auto",
    out: str | Path | None = None,
    resume: bool = False,
    compile: str = "auto",
    precision: str = "float32",
    log_every: int | None = None,
    checkpoint_seconds: float = 30.0,
    progress: bool | None = None,
) -> Run:
    r"""Train a model and its guide by stochastic variational inference.

    Each step draws a minibatch of M datapoints and ascends the estimated bound per datapoint,

    .. math:: \tfrac1M \sum_i \widetilde{\mathcal L}(\theta, \phi; x_i)
        + \tfrac1N \log \mathcal{N}(\theta; 0, s^2 I),

    in which what a minibatch holds is scaled by N/M, and the sum divided by N, where latents of
    all datapoints share the program with it. The second term is there only with
    ``weight_prior_scale`` s: the maximum a posteriori estimate of the generative weights θ, those
    that the model announces to Pyro; s = 1 in the AEVB paper, and s² = κ in the DLGM paper. The
    guide's own weights φ have no prior.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), algorithm 1 and section 5,
        https://arxiv.org/abs/1312.6114; Stochastic Backpropagation and Approximate Inference in
        Deep Generative Models (Rezende, Mohamed & Wierstra, 2014), equation 6,
        https://arxiv.org/abs/1401.4082

    Args:
        program: One of our models, or ``Program(model, guide)``; it is trained in place and left
            in evaluation mode.
        data: A split, a tensor whose rows are datapoints, the tuple of the programs' arguments, or
            a dictionary of keyword arguments; an argument may be a list, tuple or dictionary of
            tensors.
        objective: Bound to maximize, or a loss of ``pyro.infer``.
        optimizer: Called with the parameters and ``lr=learning_rate``; any ``torch.optim`` class.
        learning_rate: Initial step size.
        schedule: Called with the optimizer; its ``step`` runs once per epoch (with the validation
            ELBO for ``ReduceLROnPlateau``).
        weight_prior_scale: Standard deviation s of a Gaussian prior over the model's parameters.
        epochs: Passes over the data to make in all, or ``"auto"``, as for ``steps``.
        steps: Steps to make in all, in place of ``epochs``; or ``"auto"``, until the bound has
            converged, which is :class:`UntilConverged` with its defaults.
        batch_size: Datapoints of a minibatch; None gives the programs all data at every step.
            Beside latents of all datapoints, as the weights of a regression, what lies in a plate
            as long as the minibatch is scaled to the whole data, unless the program does so.
        validation: Data for the validation ELBO (one draw per datapoint, the same at every epoch).
        patience: Stop after so many validations without a better one, with the best weights.
        seed: Of everything random in training; None draws one afresh, or takes that of the run to
            be resumed, and ``run.seed`` says which. Torch's global state outside is left as it
            was. The programs run once before the first step, so that subsamples and draws are
            others than ``pyro.infer.SVI`` makes of the same seed; from equal states the steps are
            equal.
        device: ``"auto"`` takes CUDA where there is one.
        out: Run folder for metrics and checkpoints; None writes nothing.
        resume: Continue from the checkpoint in ``out``, if there is one, to the last bit on a CPU.
        compile: How steps are made: ``"eager"`` as Pyro runs them, ``"traced"`` as one graph of
            tensor operations, ``"compiled"`` as that graph through inductor, or ``"auto"``, which
            makes a graph when the work ahead repays it. Programs that have no graph run eagerly,
            with a warning. Levels agree to rounding, and checkpoints fit all of them; a resumed
            run is exact to the last bit if both parts are made at the same level, as ``"auto"``
            does unless the work ahead has become another.
        precision: Of matrix products: ``"float32"``, or ``"tf32"`` or ``"bf16"``, with all else
            in float32.
        log_every: Epochs between rows of metrics (and validations); by default 1, or 100 without
            minibatches.
        checkpoint_seconds: Time between checkpoints; one is always written at the end.
        progress: Show a progress bar; by default in notebooks and on a terminal.

    Returns:
        The finished or interrupted :class:`Run`. SIGINT and SIGTERM end training after the current
        step, with a checkpoint written.

    Raises:
        ValueError: If an argument or the data do not fit the program, or the checkpoint belongs
            to other settings.
        NonFiniteLossError: At the first NaN or infinite loss, before the step is applied.

    Example:
        >>> import torch
        >>> from aevb import inference, models
        >>> x = torch.randn(100, 5)
        >>> run = inference.fit(models.FactorAnalysis((5,), 2), x, epochs=3, batch_size=50)
        >>> run.epoch, run.step, run.stopped
        (3, 6, 'finished')
    """
    if (epochs is None) == (steps is None):
        raise ValueError(f"give either epochs or steps; got epochs={epochs}, steps={steps}")
    until = steps if isinstance(steps, UntilConverged) else None
    if "auto" in (epochs, steps):
        until = UntilConverged()
    last_epoch = None if until is not None else _number("epochs", epochs)
    last_step = None if until is not None else _number("steps", steps)
    refuse_below(1, epochs=last_epoch, steps=last_step, patience=patience, log_every=log_every)
    if patience is not None and validation is None:
        raise ValueError("patience: early stopping needs validation data; got validation=None")
    if resume and out is None:
        raise ValueError("resume: needs the run folder out; got out=None")
    check_level(compile)
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}; got {precision!r}")
    module = as_module(program)
    target = pick_device(device)
    folder = None if out is None else Path(out)
    if seed is None:
        seed = fresh_if_none(_seed_to_resume(folder) if resume else None)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    objective = as_objective(objective)
    with randomness.stream(seed, "fit", target):
        module.to(target).eval()  # while prepared, lest batch statistics count it as training
        feed = data if isinstance(data, Feed) else Feed(data, batch_size, seed, target)
        loss, reading = prepare_training(
            module, feed, validation, objective, weight_prior_scale, precision, seed
        )
        module.train()
        made = optimizer(loss.parameters, lr=learning_rate)
        scheduled = None if schedule is None else schedule(made)
        if folder is not None and scheduled is not None and not hasattr(scheduled, "state_dict"):
            raise ValueError(
                f"schedule: {type(scheduled).__name__} has no state_dict, so that a run in a "
                "folder could not be resumed; give it one, or no folder"
            )
        settings = {
            "objective": repr(objective),
            "optimizer": type(made).__name__,
            "learning_rate": learning_rate,
            "precision": precision,
            "schedule": type(scheduled).__name__,
            "batch_size": batch_size,
            "num_datapoints": feed.num_datapoints,
            "weight_prior_scale": weight_prior_scale,
            "seed": seed,
            "parameters": {name: list(p.shape) for name, p in module.named_parameters()},
        }
        training = Training(
            loss, reading, feed, made, scheduled, settings, compile, validation=validation,
            patience=patience, folder=folder, resume=resume,
            log_every=log_every or (1 if batch_size else 100), until=until,
        )  # fmt: skip
        run = training.run(last_epoch, last_step, checkpoint_seconds, progress)
        module.eval()
        return run


def _seed_to_resume(folder: Path | None) -> int | None:
    path = None if folder is None else folder / CHECKPOINT
    if path is None or not path.exists():
        return None
    seed: int | None = load_checkpoint(path)["settings"].get("seed")
    return seed


def _number(name: str, given: int | str | UntilConverged | None) -> int | None:
    """What is a number or nothing, and no other word."""
    if isinstance(given, str | UntilConverged):
        raise ValueError(f"{name}: expected a number or 'auto'; got {given!r}")
    return given
