"""What a likelihood is: it knows its support and checks the data against it before training."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints

from aevb.models.settings import Checked

__all__ = ["FromHeads", "Grid", "Head", "Heads", "Likelihood"]

Head = Callable[[int, int], nn.Module]


class Likelihood(Checked, ABC):
    """A family of observation models; ``build`` gives it shapes and parameters.

    Example:
        >>> from aevb.models import Poisson
        >>> Poisson().build(9, (4,))(torch.zeros(2, 9)).event_shape
        torch.Size([4])
        >>> Poisson().check(torch.tensor([0.5]))
        Traceback (most recent call last):
        ValueError: Poisson needs ...
    """

    @abstractmethod
    def build(self, in_features: int, shape: tuple[int, ...], head: Head = nn.Linear) -> nn.Module:
        """A module whose ``forward(features)`` is the distribution of ``x`` given ``z``.

        Args:
            in_features: Width of the decoder's features.
            shape: Shape of one datapoint.
            head: Called as ``head(in_features, out_features)`` for each parameter; the module
                maps features to ``out_features`` numbers, a multiple of the datapoint's size.
        """

    @property
    @abstractmethod
    def support(self) -> constraints.Constraint:
        """Where each feature of ``x`` may lie."""

    @property
    @abstractmethod
    def remedy(self) -> str:
        """What to do with data that lie elsewhere, as the end of an error message."""

    def encoder_view(self, x: Tensor) -> Tensor:
        """The data as an encoder should see them, about unit size; by default as they are.

        Args:
            x: Data, ``(*batch, *shape)``.
        """
        return x

    def check(self, x: Tensor) -> None:
        """Refuse data outside the support.

        Args:
            x: Data, ``(N, *shape)``.

        Raises:
            ValueError: Says what the likelihood needs, what it got, and the remedy.
        """
        inside = self.support.check(x) & torch.isfinite(x)  # real.check lets infinity pass
        if not bool(inside.all()):
            name = type(self).__name__
            raise ValueError(f"{name} needs {_words(self.support)}; got {_seen(x)}: {self.remedy}")


class Heads(nn.ModuleDict):
    """One head for each parameter of a likelihood.

    Args:
        in_features: Width of the decoder's features.
        shape: Shape of one datapoint.
        head: See :meth:`Likelihood.build`.
        counts: Numbers for each feature of a datapoint, by name of the parameter; 0 for one that
            has no axis of its own.

    Example:
        >>> heads = Heads(9, (2, 4), nn.Linear, loc=0, logits=3)
        >>> {name: tuple(v.shape) for name, v in heads(torch.zeros(5, 9)).items()}
        {'loc': (5, 2, 4), 'logits': (5, 2, 4, 3)}
    """

    def __init__(
        self, in_features: int, shape: tuple[int, ...], head: Head, **counts: int
    ) -> None:
        size = prod(shape)
        super().__init__(
            {name: head(in_features, size * max(1, count)) for name, count in counts.items()}
        )
        self.shape = shape
        self.counts = counts

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """``(*batch, in_features)`` → each parameter, ``(*batch, *shape)`` and its own axis."""
        return {
            name: self._shaped(head(features), self.counts[name]) for name, head in self.items()
        }

    def _shaped(self, flat: Tensor, count: int) -> Tensor:
        if count == 0:
            return flat.unflatten(-1, self.shape)
        # channels vary slowest in a convolution's output
        return flat.unflatten(-1, (count, *self.shape)).movedim(-1 - len(self.shape), -1)


class FromHeads(nn.Module):
    """The distribution of ``x`` from one head for each parameter of its family.

    Args:
        family: From the parameters, by name, to distributions of single features.
        in_features: As for :class:`Heads`, as are the others.
        shape: Shape of one datapoint.
        head: See :meth:`Likelihood.build`.
        counts: Numbers for each feature, by name of the parameter.
    """

    def __init__(
        self,
        family: Callable[..., Any],
        in_features: int,
        shape: tuple[int, ...],
        head: Head,
        **counts: int,
    ) -> None:
        super().__init__()
        self.family = family
        self.heads = Heads(in_features, shape, head, **counts)

    def forward(self, features: Tensor) -> TorchDistributionMixin:
        """``(*batch, in_features)`` → a distribution of ``x``."""
        return self.family(**self.heads(features)).to_event(len(self.heads.shape))


class Grid(constraints.Constraint):
    """Multiples of 1 / steps in [0, 1].

    Args:
        steps: Number of steps from 0 to 1.

    Example:
        >>> Grid(4).check(torch.tensor([0.25, 0.3]))
        tensor([ True, False])
    """

    is_discrete = True

    def __init__(self, steps: int) -> None:
        self.steps = steps
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Whether each value lies on the grid, up to float32 rounding."""
        scaled = value * self.steps
        # a grey level read from a file and divided in float32 is off by a part in 10⁷
        near = (scaled - scaled.round()).abs() <= min(1e-5 * self.steps + 1e-4, 0.1)
        return near & (value >= 0) & (value <= 1)

    def __repr__(self) -> str:
        """As words."""
        return f"{{0, 1/{self.steps}, ..., 1}}"


def _words(support: constraints.Constraint) -> str:
    known = {
        constraints.boolean: "values in {0, 1}",
        constraints.unit_interval: "values in [0, 1]",
        constraints.real: "finite numbers",
        constraints.nonnegative_integer: "counts 0, 1, 2, ...",
    }
    if isinstance(support, type(constraints.integer_interval(0, 1))):
        return f"whole numbers from {support.lower_bound} to {support.upper_bound}"
    return known.get(support, f"values in {support}")


def _seen(x: Tensor) -> str:
    finite = x[torch.isfinite(x)]
    if finite.numel() < x.numel():
        return f"{x.numel() - finite.numel()} values that are NaN or infinite"
    levels = finite.unique().numel()
    plural = "" if levels == 1 else "s"
    return (
        f"{levels} distinct value{plural} from {float(finite.min()):g} to {float(finite.max()):g}"
    )
