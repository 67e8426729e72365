"""One training step at the speed of a graph, for a loop of one's own."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from pyro.infer.elbo import ELBO as Estimator
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from aevb.inference.process.devices import device_of
from aevb.inference.programs.arguments import Arguments
from aevb.inference.programs.program import prepare
from aevb.inference.programs.protocol import ProgramPair, as_module, evaluation_mode
from aevb.inference.svi.loss import StepLoss
from aevb.inference.svi.objectives import ELBO, Objective
from aevb.inference.svi.preparation import read_program
from aevb.inference.svi.pyro_loss import as_objective
from aevb.inference.svi.steps import EagerStep, Stepper, check_level

__all__ = ["CompiledStep", "compiled_step"]

Optimizer = torch.optim.Optimizer


def compiled_step(
    program: ProgramPair,
    optimizer: Optimizer | Callable[..., Optimizer],
    objective: Objective | Estimator = ELBO(),
    *example: Any,
    compile: str = "compiled",
    **named: Any,
) -> "CompiledStep":
    r"""Make a callable that does a whole training step: bound, gradients, the optimizer's update.

    It is the step of ``pyro.infer.SVI``, which ascends the bound of its arguments in nats, and
    scales nothing by itself; made as :func:`fit` makes its own. The first call is an ordinary
    step, in which the optimizer makes its state; the second records the graph, compares it with
    the program, and compiles it; later ones run it. The random numbers are those of torch's
    global generators. Gradients go to the optimizer alone: ``.grad`` is empty afterwards, and
    hooks on its accumulation do not run. The programs run once before, in evaluation mode, so
    that lazy parameters exist.

    Args:
        program: One of our models, or ``Program(model, guide)``; trained in place, in the mode
            that it is in.
        optimizer: Of all or some of the program's parameters; or a function of them that makes
            it, as for programs whose parameters come to be at the first run. It holds the state
            as ever: save it, load it, change its learning rate.
        objective: Bound to maximize, or a loss of ``pyro.infer``.
        example: Arguments of both programs. Steps with tensors of the same shapes, and with the
            same values elsewhere, use the graph; all others are eager. What changes from step to
            step should be a tensor.
        compile: ``"eager"``, ``"traced"``, ``"compiled"``, as in :func:`fit`; ``"auto"`` tries
            them in turn in the first steps. Programs without a graph run eagerly, with a warning.
        named: Keyword arguments of both programs.

    Raises:
        ValueError: If the objective is not made for the program, or the optimizer lacks
            parameters that have only now come to be.

    Example:
        >>> import torch
        >>> from aevb import inference, models
        >>> model, x = models.FactorAnalysis((5,), 2), torch.randn(100, 5)
        >>> optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        >>> step = inference.compiled_step(
        ...     model, optimizer, inference.ELBO(), x[:50], compile="traced"
        ... )
        >>> bounds = [step(rows) for _ in range(3) for rows in x.split(50)]
        >>> step.level, bounds[0].shape
        ('traced', torch.Size([]))
    """
    module = as_module(program)
    check_level(compile)
    objective = as_objective(objective)
    estimator: Any = objective.estimator()
    arguments = Arguments(example, named)
    device = device_of(module, args=tree_leaves(tuple(arguments)))
    present = {id(parameter) for parameter in module.parameters()}
    with evaluation_mode(module):
        traces = prepare(module, arguments)
        reading = read_program(module, traces, arguments, objective, estimator, 0, device)
    if not isinstance(optimizer, Optimizer):
        optimizer = optimizer([p for p in module.parameters() if p.requires_grad])
    trained = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    _refuse_other_parameters(module, trained, present)
    form, inputs = _taken_apart(example, named)
    loss = StepLoss(module, estimator, trained, form.arguments, form.others, num_datapoints=1.0)
    step = loss.step(optimizer)
    stepper = Stepper(step, EagerStep(step), compile, device, reading.refusal)
    return CompiledStep(loss, optimizer, stepper, form, inputs)


class CompiledStep:
    """A training step; see :func:`compiled_step`.

    Attributes:
        optimizer: Holds the state of the optimization.

    Example:
        >>> import torch
        >>> from aevb import inference, models
        >>> fa, x = models.FactorAnalysis((5,), 2), torch.zeros(3, 5)
        >>> adam = torch.optim.Adam(fa.parameters())
        >>> step = inference.compiled_step(fa, adam, inference.ELBO(), x, compile="eager")
        >>> step(x).shape, step.optimizer is adam
        (torch.Size([]), True)
    """

    def __init__(
        self,
        loss: StepLoss,
        optimizer: Optimizer,
        stepper: Stepper,
        form: "_Form",
        inputs: Sequence[Tensor],
    ) -> None:
        self.optimizer = optimizer
        self._loss, self._stepper, self._form = loss, stepper, form
        self._shapes = [(tensor.shape, tensor.dtype) for tensor in inputs]
        self._held = sum(len(group["params"]) for group in self.optimizer.param_groups)
        self._is_training = loss.program.training
        self._made = 0

    @property
    def level(self) -> str:
        """How steps like the example are made now: ``"eager"``, ``"traced"``, ``"compiled"``."""
        return self._stepper.level

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Make one step.

        Args:
            args: Of both programs.
            kwargs: Of both, by name.

        Returns:
            The bound before the update, a scalar in nats; NaN and infinity are not looked for.
        """
        self._refuse_other_training()
        form, inputs = _taken_apart(args, kwargs)
        self._made += 1
        if self._is_like_example(form, inputs):
            self._stepper.look_at_python(self._made)
            return self._stepper(math.inf, *inputs)
        loss = replace(self._loss, arguments=form.arguments)
        return EagerStep(loss.step(self.optimizer))(*inputs)

    def many(self, batches: Iterable[tuple[Any, ...]]) -> Tensor:
        """Make several steps, on a GPU in few launches.

        Args:
            batches: Arguments of each step.

        Returns:
            Sum of their bounds, float64.
        """
        total = torch.zeros((), dtype=torch.float64, device=self._loss.parameters[0].device)
        left = iter(batches)
        while block := list(islice(left, self._stepper.block)):
            steps = [_taken_apart(batch, {}) for batch in block]
            if 1 < len(block) == self._stepper.block and all(
                self._is_like_example(*step) for step in steps
            ):
                total += self._stepper.many([inputs for _, inputs in steps]).sum()
                self._made += len(block)
                self._stepper.look_at_python(self._made)
            else:
                for batch in block:
                    total += self(*batch)
        return total

    def _refuse_other_training(self) -> None:
        """What is trained is settled when the step is made."""
        frozen = not all(parameter.requires_grad for parameter in self._loss.parameters)
        held = sum(len(group["params"]) for group in self.optimizer.param_groups)
        if frozen or held != self._held:
            what = "a parameter was frozen" if frozen else "the optimizer got other parameters"
            raise ValueError(f"optimizer: {what} since this step was made; make another")

    def _is_like_example(self, form: "_Form", inputs: Sequence[Tensor]) -> bool:
        return (
            [(tensor.shape, tensor.dtype) for tensor in inputs] == self._shapes
            and self._form.holds(form)
            and self._loss.program.training == self._is_training
        )


@dataclass(frozen=True)
class _Form:
    """What arguments are besides the values of their tensors.

    Attributes:
        others: The other leaves, with the class itself in place of each tensor.
        spec: How they are nested; None for tensors one beside the other.
    """

    others: list[Any]
    spec: TreeSpec | None

    def arguments(self, *tensors: Tensor) -> Arguments:
        """The arguments with these tensors."""
        if self.spec is None:
            return Arguments(tensors)
        left = iter(tensors)
        leaves = [next(left) if other is Tensor else other for other in self.others]
        return Arguments(*tree_unflatten(leaves, self.spec))

    def holds(self, other: "_Form") -> bool:
        """Whether another form is the same; of objects, only the same ones are."""
        return self.spec == other.spec and all(
            a is b or (type(a) is type(b) and isinstance(a, bool | int | float | str) and a == b)
            for a, b in zip(self.others, other.others, strict=True)
        )


def _taken_apart(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[_Form, tuple[Tensor, ...]]:
    if not kwargs and all(isinstance(arg, Tensor) for arg in args):  # in a microsecond
        return _Form([], None), args
    leaves, spec = tree_flatten((args, kwargs))
    others = [Tensor if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    return _Form(others, spec), tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))


def _refuse_other_parameters(
    program: nn.Module, trained: list[nn.Parameter], present: set[int]
) -> None:
    """Parameters that nobody would train by mistake."""
    known = {id(parameter) for parameter in trained}
    named = [(name, p) for name, p in program.named_parameters() if p.requires_grad]
    late = [name for name, p in named if id(p) not in present | known]
    if late:
        raise ValueError(
            f"optimizer: lacks {', '.join(late)}, created at the first run of the programs: give "
            "a function that makes it, as functools.partial(torch.optim.Adam, lr=1e-3)"
        )
    if not any(id(p) in known for _, p in named):
        raise ValueError("optimizer: holds no trainable parameter of the program")
