"""Which site of a program made its loss NaN or infinite."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from pyro import poutine
from pyro.infer import ELBO
from torch import Tensor

from aevb.inference.process import randomness
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.arguments import Arguments
from aevb.inference.programs.protocol import ProgramPair
from aevb.inference.svi.loss import StepLoss
from aevb.inference.svi.run_state import Progress, RunState
from aevb.inference.svi.steps import EagerStep

__all__ = ["FailureSearch", "NonFiniteLossError", "find_non_finite", "non_finite_parameter"]


class NonFiniteLossError(ArithmeticError):
    """Training met a NaN or infinite loss and stopped.

    Attributes:
        step: Number of the step, counted from 1.
        site: The parameter or sample site where the first such value stood.
        checkpoint: The last good checkpoint, or None if the run keeps none.

    Example:
        >>> error = NonFiniteLossError(7, "z", None)
        >>> error.step, error.site, error.checkpoint
        (7, 'z', None)
    """

    def __init__(self, step: int, site: str, checkpoint: Path | None) -> None:
        self.step = step
        self.site = site
        self.checkpoint = checkpoint
        saved = f"last good checkpoint: {checkpoint}" if checkpoint else "no checkpoint was kept"
        super().__init__(f"loss is not finite at step {step}: {site}; {saved}")


def find_non_finite(program: ProgramPair, estimator: ELBO, arguments: Arguments) -> str:
    """Name the first parameter or site that is not finite.

    The caller puts the random state back to that of the failing step, so that the same draws are
    made again.

    Returns:
        Words such as ``"site 'x' of the model has log-probability nan"``.
    """
    parameter = non_finite_parameter(program)
    if parameter:
        return parameter
    with torch.no_grad(), argument_checks(False):
        for model, guide in estimator._get_traces(
            program.model, program.guide, arguments.args, dict(arguments.kwargs)
        ):
            found = _first_site(guide, "guide") or _first_site(model, "model")
            if found:
                return found
    return "no single site: every one is finite by itself"


def non_finite_parameter(program: Any) -> str | None:
    """Words for the first parameter with a NaN or infinite entry, or None."""
    for name, parameter in program.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            return f"parameter {name!r} is not finite"
    return None


def _first_site(trace: poutine.Trace, program: str) -> str | None:
    trace.compute_log_prob()
    enumerates = any("_enumerate_dim" in (s.get("infer") or {}) for s in trace.nodes.values())
    for name, site in trace.nodes.items():
        if site["type"] != "sample":
            continue
        value = site["value"]
        if isinstance(value, torch.Tensor) and not bool(torch.isfinite(value).all()):
            return f"site {name!r} of the {program} has a value that is not finite"
        total = site["log_prob_sum"]
        # of all the values of an enumerated site, some may be impossible
        fine = bool(torch.isfinite(total)) or (enumerates and float(total) == -math.inf)
        if not fine:
            return f"site {name!r} of the {program} has log-probability {site['log_prob_sum']:g}"
    return None


class FailureSearch:
    """Finds the step and the site at which a run breaks.

    An eager step is refused before it changes the weights. A graph shows a bad bound only after
    its update, and so the steps since the last good state are made once more, eagerly.
    """

    def __init__(
        self, loss: StepLoss, progress: Progress, device: torch.device, checkpoint: Path | None
    ) -> None:
        self._loss, self._progress, self._device = loss, progress, device
        self._checkpoint = checkpoint
        self._random: dict[str, Any] = {}  # before the last eager step
        self._good: dict[str, Any] | None = None

    def before_eager_step(self) -> None:
        """Remember the random state, to make the same draws again."""
        self._random = randomness.capture_torch(self._device)

    def refuse(self, bound: Tensor, inputs: tuple[Tensor, ...]) -> None:
        """Stop before the weights are spoilt, and say where it began."""
        if math.isfinite(float(bound)):
            return
        randomness.restore_torch(self._random, self._device)
        loss = self._loss
        with loss.minibatch.counted(loss.program):
            site = find_non_finite(loss.program, loss.estimator, loss.arguments(*inputs))
        raise self.error(site, self._progress.step + 1)

    def refuse_weights(self) -> None:
        """Stop where a parameter is not finite."""
        broken = non_finite_parameter(self._loss.program)
        if broken:
            raise self.error(broken)

    def remember(self, state: RunState) -> None:
        """Keep the present state in memory, unless an earlier one is kept."""
        if self._good is None:
            self._good = state.copied()

    def forget(self) -> None:
        """Let the next state be remembered in place of the kept one."""
        self._good = None

    def search(self, state: RunState, eager: EagerStep, end_epoch: Callable[[], None]) -> NoReturn:
        """Go back to the last good state and make the steps since then eagerly.

        Raises:
            NonFiniteLossError: Always.
        """
        reached = self._progress.step
        if self._good is not None:
            state.load_state_dict(self._good)
            while self._progress.step < reached:
                inputs = state.feed.next()
                self.before_eager_step()
                eager(*inputs)
                self._progress.step += 1
                if state.feed.at_epoch_end:
                    end_epoch()
        raise self.error("which eager steps from the last good state do not repeat", reached)

    def error(self, where: str, step: int | None = None) -> NonFiniteLossError:
        """What to raise; at the present step if no other is named."""
        path = self._checkpoint
        kept = path if path is not None and path.exists() else None
        return NonFiniteLossError(self._progress.step if step is None else step, where, kept)
