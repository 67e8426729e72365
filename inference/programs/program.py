"""A user's Pyro model and guide as one module that owns their parameters."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import constraints, transform_to

from aevb.inference.process.devices import modules_of
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.arguments import Arguments
from aevb.inference.programs.layouts import DrawsOfIntegers
from aevb.inference.programs.protocol import ProgramPair

__all__ = ["Program", "data_plate_size", "prepare"]


class Program(nn.Module):
    r"""Any Pyro model and guide, with their parameters held by this module.

    ``pyro.param``, ``pyro.module``, ``PyroModule`` and autoguides work inside the two programs, as
    do methods of a module, such as those of ``pyro.contrib.gp``. Their parameters are created at
    the first call and live here rather than in Pyro's global store, which is neither read nor
    written, so two programs never share weights by accident.

    Args:
        model: Pyro callable of the joint distribution.
        guide: Pyro callable with the same arguments; every latent site of the model appears in it.

    Example:
        >>> import pyro, torch
        >>> from pyro.distributions import Normal
        >>> def model(x):
        ...     mean = pyro.sample("mean", Normal(0.0, 10.0))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", Normal(mean, 1.0), obs=x)
        >>> guide = pyro.infer.autoguide.AutoNormal(model)
        >>> program = Program(model, guide)
        >>> _ = program.guide(torch.zeros(5))
        >>> sorted(name for name, _ in program.named_parameters())
        ['guide_program.locs.mean_unconstrained', 'guide_program.scales.mean_unconstrained']
    """

    def __init__(self, model: Callable[..., Any], guide: Callable[..., Any]) -> None:
        super().__init__()
        for name, program in (("model", model), ("guide", guide)):
            if not callable(program):
                raise ValueError(f"{name}: expected a Pyro callable; got {program!r}")
        self.model_program = model
        self.guide_program = guide
        # of programs that are methods of a module, or functions around one
        self.owners = nn.ModuleList(_owners(model, guide))
        self.param_sites = nn.ParameterDict()
        self._constraints: dict[str, constraints.Constraint] = {}
        self.complete = False  # whether every parameter should exist by now

    def model(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model with this module's parameters."""
        with self._own_parameters():
            return self.model_program(*args, **kwargs)

    def guide(self, *args: Any, **kwargs: Any) -> Any:
        """Run the guide with this module's parameters."""
        with self._own_parameters():
            return self.guide_program(*args, **kwargs)

    @contextmanager
    def _own_parameters(self) -> Iterator[None]:
        # The scope is an empty store for PyroModules, which write to it past every handler.
        with pyro.get_param_store().scope(), _LocalParameters(self):
            yield

    def leave_to_modules(self) -> None:
        """Give up the parameters that have turned out to belong to a submodule.

        A lazy ``PyroModule`` announces a parameter first and registers it afterwards.
        """
        modules = (m for m in self.modules() if m is not self.param_sites)
        registered = {id(p) for m in modules for p in m.parameters(recurse=False)}
        for key, parameter in list(self.param_sites.items()):
            if id(parameter) in registered:
                del self.param_sites[key]

    def own_parameter(self, name: str, initial: Any, constraint: Any) -> Tensor | None:
        """The constrained value of the ``pyro.param`` site ``name``, created when first met.

        A site that only reads gives no ``initial``, which else is a tensor or makes one.

        Returns:
            The value, or None where the parameter belongs to a submodule or to nobody.
        """
        key = "site/" + name.replace(".", "/")  # nn.ParameterDict refuses dots and its own names
        if key not in self.param_sites:
            if initial is None and name not in pyro.get_param_store():
                raise _foreign(name)
            if initial is None or any(initial is p for p in self.parameters()):
                return None
            if self.complete:
                raise ValueError(
                    f"parameter {name!r} appears for the first time in the middle of training, "
                    "where no optimizer would change it: let it be met at the first call"
                )
            value = initial() if callable(initial) else initial
            self.param_sites[key] = _unconstrained(value, constraint)
            self._constraints[key] = constraint
        parameter = self.param_sites[key]
        value = transform_to(self._constraints[key])(parameter)
        value.unconstrained = weakref.ref(parameter)
        return value


class _LocalParameters(Messenger):
    """Answers ``pyro.param`` from a program's own parameters."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program

    def _pyro_param(self, msg: Any) -> None:
        if msg["done"] or msg["value"] is not None:
            return
        initial = msg["args"][1] if len(msg["args"]) > 1 else None
        constraint = msg["kwargs"].get("constraint", constraints.real)
        value = self.program.own_parameter(msg["name"], initial, constraint)
        if value is not None:
            msg["value"] = value
            msg["done"] = True


def prepare(program: ProgramPair, arguments: Arguments) -> tuple[poutine.Trace, poutine.Trace]:
    """Run guide and model once, so that lazy parameters exist and mistakes show.

    Returns:
        The traces of model and guide, with log-probabilities.

    Raises:
        ValueError: If a parameter site uses a tensor that the program does not own, so that
            training would leave it unchanged; or as Pyro's validation finds.
    """
    if isinstance(program, Program):
        program.complete = False
    with torch.no_grad(), argument_checks(True), DrawsOfIntegers():
        args, kwargs = arguments
        guide_trace = poutine.trace(program.guide).get_trace(*args, **kwargs)
        replayed = poutine.replay(program.model, trace=guide_trace)
        model_trace = poutine.trace(replayed).get_trace(*args, **kwargs)
        guide_trace.compute_log_prob()
        model_trace.compute_log_prob()
    if isinstance(program, Program):
        program.leave_to_modules()
        program.complete = True
    owned = {id(parameter) for parameter in program.parameters()}
    for trace in (guide_trace, model_trace):
        for name in trace.param_nodes:
            reference = getattr(trace.nodes[name]["value"], "unconstrained", None)
            if reference is not None and id(reference()) not in owned:
                raise _foreign(name)
    return model_trace, guide_trace


def data_plate_size(trace: poutine.Trace) -> tuple[int, int] | None:
    """Datapoints in ``pyro.plate("data", ...)`` and datapoints that they stand for.

    Returns:
        Size and full size of the plate, equal unless it is subsampled; None where no site lies in
        a plate of that name.
    """
    for site in trace.nodes.values():
        for frame in site.get("cond_indep_stack", ()):
            if frame.name == "data":
                return int(frame.size), int(frame.full_size or frame.size)
    return None


def _foreign(name: str) -> ValueError:
    return ValueError(
        f"parameter {name!r} belongs to Pyro's global store or to another module, and would not "
        "be trained: create it inside the program with an initial value"
    )


def _owners(*programs: Any) -> list[nn.Module]:
    """Modules that callables belong to or hold, each once, and none inside another."""
    found: dict[int, nn.Module] = {}
    for program in programs:
        if not isinstance(program, nn.Module):
            found |= {id(module): module for module in modules_of(program)}
    inner = {id(part) for module in found.values() for part in list(module.modules())[1:]}
    return [module for key, module in found.items() if key not in inner]


def _unconstrained(value: Any, constraint: Any) -> nn.Parameter:
    if isinstance(value, nn.Parameter) and constraint is constraints.real:
        return value  # pyro.module announces a module's own parameter: keep its identity
    start = transform_to(constraint).inv(torch.as_tensor(value).detach()).contiguous().clone()
    return nn.Parameter(start)
