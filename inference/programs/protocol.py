"""What `inference` asks of a program, and what it takes for the answer where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from torch import nn

__all__ = [
    "ProgramPair",
    "SelfDescription",
    "as_module",
    "evaluation_mode",
    "has_latent_weights",
    "own_check",
    "stands_for",
    "standing_for",
]


@runtime_checkable
class ProgramPair(Protocol):
    """A module with two Pyro programs, ``model(*args)`` and ``guide(*args)``.

    This is all that a program must be; what it may say of itself is in :class:`SelfDescription`.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> pair: ProgramPair = FactorAnalysis((5,), 2)
        >>> callable(pair.model), callable(pair.guide)
        (True, True)
    """

    def model(self, *args: Any) -> Any:
        """The joint distribution of data and latents."""

    def guide(self, *args: Any) -> Any:
        """The posterior of the latents."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """What training changes."""


class SelfDescription(Protocol):
    """What a program may also say of itself, as the models of this package do.

    Nothing need be inherited, and each part may be missing: what holds then is said with it. The
    functions of this file are the only ones that look.

    Attributes:
        has_latent_weights: Whether the generative weights are latents with a prior of their own;
            else they are taken for parameters.
        stands_for: Datapoints that a minibatch stands for, once told; None where it stands for
            itself, as for a program that cannot be told.
    """

    has_latent_weights: bool
    stands_for: int | None

    def check_data(self, *args: Any) -> None:
        """Raise ValueError for data outside the model's domain; else both programs are run."""

    def tell_num_datapoints(self, num_datapoints: int | None) -> None:
        """Set ``stands_for``; else what a minibatch stands for is found out by trying."""


def as_module(program: ProgramPair) -> Any:
    """The program itself, as a module.

    Raises:
        ValueError: If it is no module with two programs.
    """
    if not isinstance(program, nn.Module) or not isinstance(program, ProgramPair):
        raise ValueError(
            "program: expected one of our models or Program(model, guide); got "
            f"{type(program).__name__}"
        )
    return program


@contextmanager
def evaluation_mode(program: Any) -> Iterator[None]:
    """Lest batch statistics count a look at the program as training; then each as it was."""
    modes = {}
    if isinstance(program, nn.Module):
        modes = {module: module.training for module in program.modules()}
        program.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def own_check(program: Any) -> Any:
    """:meth:`SelfDescription.check_data`, or None."""
    return getattr(program, "check_data", None)


def has_latent_weights(program: Any) -> bool:
    """See :class:`SelfDescription`."""
    return bool(getattr(program, "has_latent_weights", False))


def stands_for(program: Any) -> int | None:
    """See :class:`SelfDescription`."""
    number: int | None = getattr(program, "stands_for", None)
    return number


@contextmanager
def standing_for(program: Any, num_datapoints: int | None) -> Iterator[None]:
    """Inside the block a minibatch stands for N datapoints, if N is known and can be told."""
    tell = getattr(program, "tell_num_datapoints", None)
    if tell is None or num_datapoints is None:
        yield
        return
    before = stands_for(program)
    try:
        tell(num_datapoints)
        yield
    finally:
        tell(before)
