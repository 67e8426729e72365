"""One training run in progress: steps, rows of metrics, patience, checkpoints."""

import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aevb.inference.graphs.python_watch import PythonWatch
from aevb.inference.process.interrupts import Interrupts
from aevb.inference.process.precision import tf32_products
from aevb.inference.process.progress import progress_bar
from aevb.inference.svi.checkpoint import save_checkpoint
from aevb.inference.svi.diagnosis import FailureSearch
from aevb.inference.svi.feeds import Data, Feed
from aevb.inference.svi.loss import StepLoss
from aevb.inference.svi.metrics import MetricsLog, summary, validated
from aevb.inference.svi.preparation import Reading
from aevb.inference.svi.run import Run
from aevb.inference.svi.run_state import Progress, RunState
from aevb.inference.svi.steps import EagerStep, Stepper
from aevb.inference.svi.stopping import BoundWatch, UntilConverged
from aevb.inference.svi.validation import mean_elbo

__all__ = ["CHECKPOINT", "Optimizer", "Schedule", "Training"]

CHECKPOINT = "checkpoint.safetensors"

# How long steps go on before signals, progress and the loss are looked at, on a CPU and on a GPU.
_BURST_SECONDS = (0.05, 0.25)

# What a graph is to repay where nobody knows how many steps there will be.
_ASSUMED_STEPS = 10_000

Optimizer = Callable[..., torch.optim.Optimizer]
Schedule = Callable[[torch.optim.Optimizer], Any]


class Training:
    """One run in progress; what changes is in its :class:`RunState`.

    Raises:
        ValueError: If the folder holds a run that is not to be resumed, or another run.
    """

    def __init__(
        self, loss: StepLoss, reading: Reading, feed: Feed, optimizer: torch.optim.Optimizer,
        schedule: Any, settings: dict[str, Any], level: str, *, validation: Data | None,
        patience: int | None, folder: Path | None, resume: bool, log_every: int,
        until: UntilConverged | None = None,
    ) -> None:  # fmt: skip
        self.loss, self.feed, self.optimizer, self.schedule = loss, feed, optimizer, schedule
        self.validation, self.patience, self.log_every = validation, patience, log_every
        self.folder = folder
        # which may change the program as well
        self.schedule_is_users = PythonWatch(schedule=schedule).reaches_user_code
        self.is_point = reading.is_point
        counted = feed.batch_size is not None or reading.plate is not None
        self.unit = "nats per datapoint" if counted else "nats"
        self.checkpoint = None if folder is None else folder / CHECKPOINT
        self.progress = Progress()
        self.failures = FailureSearch(loss, self.progress, feed.device, self.checkpoint)
        step = loss.step(optimizer)
        eager = EagerStep(step, self.failures.refuse)
        self.stepper = Stepper(step, eager, level, feed.device, reading.refusal)
        self.watch = None if until is None else _watch(until, feed, loss)
        self.state = RunState(
            loss, optimizer, schedule, feed, self.stepper, self.progress, [], settings, self.watch
        )
        self.step_seconds = 1.0  # a guess until the first step is measured
        if self.checkpoint is not None and self.checkpoint.exists():
            if not resume:
                raise ValueError(
                    f"out: {folder} already holds a run; resume it or choose another folder"
                )
            self.state.load(self.checkpoint)
        self.log = MetricsLog(folder, self.state.history)
        if folder is not None and not self.state.history:
            self.save()

    def run(
        self, epochs: int | None, steps: int | None, interval: float, show: bool | None
    ) -> Run:
        """Make steps until the work, the patience or the user's is at an end."""
        progress = self.progress
        if progress.stopped != "patience" or progress.rows_since_best < (
            self.patience or math.inf
        ):
            progress.stopped = None
        goal = steps if steps is not None else (epochs or 0) * self.feed.steps_per_epoch
        if self.watch is not None:
            goal = self.watch.max_steps
            progress.stopped = "converged" if self.watch.stopped else progress.stopped
        saved = time.monotonic()
        with (
            progress_bar(goal, "step", progress.step, show, delay=0.0, on_terminal=True) as bar,
            Interrupts() as interrupts,
            tf32_products(self.state.settings["precision"] == "tf32"),
            warnings.catch_warnings(),
        ):
            # Pyro warns of what is raised here as an error with more to say
            warnings.filterwarnings("ignore", "Encountered (NaN|[+-]?inf)", UserWarning)
            while progress.stopped is None:
                if progress.step >= goal:
                    progress.stopped = "finished"
                    break
                if self.burst(goal, interval, interrupts):
                    self.end_epoch()
                    if self.log.history:
                        row = self.log.history[-1]
                        of = f"/{epochs:,}" if epochs else ""
                        bar.set_description_str(f"epoch {row['epoch']:,}{of}", refresh=False)
                        bar.set_postfix_str(summary(row, self.unit), refresh=False)
                bar.update(progress.step - bar.n)
                if interrupts.requested is not None:
                    progress.stopped = progress.stopped or interrupts.requested.name
                if time.monotonic() - saved > interval:
                    self.save()
                    self.failures.forget()
                    saved = time.monotonic()
        return self.finish()

    def burst(self, goal: int, interval: float, interrupts: Interrupts) -> bool:
        """Steps without a pause, up to what has to be done between two of them.

        On a GPU nothing in the loop waits for the device.

        Returns:
            Whether the last step completed an epoch.
        """
        progress, stepper, device = self.progress, self.stepper, self.feed.device
        start, first = time.perf_counter(), progress.step
        pause = min(interval, _BURST_SECONDS[device.type == "cuda"])
        last = min(goal, first + max(1, int(pause / self.step_seconds)))
        if self.watch is not None:
            last = min(last, first + self.watch.steps_to_look)
            goal = min(goal, max(_ASSUMED_STEPS, last))
        bounds: list[Tensor] = []
        counts: list[float] = []
        at_epoch_end = False
        stepper.look_at_python(progress.step)
        while progress.step < last and not at_epoch_end and interrupts.requested is None:
            if stepper.level == "eager":
                self.failures.before_eager_step()
            else:
                self.failures.remember(self.state)
            block = stepper.block
            if 1 < block <= min(last - progress.step, self._equal_steps_ahead()):
                rows = [self.feed.next() for _ in range(block)]
                bounds.append(stepper.many(rows).clone())  # the same tensor each time
            else:
                rows = [self.feed.next()]
                bounds.append(stepper(goal - progress.step - 1, *rows[0]))
            progress.step += len(rows)
            counts += map(self.loss.count, rows)
            at_epoch_end = self.feed.at_epoch_end and self._epoch_matters()
        found = torch.hstack(bounds).tolist() if bounds else []  # the one wait
        bound = sum(found)
        if not math.isfinite(bound):
            self.failures.search(self.state, stepper.eager, self._step_schedule)
        elapsed = time.perf_counter() - start
        self.step_seconds = elapsed / max(1, progress.step - first)
        progress.objective_sum += bound
        progress.objective_count += sum(counts)
        if self.watch is not None:
            self.watch.add([of / count for of, count in zip(found, counts, strict=True)])
            # at fixed steps alone, whichever way bursts and interruptions have cut the run
            if at_epoch_end or self.watch.is_due:
                rate = float(self.optimizer.param_groups[0]["lr"])
                if self.watch.look(self.loss.parameters, rate):
                    progress.stopped = "converged"
        progress.seconds += elapsed
        progress.row_seconds += elapsed
        return at_epoch_end

    def _equal_steps_ahead(self) -> int:
        """Steps of one shape until there is something to do between two of them."""
        if self.feed.batch_size is not None:
            return self.feed.equal_steps_ahead
        return (
            1 if self.schedule is not None else self.log_every - self.feed.epoch % self.log_every
        )

    def _epoch_matters(self) -> bool:
        """Whether something is to be done at the end of this epoch."""
        return self.schedule is not None or self.feed.epoch % self.log_every == 0

    def end_epoch(self) -> None:
        """Schedule, and if it is time, validation and a row of metrics."""
        row = self.add_row() if self.feed.epoch % self.log_every == 0 else None
        if isinstance(self.schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            if row is not None:
                metric = validated(row)
                self.schedule.step(-(row["train_objective"] if metric is None else metric))
        else:
            self._step_schedule()
        if row is not None:
            self.failures.forget()

    def _step_schedule(self) -> None:
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
        if self.schedule is not None and not isinstance(self.schedule, plateau):
            self.schedule.step()
            if self.schedule_is_users:
                self.stepper.look_at_python(self.progress.step, at_once=True)

    def add_row(self) -> dict[str, Any]:
        """Validate, record, and see whether patience has run out."""
        progress = self.progress
        validation = None
        if self.validation is not None:
            self.failures.refuse_weights()
            validation = mean_elbo(
                self.loss.program,
                self.validation,
                batch_size=1000 if self.feed.batch_size else None,
                seed=self.state.settings["seed"],
                device=self.feed.device,
                minibatch=self.loss.minibatch,
                is_checked=True,
            )
            if math.isnan(validation):
                raise self.failures.error("the validation ELBO is nan")
        count, seconds = progress.objective_count, progress.row_seconds
        row = {
            "epoch": self.feed.epoch,
            "step": progress.step,
            "train_objective": progress.objective_sum / max(count, 1),
            "validation_elbo": None if self.is_point else validation,
            "validation_log_joint": validation if self.is_point else None,
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "seconds": round(progress.seconds, 3),
            "datapoints_per_second": round(count / seconds if seconds else 0.0, 1),
        }
        progress.objective_sum = progress.objective_count = progress.row_seconds = 0.0
        self.log.add(row)
        if self.patience is not None and validation is not None:
            progress.compare_with_best(validation, self.loss.program, self.patience)
        return row

    def finish(self) -> Run:
        """Write the last checkpoint and hand over the program."""
        progress, program = self.progress, self.loss.program
        if progress.objective_count and progress.stopped in ("finished", "converged"):
            self.add_row()
        if self.watch is not None and progress.stopped == "finished":
            warnings.warn(self.watch.complaint(self.unit), stacklevel=3)
        self.save()
        self.log.close()
        if progress.best and progress.stopped in ("finished", "converged", "patience"):
            program.load_state_dict(progress.best["weights"])
        return Run(
            program=program,
            history=self.log.history,
            epoch=self.feed.epoch,
            step=progress.step,
            level=self.stepper.level,
            stopped=progress.stopped or "finished",
            seconds=progress.seconds,
            out=self.folder,
            unit=self.unit,
            rise=None if self.watch is None else self.watch.rise,
            seed=self.state.settings["seed"],
        )

    def save(self) -> None:
        """Refuse broken weights; write good ones into a checkpoint, if there is a folder."""
        self.failures.refuse_weights()
        if self.checkpoint is not None:
            save_checkpoint(self.checkpoint, self.state.state_dict())


def _watch(until: UntilConverged, feed: Feed, loss: StepLoss) -> BoundWatch:
    """The rule for these data; it does not judge the warm-up of an objective."""
    per_epoch = feed.steps_per_epoch
    total = loss.num_datapoints or float(feed.num_datapoints)
    warmup = getattr(loss.estimator, "warmup_steps", 0)
    return BoundWatch(until, per_epoch, total, warmup)
