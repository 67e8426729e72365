"""Noise on the encoder's input while it is trained, which keeps it from overfitting."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from aevb.models.settings import Checked, in_unit_interval, positive

__all__ = ["BitFlip", "Dropout", "GaussianNoise", "InputNoise", "noisy"]


class InputNoise(Checked, ABC):
    """A kind of noise; ``build`` gives a module that adds it in training mode only.

    Example:
        >>> noise = Dropout(probability=0.5).build()
        >>> bool((noise.eval()(torch.ones(3, 4)) == 1).all())
        True
    """

    @abstractmethod
    def build(self) -> nn.Module:
        """A module from data to noisy data of the same shape; the identity in evaluation mode."""


@dataclass(frozen=True)
class BitFlip(InputNoise):
    r"""Each value :math:`x` becomes :math:`1 - x` with a small probability.

    References:
        Stochastic Backpropagation and Approximate Inference in Deep Generative Models (Rezende,
        Mohamed & Wierstra, 2014), section 6, https://arxiv.org/abs/1401.4082

    Args:
        probability: Of a flip, in [0, 1].

    Raises:
        ValueError: If it is no probability.

    Example:
        >>> BitFlip(1.0).build()(torch.tensor([0.0, 1.0]))
        tensor([1., 0.])
    """

    probability: float = in_unit_interval(0.1)

    def build(self) -> nn.Module:
        """See :meth:`InputNoise.build`."""
        return _InTraining(_flipped, self.probability)


@dataclass(frozen=True)
class Dropout(InputNoise):
    r"""Each value becomes zero with a small probability; the others keep their size.

    References:
        Stochastic Backpropagation and Approximate Inference in Deep Generative Models (Rezende,
        Mohamed & Wierstra, 2014), section 6, https://arxiv.org/abs/1401.4082

    Args:
        probability: Of a zero, in [0, 1].

    Raises:
        ValueError: If it is no probability.

    Example:
        >>> Dropout(1.0).build().eval()(torch.tensor([0.0, 1.0]))
        tensor([0., 1.])
    """

    probability: float = in_unit_interval(0.1)

    def build(self) -> nn.Module:
        """See :meth:`InputNoise.build`."""
        return _InTraining(_dropped, self.probability)


@dataclass(frozen=True)
class GaussianNoise(InputNoise):
    r"""Each value becomes :math:`x + s\,\epsilon`, :math:`\epsilon \sim \mathcal{N}(0, 1)`.

    References:
        Stochastic Backpropagation and Approximate Inference in Deep Generative Models (Rezende,
        Mohamed & Wierstra, 2014), section 6, https://arxiv.org/abs/1401.4082

    Args:
        scale: s, in units of what the encoder sees: the data themselves, but the logarithms of
            counts, and classes scaled to [0, 1].

    Raises:
        ValueError: If ``scale`` is not positive.

    Example:
        >>> GaussianNoise(0.1).build()(torch.zeros(3, 4)).shape
        torch.Size([3, 4])
    """

    scale: float = positive(0.1)

    def build(self) -> nn.Module:
        """See :meth:`InputNoise.build`."""
        return _InTraining(_shifted, self.scale)


def noisy(noise: nn.Module, x: Tensor) -> Tensor:
    """Noise as a site of the guide, so that a replay of the guide sees the same.

    Args:
        noise: From :meth:`InputNoise.build`, or the identity.
        x: Data, ``(B, *shape)``, inside its plate.
    """
    if not noise.training or isinstance(noise, nn.Identity):
        return x
    fixed = dist.Delta(noise(x), event_dim=x.ndim - 1).mask(False)
    seen: Tensor = pyro.sample("noisy_x", fixed, infer={"is_auxiliary": True})
    return seen


class _InTraining(nn.Module):
    """Noise of some amount in training mode, and the identity otherwise."""

    def __init__(self, add: Callable[[Tensor, float], Tensor], amount: float) -> None:
        super().__init__()
        self.add, self.amount = add, amount

    def forward(self, x: Tensor) -> Tensor:
        return self.add(x, self.amount) if self.training else x


def _flipped(x: Tensor, probability: float) -> Tensor:
    return torch.where(torch.rand_like(x) < probability, 1 - x, x)


def _dropped(x: Tensor, probability: float) -> Tensor:
    return torch.where(torch.rand_like(x) < probability, torch.zeros_like(x), x)


def _shifted(x: Tensor, scale: float) -> Tensor:
    return x + scale * torch.randn_like(x)
