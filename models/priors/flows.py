"""Priors that bend a standard normal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from pyro import distributions as dist
from pyro.distributions import transforms
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import AutoRegressiveNN, DenseNN
from torch import Tensor, nn

from aevb.models.autoregressive import Autoregressive, order
from aevb.models.priors.base import Prior
from aevb.models.settings import at_least

__all__ = ["NormalizingFlow"]


@dataclass(frozen=True)
class NormalizingFlow(Prior):
    r"""A standard normal bent by learned invertible layers that make densities cheap.

    .. math:: \log p(z) = \log \mathcal{N}(f(z); 0, I) + \log |\det \partial f / \partial z|

    Either masked autoregressive layers (each dimension given those before it; draws take one
    evaluation for each dimension) or affine coupling layers (one half given the other; draws are
    as cheap as densities).

    References:
        Masked Autoregressive Flow for Density Estimation (Papamakarios et al., 2017),
        https://arxiv.org/abs/1705.07057; Density estimation using Real NVP (Dinh et al., 2017),
        https://arxiv.org/abs/1605.08803

    Args:
        layers: Number of layers; the order of the dimensions is reversed between them.
        hidden: Widths of each layer's network.
        coupling: Coupling layers in place of autoregressive ones.

    Raises:
        ValueError: If there is no layer, or fewer than two dimensions.

    Example:
        >>> NormalizingFlow(coupling=True).build(latent_dim=4)().sample((5,)).shape
        torch.Size([5, 4])
    """

    layers: int = at_least(1, 4)
    hidden: Sequence[int] = (64,)
    coupling: bool = False

    def build(self, latent_dim: int) -> nn.Module:
        """The layers; ``forward()`` has event shape ``(latent_dim,)``."""
        if latent_dim < 2:
            raise ValueError(
                f"NormalizingFlow: needs latent_dim of at least 2; got {latent_dim}: use "
                "LearnedNormal() or MixtureOfGaussians()"
            )
        return _NormalizingFlow(self, latent_dim)


class _NormalizingFlow(nn.Module):
    zeros: Tensor

    def __init__(self, prior: NormalizingFlow, latent_dim: int) -> None:
        super().__init__()
        widths = [max(width, latent_dim) for width in prior.hidden]
        self.coupling = prior.coupling
        self.first = latent_dim // 2  # dimensions that a coupling layer leaves as they are
        self.networks = nn.ModuleList()
        for number in range(prior.layers):
            if prior.coupling:
                rest = latent_dim - self.first
                network: nn.Module = DenseNN(self.first, widths, [rest, rest])
            else:
                permutation: Any = torch.tensor(order(number, latent_dim))
                network = AutoRegressiveNN(latent_dim, widths, permutation=permutation)
            self.networks.append(network)
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> TorchDistributionMixin:
        base = dist.Normal(self.zeros, torch.ones_like(self.zeros)).to_event(1)
        # fresh layers each time, because they keep what they last computed; inverted, because
        # that is the direction in which an autoregressive density takes one evaluation
        layers = [self._layer(number, network) for number, network in enumerate(self.networks)]
        return dist.TransformedDistribution(base, [layer.inv for layer in layers])

    def _layer(self, number: int, network: nn.Module) -> Any:
        if self.coupling:
            return _Coupling(self.first, network, reverse=number % 2 == 1)
        return Autoregressive(network, order(number, len(self.zeros)))


class _Coupling(transforms.AffineCoupling):
    """Affine coupling that may take the dimensions in reverse order."""

    def __init__(self, first: int, network: nn.Module, reverse: bool) -> None:
        super().__init__(first, network)
        self.reverse = reverse

    def _call(self, x: Tensor) -> Tensor:
        return super()._call(self._ordered(x))

    def _inverse(self, y: Tensor) -> Tensor:
        return self._ordered(super()._inverse(y))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        last_x, last_y = cast(tuple[Any, Any], self._cached_x_y)
        known = x is last_x and y is last_y
        return super().log_abs_det_jacobian(x if known else self._ordered(x), y)

    def _ordered(self, x: Tensor) -> Tensor:
        return x.flip(-1) if self.reverse else x
