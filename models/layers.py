"""Layers that networks are made of."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["DenseLayers", "GatedLinear", "PixelLinear"]


class DenseLayers(nn.Module):
    r"""Fully connected layers, each followed by the activation.

    .. math:: h_0 = x, \qquad h_i = f(W_i h_{i-1} + b_i)

    Args:
        in_features: Width of the input.
        hidden: Width of each layer, first to last; empty means the identity.
        activation: Constructor of the nonlinearity, without arguments.
        gated: Use :class:`GatedLinear` layers, which have no other nonlinearity.
        dims: Dimensions of the input that are flattened into ``in_features``.

    Raises:
        ValueError: If a width is not positive.

    Example:
        >>> DenseLayers(784, [500, 200])(torch.zeros(3, 784)).shape
        torch.Size([3, 200])
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        activation: type[nn.Module] = nn.Tanh,
        gated: bool = False,
        dims: int = 1,
    ) -> None:
        super().__init__()
        self.dims = dims
        widths = [in_features, *hidden]
        if min(widths) < 1:
            raise ValueError(f"hidden: every width must be at least 1; got {list(hidden)}")
        self.out_features = widths[-1]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            if gated:
                layers.append(GatedLinear(fan_in, fan_out))
            else:
                layers += [nn.Linear(fan_in, fan_out), activation()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Features of ``x``: ``(*batch, *in_shape)`` → ``(*batch, out_features)``."""
        features: Tensor = self.layers(x.flatten(-self.dims))
        return features


class GatedLinear(nn.Module):
    r"""A linear layer whose outputs are opened and shut by another.

    .. math:: h = (W x + b) \odot \sigma(V x + c)

    References:
        VAE with a VampPrior (Tomczak & Welling, 2018), https://arxiv.org/abs/1705.07120

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.gate = nn.Linear(in_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """``(*batch, in_features)`` → ``(*batch, out_features)``."""
        gated: Tensor = self.linear(x) * torch.sigmoid(self.gate(x))
        return gated


class PixelLinear(nn.Module):
    """A linear layer from the feature maps at each pixel, as a 1 × 1 convolution.

    Args:
        maps: Number of feature maps.
        height: Of the maps.
        width: Of the maps.
        out_features: A multiple of ``height * width``; channels vary slowest.
    """

    def __init__(self, maps: int, height: int, width: int, out_features: int) -> None:
        super().__init__()
        self.sizes = (maps, height, width)
        self.convolution = nn.Conv2d(maps, out_features // (height * width), 1)

    def forward(self, features: Tensor) -> Tensor:
        """``(*batch, maps * height * width)`` → ``(*batch, out_features)``."""
        images = features.reshape(-1, *self.sizes)
        return self.convolution(images).reshape(*features.shape[:-1], -1)
