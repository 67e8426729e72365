"""A user's Pyro model and guide as one module that owns their parameters."""

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import constraints, transform_to

from aevb.data.tables import html_table
from aevb.inference.process.devices import device_of, modules_of
from aevb.inference.process.randomness import stream
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.arguments import Arguments
from aevb.inference.programs.layouts import DrawsOfIntegers
from aevb.inference.programs.protocol import ProgramPair

__all__ = ["Program", "data_plate_size", "name_of", "prepare"]


_SHOWN = 20  # parameters in a table
_SITES = "param_sites."  # names of parameters of sites in a state begin so


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
        # loaded, for parameters that do not exist yet, and who may create them
        self._awaited: dict[str, Tensor] = {}
        self._unmet: set[str] = set()

    def model(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model with this module's parameters."""
        if "model" in self._unmet:
            self._meet("model", self.model_program, args, kwargs)
        with self._own_parameters():
            return self.model_program(*args, **kwargs)

    def guide(self, *args: Any, **kwargs: Any) -> Any:
        """Run the guide with this module's parameters."""
        if "guide" in self._unmet:
            self._meet("guide", self.guide_program, args, kwargs)
        with self._own_parameters():
            return self.guide_program(*args, **kwargs)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Take over the state of another such program, even before the first call.

        Parameters that are created at the first call get their values then.

        Args:
            state_dict: Of that program.
            strict: Whether names that are missing, or are nobody's, are errors.
            assign: As for ``torch.nn.Module``.

        Raises:
            RuntimeError: If a name or shape does not fit; of parameters that do not exist yet at
                the first calls of model and guide.

        Example:
            >>> import pyro, torch
            >>> from pyro.distributions import Delta, Normal
            >>> def model(x):
            ...     mean = pyro.sample("mean", Normal(0.0, 10.0))
            ...     pyro.sample("x", Normal(mean, 1.0), obs=x)
            >>> def guide(x):
            ...     pyro.sample("mean", Delta(pyro.param("at", torch.zeros(()))))
            >>> program = Program(model, guide)
            >>> program.load_state_dict({"param_sites.site/at": torch.tensor(3.0)})
            <All keys matched successfully>
            >>> [parameter.item() for parameter in program.parameters()]
            [3.0]
        """
        here = self.state_dict().keys()
        self._awaited, self._unmet = {}, set()
        if self.complete or not strict or state_dict.keys() <= here:
            return super().load_state_dict(state_dict, strict, assign)
        for name, value in state_dict.items():
            if name.startswith(_SITES) and name not in here:
                site = name.removeprefix(_SITES)
                self.param_sites[site] = nn.Parameter(value.detach().clone())
        here = self.state_dict().keys()
        found = super().load_state_dict(
            {name: value for name, value in state_dict.items() if name in here}, True, assign
        )
        self._awaited = {name: value for name, value in state_dict.items() if name not in here}
        self._unmet = {"model", "guide"}
        return found

    @property
    def is_awaiting(self) -> bool:
        """Whether values were loaded for parameters that do not exist yet."""
        return bool(self._awaited)

    def _meet(self, which: str, program: Callable[..., Any], args: Any, kwargs: Any) -> None:
        """Before its first call after loading, have a program create what was loaded."""
        self._unmet.discard(which)
        with (
            torch.no_grad(),
            poutine.block(),  # from handlers around the call
            self._own_parameters(),
            stream(0, "first call", device_of(self, args=args)),
        ):
            program(*args, **kwargs)
        self.leave_to_modules()
        here = self.state_dict(keep_vars=True)
        for name in self._awaited.keys() & here.keys():
            value = self._awaited.pop(name)
            if here[name].shape != value.shape:
                raise _other_shape(name, here[name], value)
            with torch.no_grad():
                here[name].copy_(value)
        unknown = {_SITES + key for key in self.param_sites.keys() - self._constraints.keys()}
        if not self._unmet and (unknown or self._awaited):
            names = sorted(unknown | self._awaited.keys())
            raise RuntimeError(f"loaded, but this program has no such parameters: {names}")

    def __repr__(self) -> str:
        """One line: the names of both programs, and how many parameters exist."""
        names = f"{name_of(self.model_program)}, {name_of(self.guide_program)}"
        return f"Program({names}: {_counted(self)})"

    def _repr_html_(self) -> str:
        """Its parameters as a table, the first ones of many."""
        shapes = {name: tuple(p.shape) for name, p in self.named_parameters()}
        rows = dict(list(shapes.items())[:_SHOWN])
        more = len(shapes) - len(rows)
        return html_table(repr(self), rows, f"and {more} others" if more else "")

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
        if initial is not None and key in self.param_sites and key not in self._constraints:
            own = _unconstrained(initial() if callable(initial) else initial, constraint)
            if own.shape != self.param_sites[key].shape:  # it was loaded before it was met
                raise _other_shape(name, own, self.param_sites[key])
            self._constraints[key] = constraint
        if key not in self.param_sites or key not in self._constraints:
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


def name_of(program: Any) -> str:
    """The name of a function, or of the class of an object.

    Example:
        >>> name_of(name_of), name_of(nn.Linear(1, 1))
        ('name_of', 'Linear')
    """
    return str(getattr(program, "__qualname__", type(program).__name__)).rpartition(".")[2]


def _counted(program: nn.Module) -> str:
    count = sum(parameter.numel() for parameter in program.parameters())
    later = "" if count else " so far: they are created at the first call"
    return f"{count:,} parameters{later}"


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


def _other_shape(name: str, own: Tensor, loaded: Tensor) -> RuntimeError:
    return RuntimeError(
        f"{name}: expected shape {tuple(own.shape)}, as this program has at these arguments; "
        f"loaded was {tuple(loaded.shape)}"
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
