"""All that changes while a run trains, and that a checkpoint holds."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from aevb.inference.process import randomness
from aevb.inference.svi.checkpoint import load_checkpoint
from aevb.inference.svi.feeds import Feed
from aevb.inference.svi.loss import StepLoss
from aevb.inference.svi.steps import Stepper
from aevb.inference.svi.stopping import BoundWatch

__all__ = ["Progress", "RunState"]


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0
    seconds: float = 0.0
    stopped: str | None = None
    objective_sum: float = 0.0  # since the last row of metrics, in nats
    objective_count: float = 0.0
    row_seconds: float = 0.0
    best: dict[str, Any] = field(default_factory=dict)
    rows_since_best: int = 0

    def compare_with_best(self, validation: float, program: Any, patience: int) -> None:
        """Keep the weights if they are the best so far, and see whether patience has run out."""
        if not self.best or validation > self.best["validation_elbo"]:
            weights = copy.deepcopy(program.state_dict())
            self.best = {"validation_elbo": validation, "weights": weights}
            self.rows_since_best = 0
        else:
            self.rows_since_best += 1
        if self.rows_since_best >= patience:
            self.stopped = "patience"


@dataclass(frozen=True)
class RunState:
    """Everything that a resumed run needs to go on to the last bit.

    Attributes:
        loss: Of a step; its program holds the weights.
        optimizer: Of the weights.
        schedule: Of the optimizer, or None.
        feed: The order of the data.
        stepper: How steps are made.
        progress: Counts.
        history: Rows of metrics.
        settings: What must not change between the parts of one run.
        watch: The rule that ends the run, or None.
    """

    loss: StepLoss
    optimizer: torch.optim.Optimizer
    schedule: Any
    feed: Feed
    stepper: Stepper
    progress: Progress
    history: list[dict[str, Any]]
    settings: dict[str, Any]
    watch: BoundWatch | None = None

    def state_dict(self) -> dict[str, Any]:
        """Tensors, which later steps change, and plain values."""
        has_state = hasattr(self.schedule, "state_dict")
        return {
            "settings": self.settings,
            "weights": self.loss.program.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if has_state else None,
            "feed": self.feed.state_dict(),
            "stepper": self.stepper.state_dict(),
            "random": randomness.capture(self.feed.device),
            "history": self.history,
            "counters": dict(vars(self.progress)),
            "watch": None if self.watch is None else self.watch.state_dict(),
        }

    def copied(self) -> dict[str, Any]:
        """:meth:`state_dict` with tensors of its own."""
        copied: dict[str, Any] = tree_map_only(Tensor, Tensor.clone, self.state_dict())
        return copied

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back everything but the history."""
        self.loss.program.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None and state["schedule"] is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.feed.load_state_dict(state["feed"])
        for name in vars(self.progress).keys() & state["counters"].keys():
            setattr(self.progress, name, state["counters"][name])
        for counter in self.loss.counters:
            counter.fill_(self.progress.step)
        if self.watch is not None:
            self.watch.load_state_dict(state.get("watch") or {}, self.progress.step)
        self.stepper.load_state_dict(state["stepper"])
        randomness.restore(state["random"], self.feed.device)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: If it was written with other settings, or is broken.
        """
        # on the CPU: an optimizer leaves step counts where they are, and on a GPU each is a wait
        state = load_checkpoint(path)
        for name, value in self.settings.items():
            written = state["settings"].get(name, value)
            if written != value:
                raise ValueError(f"{path}: was written with {name}={written!r}; got {value!r}")
        self.load_state_dict(state)
        self.history[:] = state["history"]
