"""One training run in progress: steps, rows of metrics, patience, checkpoints."""

import copy
import math
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from aevb.inference.graphs.python_watch import PythonWatch
from aevb.inference.graphs.step_definition import StepDefinition
from aevb.inference.graphs.tracing import NotTraceableError, refuse_untraceable_sites
from aevb.inference.process import randomness
from aevb.inference.process.interrupts import Interrupts
from aevb.inference.process.precision import bf16_products, tf32_products
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.arguments import Arguments, num_rows
from aevb.inference.programs.guide_checks import point_masses
from aevb.inference.programs.program import data_plate_size, prepare
from aevb.inference.svi.checkpoint import load_checkpoint, save_checkpoint
from aevb.inference.svi.diagnosis import NonFiniteLossError, find_non_finite, non_finite_parameter
from aevb.inference.svi.feeds import Data, Feed, evaluation_batches
from aevb.inference.svi.metrics import MetricsLog, progress_bar
from aevb.inference.svi.objectives import Objective
from aevb.inference.svi.requirements import check_guided, check_particles
from aevb.inference.svi.steps import EagerStep, Stepper
from aevb.inference.svi.subsampling import Minibatch, read_minibatch, refuse_overridden_subsamples
from aevb.inference.svi.validation import mean_elbo

__all__ = ["CHECKPOINT", "Optimizer", "Run", "Schedule", "Training"]

CHECKPOINT = "checkpoint.safetensors"

# How long steps go on before signals, progress and the loss are looked at, on a CPU and on a GPU.
_BURST_SECONDS = (0.05, 0.25)

# What a checkpoint holds besides weights, optimizer, schedule, order and random states.
_COUNTERS = (
    "step",
    "seconds",
    "stopped",
    "objective_sum",
    "objective_count",
    "row_seconds",
    "best",
    "rows_since_best",
)

Optimizer = Callable[..., torch.optim.Optimizer]
Schedule = Callable[[torch.optim.Optimizer], Any]


@dataclass
class Run:
    """What :func:`fit` gives back.

    Attributes:
        program: The trained pair; with early stopping, at its best validation ELBO.
        history: One row of metrics per logged epoch, as in ``metrics.csv``.
        epoch: Completed epochs.
        step: Completed steps.
        level: How steps were made at the end: ``"eager"``, ``"traced"`` or ``"compiled"``.
        stopped: ``"finished"``, ``"patience"``, ``"SIGINT"`` or ``"SIGTERM"``.
        seconds: Time spent training, earlier parts of a resumed run included.
        out: The run folder, or None.
        unit: Of the objective: ``"nats per datapoint"`` with minibatches or a plate ``"data"``,
            else ``"nats"`` of the whole data.
    """

    program: Any
    history: list[dict[str, Any]]
    epoch: int
    step: int
    level: str
    stopped: str
    seconds: float
    out: Path | None
    unit: str = "nats per datapoint"


@dataclass
class Training:
    """One run in progress; everything that changes is in :meth:`state_dict`."""

    program: Any
    feed: Feed
    validation: Data | None
    objective: Objective
    weight_prior_scale: float | None
    patience: int | None
    seed: int
    device: torch.device
    folder: Path | None
    log_every: int
    compile: str
    precision: str
    step: int = 0
    seconds: float = 0.0
    stopped: str | None = None
    objective_sum: float = 0.0  # since the last row of metrics, in nats
    objective_count: float = 0.0
    row_seconds: float = 0.0
    best: dict[str, Any] = field(default_factory=dict)
    rows_since_best: int = 0
    step_seconds: float = 1.0  # a guess until the first step is measured
    memory: dict[str, Any] | None = None
    random_before: dict[str, Any] = field(default_factory=dict)
    minibatch: Minibatch = field(default_factory=Minibatch)

    def __post_init__(self) -> None:
        """Refuse a prior without width."""
        estimator: Any = self.objective.estimator()
        self.estimator = estimator
        scale = self.weight_prior_scale
        if scale is not None and not scale > 0:
            raise ValueError(f"weight_prior_scale: must be positive; got {scale}")

    def prepare(self, data: Data, batch_size: int | None) -> None:
        """Create lazy parameters and check the data against the program, before any step."""
        self.tell_num_datapoints(self.feed.num_datapoints)
        check = getattr(self.program, "check_data", None)
        for number, arguments in enumerate(evaluation_batches(data, batch_size, self.device)):
            if check is not None:
                check(*arguments.args)
            if number == 0 or check is None:
                traces = prepare(self.program, arguments)
            if number == 0:
                self._read_program(*traces, arguments)
                if batch_size is not None:
                    self._read_minibatch(data, traces, num_rows(arguments))
        if check is not None and self.validation is not None:
            for arguments in evaluation_batches(self.validation, batch_size, self.device):
                check(*arguments.args)

    def _read_program(
        self, model: poutine.Trace, guide: poutine.Trace, arguments: Arguments
    ) -> None:
        """Refuse what would train something else, and note what steps need to know."""
        size, full_size = data_plate_size(model) or (None, None)
        # a subsampled plate scales the bound to all the datapoints that it stands for
        self.plate_size, self.plate_is_subsampled = full_size, size != full_size
        self.plate_nesting = max(map(_plate_nesting, (model, guide)))
        self.refusal = _refusal(model, guide)
        self.generative = _announced(model)
        self.is_point = bool(point_masses(model, guide))
        check_guided(model, guide, self.estimator)
        self.objective.check(model, guide)
        with randomness.stream(self.seed, "checks", self.device):
            refuse_overridden_subsamples(self.program, arguments)
            check_particles(self.program, arguments, self.estimator, self.plate_nesting)

    def _read_minibatch(
        self, data: Data, traces: tuple[poutine.Trace, poutine.Trace], num: int
    ) -> None:
        """See what a minibatch stands for."""
        other = num // 2 or 2
        arguments = next(evaluation_batches(data, other, self.device))
        with randomness.stream(self.seed, "checks", self.device):
            self.minibatch = read_minibatch(
                self.program, traces, num, (arguments, num_rows(arguments)),
                self.feed.num_datapoints,
            )  # fmt: skip
        if self.minibatch.scaling is not None:
            with self.minibatch.scaling:
                self.objective.check(*prepare(self.program, next(
                    evaluation_batches(data, num, self.device)
                )))  # fmt: skip

    @property
    def unit(self) -> str:
        """Of the bound."""
        counted = self.feed.batch_size is not None or self.plate_size is not None
        return "nats per datapoint" if counted else "nats"

    def tell_num_datapoints(self, number: int | None) -> None:
        """Let the program know how many datapoints a minibatch stands for, if it asks.

        Args:
            number: N; None after training, when a batch stands for itself again.
        """
        tell = getattr(self.program, "tell_num_datapoints", None)
        if tell is not None:
            tell(number)

    def set_optimizer(
        self, optimizer: Optimizer, learning_rate: float, schedule: Schedule | None
    ) -> None:
        """Make the optimizer, now that every parameter exists."""
        if self.weight_prior_scale is not None and getattr(self.program, "weights", None):
            raise ValueError(
                "weight_prior_scale: the weights are latent here, with a prior of their own; it "
                "would pull at the parameters of their posterior"
            )
        self.parameters = [p for p in self.program.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError("program: has no trainable parameters")
        self.penalized = [p for p in self.parameters if id(p) in self.generative]
        if self.weight_prior_scale is not None and not self.penalized:
            raise ValueError(
                "weight_prior_scale: the model announces no trainable parameter to Pyro, by "
                "pyro.param, pyro.module or PyroModule"
            )
        self.optimizer = optimizer(self.parameters, lr=learning_rate)
        self.schedule = None if schedule is None else schedule(self.optimizer)
        # which may change the program as well
        self.schedule_is_users = PythonWatch(schedule=self.schedule).reaches_user_code
        lacks_state = self.schedule is not None and not hasattr(self.schedule, "state_dict")
        if self.folder is not None and lacks_state:
            raise ValueError(
                f"schedule: {type(self.schedule).__name__} has no state_dict, so that a run in a "
                "folder could not be resumed; give it one, or no folder"
            )
        self.learning_rate = learning_rate
        if self.estimator.max_plate_nesting == math.inf:
            # Pyro would find it by an extra run of the programs at the first step, whose draws a
            # resumed run would make once more
            outer = self.estimator.vectorize_particles and self.estimator.num_particles > 1
            self.estimator.max_plate_nesting = self.plate_nesting + outer
        buffers = list(self.program.buffers()) if hasattr(self.program, "buffers") else []
        # of schedules inside the objective; they count steps, and so follow `self.step`
        self.counters = [b.to(self.device) for b in getattr(self.estimator, "buffers", [])]
        if self.counters:
            self.estimator.buffers = self.counters
        buffers += self.counters
        keepers = {
            "program": self.program,
            "objective": self.objective,
            "estimator": self.estimator,
            "data": self.feed.others,
        }
        definition = StepDefinition(
            self.gradients, self.optimizer, self.parameters, buffers, keepers
        )
        eager = EagerStep(definition, self._refuse_non_finite)
        self.stepper = Stepper(definition, eager, self.compile, self.device, self.refusal)

    def begin(self, resume: bool) -> None:
        """Start from the checkpoint or from nothing."""
        history: list[dict[str, Any]] = []
        path = self.checkpoint_path
        if path is not None and path.exists():
            if not resume:
                raise ValueError(
                    f"out: {self.folder} already holds a run; resume it or choose another folder"
                )
            history = self._load(path)
        self.log = MetricsLog(self.folder, history)
        if self.folder is not None and not history:
            self.save()

    @property
    def checkpoint_path(self) -> Path | None:
        """Where checkpoints go."""
        return None if self.folder is None else self.folder / CHECKPOINT

    def run(
        self, epochs: int | None, steps: int | None, interval: float, show: bool | None
    ) -> Run:
        """Make steps until the work, the patience or the user's is at an end."""
        if self.stopped != "patience" or self.rows_since_best < (self.patience or math.inf):
            self.stopped = None
        goal = self._goal(epochs, steps)
        saved = time.monotonic()
        with (
            progress_bar(goal, "step", self.step, show) as bar,
            Interrupts() as interrupts,
            argument_checks(False),
            tf32_products(self.precision == "tf32"),
            warnings.catch_warnings(),
        ):
            # Pyro warns of what is raised here as an error with more to say
            warnings.filterwarnings("ignore", "Encountered (NaN|[+-]?inf)", UserWarning)
            while self.stopped is None:
                if self.step >= goal:
                    self.stopped = "finished"
                    break
                if self.burst(goal, interval, interrupts):
                    self.end_epoch()
                    if self.log.history:
                        shown = _summary(self.log.history[-1], self.unit)
                        bar.set_postfix_str(shown, refresh=False)
                bar.update(self.step - bar.n)
                if interrupts.requested is not None:
                    self.stopped = self.stopped or interrupts.requested.name
                if time.monotonic() - saved > interval:
                    self.save()
                    self.memory = None
                    saved = time.monotonic()
        return self.finish()

    def _goal(self, epochs: int | None, steps: int | None) -> int:
        """The number of the last step."""
        return steps if steps is not None else (epochs or 0) * self.feed.steps_per_epoch

    def burst(self, goal: int, interval: float, interrupts: Interrupts) -> bool:
        """Steps without a pause, up to what has to be done between two of them.

        On a GPU nothing in the loop waits for the device.

        Returns:
            Whether the last step completed an epoch.
        """
        start, first = time.perf_counter(), self.step
        pause = min(interval, _BURST_SECONDS[self.device.type == "cuda"])
        last = min(goal, first + max(1, int(pause / self.step_seconds)))
        bounds = torch.zeros((), dtype=torch.float64, device=self.device)
        count = 0.0
        at_epoch_end = False
        self.stepper.look_at_python(self.step)
        while self.step < last and not at_epoch_end and interrupts.requested is None:
            if self.stepper.level == "eager":
                self.random_before = randomness.capture_torch(self.device)
            elif self.memory is None:
                self.remember()
            block = self.stepper.block
            if 1 < block <= min(last - self.step, self._equal_steps_ahead()):
                rows = [self.feed.next() for _ in range(block)]
                bounds += self.stepper.many(rows)
            else:
                rows = [self.feed.next()]
                bounds += self.stepper(goal - self.step - 1, *rows[0])
            self.step += len(rows)
            count += sum(map(self._count, rows))
            at_epoch_end = self.feed.at_epoch_end and self._epoch_matters()
        bound = float(bounds)  # the one wait
        if not math.isfinite(bound):
            self._find_failure()
        elapsed = time.perf_counter() - start
        self.step_seconds = elapsed / max(1, self.step - first)
        self.objective_sum += bound
        self.objective_count += count
        self.seconds += elapsed
        self.row_seconds += elapsed
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

    def gradients(self, *inputs: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """The bound of a minibatch, in nats, and the gradient of the loss."""
        args, kwargs = self.feed.present(*inputs)
        with (
            torch.enable_grad(),
            bf16_products(self.precision == "bf16"),
            self.minibatch.scaling or nullcontext(),
        ):
            loss = self.estimator.differentiable_loss(
                self.program.model, self.program.guide, *args, **kwargs
            )
            total = loss / self._count(inputs)
            if self.weight_prior_scale is not None:
                total = total + self._weight_penalty(self.weight_prior_scale)
            grads = torch.autograd.grad(total, self.parameters, allow_unused=True)
        return -loss.detach(), list(grads)

    def remember(self) -> None:
        """Keep the present state in memory: a graph shows a bad loss only after its update."""
        self.memory = _copied(self.state_dict())

    def _refuse_non_finite(self, bound: Tensor, inputs: tuple[Tensor, ...]) -> None:
        """Stop before the weights are spoilt, and say where it began."""
        if math.isfinite(float(bound)):
            return
        randomness.restore_torch(self.random_before, self.device)
        site = find_non_finite(self.program, self.estimator, self.feed.present(*inputs))
        raise NonFiniteLossError(self.step + 1, site, self._last_checkpoint())

    def _find_failure(self) -> None:
        """Go back to the last good state in memory and make the steps since then eagerly."""
        reached = self.step
        if self.memory is not None:
            self._restore(self.memory)
            while self.step < reached:
                inputs = self.feed.next()
                self.random_before = randomness.capture_torch(self.device)
                self.stepper.eager(*inputs)
                self.step += 1
                if self.feed.at_epoch_end:
                    self._step_schedule()
        where = "which eager steps from the last good state do not repeat"
        raise NonFiniteLossError(reached, where, self._last_checkpoint())

    def end_epoch(self) -> None:
        """Schedule, and if it is time, validation and a row of metrics."""
        row = self.add_row() if self.feed.epoch % self.log_every == 0 else None
        if isinstance(self.schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            if row is not None:
                metric = _validated(row)
                self.schedule.step(-(row["train_objective"] if metric is None else metric))
        else:
            self._step_schedule()
        if row is not None:
            self.memory = None

    def _step_schedule(self) -> None:
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
        if self.schedule is not None and not isinstance(self.schedule, plateau):
            self.schedule.step()
            if self.schedule_is_users:
                self.stepper.look_at_python(self.step, at_once=True)

    def add_row(self) -> dict[str, Any]:
        """Validate, record, and see whether patience has run out."""
        validation = None
        if self.validation is not None:
            self._refuse_broken_weights()
            validation = mean_elbo(
                self.program,
                self.validation,
                batch_size=1000 if self.feed.batch_size else None,
                seed=self.seed,
                device=self.device,
                minibatch=self.minibatch,
            )
            if math.isnan(validation):
                raise NonFiniteLossError(
                    self.step, "the validation ELBO is nan", self._last_checkpoint()
                )
        rate = self.objective_count / self.row_seconds if self.row_seconds else 0.0
        row = {
            "epoch": self.feed.epoch,
            "step": self.step,
            "train_objective": self.objective_sum / max(self.objective_count, 1),
            "validation_elbo": None if self.is_point else validation,
            "validation_log_joint": validation if self.is_point else None,
            "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
            "seconds": round(self.seconds, 3),
            "datapoints_per_second": round(rate, 1),
        }
        self.objective_sum = self.objective_count = self.row_seconds = 0.0
        self.log.add(row)
        if self.patience is not None and validation is not None:
            self._compare_with_best(validation)
        return row

    def finish(self) -> Run:
        """Write the last checkpoint and hand over the program."""
        if self.objective_count and self.stopped == "finished":
            self.add_row()
        self.save()
        self.log.close()
        if self.best and self.stopped in ("finished", "patience"):
            self.program.load_state_dict(self.best["weights"])
        return Run(
            program=self.program,
            history=self.log.history,
            epoch=self.feed.epoch,
            step=self.step,
            level=self.stepper.level,
            stopped=self.stopped or "finished",
            seconds=self.seconds,
            out=self.folder,
            unit=self.unit,
        )

    def save(self) -> None:
        """Refuse broken weights; write good ones into a checkpoint, if there is a folder."""
        self._refuse_broken_weights()
        if self.checkpoint_path is not None:
            save_checkpoint(self.checkpoint_path, self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            "settings": self._settings(),
            "weights": self.program.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self._schedule_state(),
            "feed": self.feed.state_dict(),
            "stepper": self.stepper.state_dict(),
            "random": randomness.capture(self.device),
            "history": self.log.history,
            "counters": {name: getattr(self, name) for name in _COUNTERS},
        }

    def _schedule_state(self) -> dict[str, Any] | None:
        if self.schedule is None or not hasattr(self.schedule, "state_dict"):
            return None
        return self.schedule.state_dict()

    def _load(self, path: Path) -> list[dict[str, Any]]:
        # on the CPU: an optimizer leaves step counts where they are, and on a GPU each is a wait
        state = load_checkpoint(path)
        for name, value in self._settings().items():
            written = state["settings"].get(name, value)
            if written != value:
                raise ValueError(f"{path}: was written with {name}={written!r}; got {value!r}")
        self._restore(state)
        history: list[dict[str, Any]] = state["history"]
        return history

    def _restore(self, state: dict[str, Any]) -> None:
        self.program.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None and state["schedule"] is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.feed.load_state_dict(state["feed"])
        for name, value in state["counters"].items():
            if name in _COUNTERS:  # nothing else is the file's to set
                setattr(self, name, value)
        for counter in self.counters:
            counter.fill_(self.step)
        self.stepper.load_state_dict(state["stepper"])
        randomness.restore(state["random"], self.device)

    def _settings(self) -> dict[str, Any]:
        """What must not change between the parts of one run."""
        return {
            "objective": repr(self.objective),
            "optimizer": type(self.optimizer).__name__,
            "learning_rate": self.learning_rate,
            "precision": self.precision,
            "schedule": type(self.schedule).__name__,
            "batch_size": self.feed.batch_size,
            "num_datapoints": self.feed.num_datapoints,
            "weight_prior_scale": self.weight_prior_scale,
            "seed": self.seed,
            "parameters": {name: list(p.shape) for name, p in self.program.named_parameters()},
        }

    def _count(self, inputs: tuple[Tensor, ...]) -> float:
        """Datapoints that the bound of one step is a sum over."""
        if self.minibatch.total is not None:
            return self.minibatch.total
        if inputs and not self.plate_is_subsampled:
            return float(len(inputs[0]))
        return float(self.plate_size or 1)

    def _weight_penalty(self, scale: float) -> Tensor:
        """−log N(θ; 0, s²I) / N without its constant."""
        if self.feed.batch_size is None:
            num_datapoints = float(self.plate_size or 1)
        else:
            num_datapoints = float(self.feed.num_datapoints)
        squares = torch.stack([p.square().sum() for p in self.penalized]).sum()
        return 0.5 * squares / (scale**2 * num_datapoints)

    def _compare_with_best(self, validation: float) -> None:
        if not self.best or validation > self.best["validation_elbo"]:
            weights = copy.deepcopy(self.program.state_dict())
            self.best = {"validation_elbo": validation, "weights": weights}
            self.rows_since_best = 0
        else:
            self.rows_since_best += 1
        if self.rows_since_best >= (self.patience or math.inf):
            self.stopped = "patience"

    def _refuse_broken_weights(self) -> None:
        broken = non_finite_parameter(self.program)
        if broken:
            raise NonFiniteLossError(self.step, broken, self._last_checkpoint())

    def _last_checkpoint(self) -> Path | None:
        path = self.checkpoint_path
        return path if path is not None and path.exists() else None


def _copied(state: Any) -> Any:
    """A copy of the tensors in dictionaries and lists, and of these; the rest is shared."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_copied(value) for value in state]
    return state


def _plate_nesting(trace: poutine.Trace) -> int:
    """How many dimensions on the left of the events the plates of a program take up."""
    sites = [site for site in trace.nodes.values() if site["type"] == "sample"]
    frames = [frame for site in sites for frame in site["cond_indep_stack"]]
    return max((-frame.dim for frame in frames if frame.dim is not None), default=0)


def _announced(trace: poutine.Trace) -> set[int]:
    """Identities of the parameters that a program announces."""
    values = [trace.nodes[name]["value"] for name in trace.param_nodes]
    references = [getattr(value, "unconstrained", lambda: None) for value in values]
    # the parameter behind a constrained value, or a PyroModule's ordinary parameter itself
    return {id(found) for reference in references for found in [reference()]} | set(
        map(id, values)
    )


def _validated(row: dict[str, Any]) -> float | None:
    """The figure that patience and plateaus look at."""
    for name in ("validation_elbo", "validation_log_joint"):
        if row.get(name) is not None:
            return float(row[name])
    return None


def _summary(row: dict[str, Any], unit: str) -> str:
    validation = _validated(row)
    shown = row["train_objective"] if validation is None else validation
    name = "objective"
    if validation is not None:
        name = "validation ELBO" if row["validation_elbo"] is not None else "validation log joint"
    return f"{name} {shown:.2f} {unit}, {row['datapoints_per_second']:,.0f} datapoints/s"


def _refusal(model: poutine.Trace, guide: poutine.Trace) -> NotTraceableError | None:
    try:
        refuse_untraceable_sites(model, guide)
    except NotTraceableError as error:
        return error
    return None
