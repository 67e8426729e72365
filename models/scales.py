"""Where the standard deviation of a likelihood comes from."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor, nn

from aevb.models.settings import Checked, positive

__all__ = ["FixedScale", "LearnedScale", "PerPixelScale", "PredictedScale", "Scale"]


Head = Callable[[int, int], nn.Module]


class Scale(Checked, ABC):
    """A choice of standard deviation, without shapes; ``build`` gives it those.

    Example:
        >>> import torch
        >>> FixedScale(0.5).build(9, 4)(torch.zeros(2, 9))
        tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """

    @abstractmethod
    def build(self, in_features: int, out_features: int, head: Head = nn.Linear) -> nn.Module:
        """A module whose ``forward(features)`` is positive, ``(*batch, out_features)`` or shorter.

        Args:
            in_features: Width of the decoder's features.
            out_features: Number of observed features.
            head: Makes the layer from the features, called as ``head(in_features, out_features)``.
        """


@dataclass(frozen=True)
class FixedScale(Scale):
    """One known standard deviation for every feature, in units of the data.

    References:
        Probabilistic Principal Component Analysis (Tipping & Bishop, 1999), section 3, with a
        noise level that is given, https://doi.org/10.1111/1467-9868.00196

    Raises:
        ValueError: If ``value`` is not positive.

    Example:
        >>> import torch
        >>> FixedScale(0.5).build(10, 3)(torch.zeros(2, 10))
        tensor([0.5000, 0.5000, 0.5000])
    """

    value: float = positive(1.0)

    def build(self, in_features: int, out_features: int, head: Head = nn.Linear) -> nn.Module:
        """No parameters; ``forward`` gives ``(out_features,)``."""
        return _SharedScale(torch.tensor(log(self.value)), out_features, trainable=False)


@dataclass(frozen=True)
class LearnedScale(Scale):
    """One standard deviation for every feature, learned as a parameter.

    References:
        Probabilistic Principal Component Analysis (Tipping & Bishop, 1999), section 3,
        https://doi.org/10.1111/1467-9868.00196

    Args:
        initial: Its value before training, in units of the data.

    Example:
        >>> import torch
        >>> scale = LearnedScale().build(10, 3)
        >>> scale(torch.zeros(2, 10)).shape, sum(p.numel() for p in scale.parameters())
        (torch.Size([3]), 1)
    """

    initial: float = positive(1.0)

    def build(self, in_features: int, out_features: int, head: Head = nn.Linear) -> nn.Module:
        """One parameter; ``forward`` gives ``(out_features,)``."""
        return _SharedScale(torch.tensor(log(self.initial)), out_features, trainable=True)


@dataclass(frozen=True)
class PerPixelScale(Scale):
    """A standard deviation for each feature, the same for every datapoint, learned.

    References:
        Pattern Recognition and Machine Learning (Bishop, 2006), section 12.2.4 (factor analysis)

    Args:
        initial: Their value before training, in units of the data.

    Example:
        >>> import torch
        >>> scale = PerPixelScale().build(10, 3)
        >>> scale(torch.zeros(2, 10)).shape, sum(p.numel() for p in scale.parameters())
        (torch.Size([3]), 3)
    """

    initial: float = positive(1.0)

    def build(self, in_features: int, out_features: int, head: Head = nn.Linear) -> nn.Module:
        """``out_features`` parameters; ``forward`` gives ``(out_features,)``."""
        start = torch.full((out_features,), log(self.initial))
        return _SharedScale(start, out_features, trainable=True)


@dataclass(frozen=True)
class PredictedScale(Scale):
    r"""A standard deviation for each feature and datapoint, from a linear log-variance head.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), appendix C.2,
        https://arxiv.org/abs/1312.6114

    Example:
        >>> import torch
        >>> PredictedScale().build(10, 3)(torch.zeros(2, 10)).shape
        torch.Size([2, 3])
    """

    def build(self, in_features: int, out_features: int, head: Head = nn.Linear) -> nn.Module:
        """One linear head; ``forward``: ``(*batch, in_features)`` → ``(*batch, out_features)``."""
        return _PredictedScale(head(in_features, out_features))


class _SharedScale(nn.Module):
    log_scale: Tensor

    def __init__(self, log_scale: Tensor, out_features: int, trainable: bool) -> None:
        super().__init__()
        self.out_features = out_features
        if trainable:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        return self.log_scale.exp().expand(self.out_features)


class _PredictedScale(nn.Module):
    def __init__(self, log_variance: nn.Module) -> None:
        super().__init__()
        self.log_variance = log_variance

    def forward(self, features: Tensor) -> Tensor:
        return torch.exp(0.5 * self.log_variance(features))
