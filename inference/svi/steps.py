"""Training steps: eager as Pyro runs them, or as a graph, or the one the work ahead pays for."""

import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aevb.inference.graphs.compile import GraphStep, graph_step
from aevb.inference.graphs.cuda_graphs import RecordedSteps
from aevb.inference.graphs.optimizer_updates import needs_closure
from aevb.inference.graphs.step_definition import StepDefinition
from aevb.inference.graphs.tracing import NotTraceableError

__all__ = ["EagerStep", "Stepper", "check_level"]

_LEVELS = ("auto", "eager", "traced", "compiled")

_log = logging.getLogger(__name__)

# What a graph costs before it saves anything, in seconds: tracing 0.3 after 3 of imports, inductor
# 5 to 20 on two cores. `auto` makes one where the work ahead is several times its price.
_WORTH_TRACING = 8.0
_WORTH_COMPILING = 60.0
# Steps before `auto` looks at the clock; the first ones pay for allocation and caches.
_TRIAL = 6
# Between two comparisons of a graph with the program, for what Python may do late.
_MOST_UNCHECKED = 4096

# Steps between looks at what others may have changed in the program, such as a background thread.
_LOOK_EVERY = 256

# Steps of one launch: enough that the host's microseconds between launches do not show.
_BLOCK = {"cuda": 10, "cpu": 1}


def check_level(level: str) -> None:
    """Refuse what is no level."""
    if level not in _LEVELS:
        raise ValueError(f"compile: expected one of {', '.join(_LEVELS)}; got {level!r}")


class EagerStep:
    """The step as Pyro and torch run it, operation by operation.

    Args:
        definition: The step.
        before_update: Called with the bound and the inputs before the weights change; may raise.
    """

    def __init__(
        self,
        definition: StepDefinition,
        before_update: Callable[[Tensor, tuple[Tensor, ...]], None] = lambda bound, inputs: None,
    ) -> None:
        self.definition = definition
        self.before_update = before_update

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Make the step; returns the bound before the update, in nats."""
        optimizer = self.definition.optimizer
        bounds: list[Tensor] = []

        def closure() -> Tensor:
            bound, grads = self.definition.gradients(*inputs)
            self.before_update(bound, inputs)
            for parameter, grad in zip(self.definition.parameters, grads, strict=True):
                parameter.grad = grad
            bounds.append(bound)
            return -bound

        if needs_closure(optimizer):
            optimizer.step(closure)  # type: ignore[arg-type]
        else:
            closure()  # before the step, whose hooks may look at the gradients
            optimizer.step()
        for parameter in self.definition.parameters:
            parameter.grad = None
        return bounds[-1]


class Stepper:
    """Chooses among eager, traced and compiled steps, and logs the choice with its reason.

    Args:
        definition: The step.
        eager: The same step without a graph.
        level: ``"eager"``, ``"traced"``, ``"compiled"``, or ``"auto"``, which times a few steps
            and makes a graph only if the work ahead repays it.
        device: Where it runs.
        refusal: Why the program has no graph, if that is known already.

    Attributes:
        level: How steps are made at present.
    """

    def __init__(
        self,
        definition: StepDefinition,
        eager: EagerStep,
        level: str,
        device: torch.device,
        refusal: NotTraceableError | None = None,
    ) -> None:
        self.level = "eager"
        self._refusal = refusal
        self._definition = definition
        self.eager = eager
        self._wanted = level
        self._device = device
        self._graphs: dict[Any, GraphStep] = {}
        self._recorded: dict[Any, RecordedSteps] = {}
        self._count = 0  # of steps made by graphs, one at a time
        self._good = 0  # the last of them at which graph and program agreed
        self._gave_up = False
        self._usual: list[list[int]] | None = None  # sizes of the inputs of most steps
        self._suspects: dict[Any, str] = {}  # what changed in Python since a graph was checked
        self._looked = 0
        self._earlier: dict[Any, tuple[Tensor, ...]] = {}
        self._seconds: list[float] = []
        self._settled = level == "eager"

    def __call__(self, steps_ahead: float, *inputs: Tensor) -> Tensor:
        """Make one step.

        Args:
            steps_ahead: Steps to be made after this one.
            inputs: Tensors of this step; there is one graph for each set of shapes.
        """
        if self._settled:
            return self._make(inputs)
        start = time.perf_counter()
        bound = self._make(inputs)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._seconds.append(time.perf_counter() - start)
        self._decide(steps_ahead)
        return bound

    @property
    def block(self) -> int:
        """Steps that :meth:`many` makes at once."""
        return _BLOCK.get(self._device.type, 1) if self._settled and self.level != "eager" else 1

    def many(self, inputs: list[tuple[Tensor, ...]]) -> Tensor:
        """Make :attr:`block` steps of equal shapes as one; returns the float64 bound of each."""
        key = _shapes(inputs[0])
        step = self._graphs.get(key)
        if step is None or step.is_stale or step.is_detached or key in self._suspects:
            return torch.stack([self._make(row).double() for row in inputs])
        if key not in self._recorded:
            self._recorded[key] = step.recorded(inputs[0], self.block)
        step.fill_rates()
        return self._recorded[key](inputs)

    def state_dict(self) -> dict[str, Any]:
        """How far the choice has come, so that a resumed run makes its steps in the same way."""
        return {
            "level": self.level,
            "settled": self._settled,
            "sizes": self._usual,
            "gave_up": self._gave_up,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`; an explicit level goes on as what was asked for."""
        self._usual = state.get("sizes")
        if state.get("gave_up"):
            self._gave_up = True
            self._settle("eager")
            return
        if self._wanted == "auto":
            self.level, self._settled = state["level"], state["settled"]
        elif state["level"] != "eager" or self._definition.optimizer.state:
            self._settle(self._wanted)

    def _make(self, inputs: tuple[Tensor, ...]) -> Tensor:
        key = _shapes(inputs)
        if self.level == "eager":
            if not self._settled or self._wanted != "eager":
                self._earlier[key] = inputs
            return self.eager(*inputs)
        step = self._graphs.get(key)
        if step is not None and step.is_detached:
            # what was loaded may be the state of no step yet, which only an eager one completes
            self._graphs.clear()
            self._recorded.clear()
            return self.eager(*inputs)
        if step is None:
            # the last batch of an epoch is seldom worth a compilation of its own
            sizes = [list(tensor.shape) for tensor in inputs]
            self._usual = self._usual or sizes
            level = self.level if sizes == self._usual else "traced"
            step = self._graph(level, inputs)
            if step is None:
                return self.eager(*inputs)
            self._graphs[key] = step
        if step.is_stale:
            return self._give_up_graphs(
                inputs,
                "hyperparameters of the optimizer other than the learning rate have changed",
            )
        self._count += 1
        suspect = self._suspects.pop(key, None)
        if suspect is not None or _is_checked_again(self._count):
            try:
                step.check_again(*inputs, seed=self._count)
            except NotTraceableError as error:
                why = f"{suspect} has changed, and " if suspect is not None else ""
                since = f"those since step {self._good} of the graph may be wrong"
                return self._give_up_graphs(
                    inputs, f"{why}after {self._count} steps {error}; {since}"
                )
            self._good = self._count
        try:
            return step(*inputs)
        except Exception as error:
            return self._give_up_graphs(inputs, f"the graph failed: {_reason(error)}")

    def look_at_python(self, step: int, *, at_once: bool = False) -> None:
        """Have the next step checked if somebody has changed the program meanwhile.

        Args:
            step: Steps made so far; a look costs about ten small steps, and is taken seldom.
            at_once: Whether there is reason to look now.
        """
        if self._graphs and (at_once or not 0 <= step - self._looked < _LOOK_EVERY):
            self._looked = step
            for key, graph in self._graphs.items():
                where = graph.python.changed()
                if where is not None:
                    self._suspects[key] = where

    def _give_up_graphs(self, inputs: tuple[Tensor, ...], why: str) -> Tensor:
        """What the graph holds is not so any more, as when a schedule changes momentum."""
        self._gave_up = True
        self._settle("eager")
        warnings.warn(f"training steps run eagerly from here: {why}", stacklevel=2)
        return self.eager(*inputs)

    def _graph(self, level: str, inputs: tuple[Tensor, ...]) -> GraphStep | None:
        """The best graph there is, up to ``level``; says once why it is less."""
        reasons = []
        for attempt in (level, "traced") if level == "compiled" else (level,):
            try:
                if self._refusal is not None:
                    raise self._refusal
                # tried out on an earlier step of these shapes as well, if it was another
                earlier = self._earlier.get(_shapes(inputs), inputs)
                others = [] if all(map(torch.equal, earlier, inputs)) else [earlier]
                step = graph_step(self._definition, attempt, *inputs, others=others)
            except NotTraceableError as error:
                reasons.append(str(error))
            except Exception as error:
                reasons.append(f"no graph: {_reason(error)}")
            else:
                if reasons:
                    self._settle("traced")
                    warnings.warn(
                        f"steps are traced, for the compiler failed: {reasons[0]}", stacklevel=2
                    )
                return step
        self._gave_up = True
        self._settle("eager")
        warnings.warn(f"training steps run eagerly: {reasons[-1]}", stacklevel=2)
        return None

    def _decide(self, steps_ahead: float) -> None:
        """After some steps at one level, go on to the next or stay."""
        # an ordinary step comes first, because it makes the optimizer's state
        if self._wanted != "auto" or self._device.type == "cuda":
            self._settle("compiled" if self._wanted == "auto" else self._wanted)
            _log.info("training steps: %s", self.level)
            return
        if self._settled or len(self._seconds) < _TRIAL:
            return
        seconds = steps_ahead * min(self._seconds[2:])
        price = _WORTH_TRACING if self.level == "eager" else _WORTH_COMPILING
        if seconds < price:
            _log.info(
                "training steps: %s, because only %.1f s of work are ahead", self.level, seconds
            )
            self._settle(self.level)
        elif self.level == "eager":
            self.level = "traced"
            self._seconds.clear()
        else:
            self._settle("compiled")
            _log.info("training steps: compiled, because %.0f s of work are ahead", seconds)

    def _settle(self, level: str) -> None:
        self._settled = True
        self.level = level
        if level != "traced":
            self._graphs.clear()
            self._recorded.clear()
            self._suspects.clear()


def _is_checked_again(count: int) -> bool:
    """At powers of two from 16 on, and now and then.

    Example:
        >>> [count for count in range(70) if _is_checked_again(count)]
        [16, 32, 64]
    """
    return count >= 16 and (count & (count - 1) == 0 or count % _MOST_UNCHECKED == 0)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _shapes(inputs: tuple[Tensor, ...]) -> Any:
    return tuple((tensor.shape, tensor.stride(), tensor.dtype) for tensor in inputs)
