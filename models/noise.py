"""Noise on the encoder's input while it is trained, which keeps it from overfitting."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

__all__ = ["BitFlip", "Dropout", "GaussianNoise", "InputNoise", "noisy"]


class InputNoise(ABC):
    """A kind of noise; ``build`` gives a module that adds it in training mode only."""

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

    probability: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        _check_probability(self, self.probability)

    def build(self) -> nn.Module:
        """See :meth:`InputNoise.build`."""
        return _BitFlip(self.probability)


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

    probability: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        _check_probability(self, self.probability)

    def build(self) -> nn.Module:
        """See :meth:`InputNoise.build`."""
        return _Dropout(self.probability)


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

    scale: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what is no scale."""
        if not self.scale > 0:
            raise ValueError(f"GaussianNoise: scale must be positive; got {self.scale}")

    def build(self) -> nn.Module:
        """See :meth:`InputNoise.build`."""
        return _GaussianNoise(self.scale)


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


def _check_probability(noise: InputNoise, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{type(noise).__name__}: probability must be in [0, 1]; got {value}")


class _BitFlip(nn.Module):
    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return torch.where(torch.rand_like(x) < self.probability, 1 - x, x)


class _Dropout(nn.Module):
    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return torch.where(torch.rand_like(x) < self.probability, torch.zeros_like(x), x)


class _GaussianNoise(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * torch.randn_like(x) if self.training else x
