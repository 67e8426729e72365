"""Posteriors that bend a diagonal normal, datapoint by datapoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.distributions.transforms.planar import ConditionedPlanar
from pyro.nn import ConditionalAutoRegressiveNN
from torch import Tensor, nn

from aevb.models.autoregressive import Autoregressive, order
from aevb.models.posteriors.base import Posterior
from aevb.models.posteriors.heads import LinearHeads, located
from aevb.models.settings import at_least

__all__ = ["InverseAutoregressiveFlow", "PlanarFlow"]


@dataclass(frozen=True)
class InverseAutoregressiveFlow(Posterior):
    r"""Draws of a diagonal normal, bent by masked autoregressive networks of the features.

    .. math:: z_t = \sigma_t(z_{t-1}, x) \odot z_{t-1} + m_t(z_{t-1}, x)

    Drawing, and scoring what was drawn, takes one evaluation a layer; scoring another value takes
    one for each dimension.

    References:
        Improving Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016),
        https://arxiv.org/abs/1606.04934

    Args:
        layers: Number of layers; the order of the dimensions is reversed between them.
        hidden: Widths of each layer's network.

    Raises:
        ValueError: If there is no layer, or fewer than two dimensions.

    Example:
        >>> q = InverseAutoregressiveFlow().build(10, 4)(torch.zeros(3, 10))
        >>> q.log_prob(q.rsample()).shape
        torch.Size([3])
    """

    layers: int = at_least(1, 2)
    hidden: Sequence[int] = (64,)

    def build(self, in_features: int, latent_dim: int) -> nn.Module:
        """Two heads for the normal, and the layers' networks."""
        if latent_dim < 2:
            raise ValueError(
                f"InverseAutoregressiveFlow: needs at least 2 dimensions; got {latent_dim}: use "
                "PlanarFlow() or DiagonalNormal()"
            )
        return _InverseAutoregressiveFlow(self, in_features, latent_dim)


@dataclass(frozen=True)
class PlanarFlow(Posterior):
    r"""Draws of a diagonal normal, bent along one direction by each layer.

    .. math:: z_t = z_{t-1} + \hat u_t(x) \tanh(w_t(x)^\top z_{t-1} + b_t(x))

    Its inverse has no closed form, so only its own draws can be scored.

    References:
        Variational Inference with Normalizing Flows (Rezende & Mohamed, 2015), section 4.1,
        https://arxiv.org/abs/1505.05770

    Args:
        layers: Number of layers.

    Raises:
        ValueError: If there is none.

    Example:
        >>> q = PlanarFlow().build(10, 4)(torch.zeros(3, 10))
        >>> q.log_prob(q.rsample()).shape
        torch.Size([3])
    """

    layers: int = at_least(1, 4)
    scores_any_value: ClassVar[bool] = False

    def build(self, in_features: int, latent_dim: int) -> nn.Module:
        """Two heads for the normal, and three for each layer."""
        return _PlanarFlow(self.layers, in_features, latent_dim)


class _BentNormal(LinearHeads):
    """A diagonal normal from two linear heads, to be bent."""

    def __init__(self, in_features: int, latent_dim: int) -> None:
        normal = partial(located, dist.Normal)
        super().__init__(normal, in_features, loc=latent_dim, log_scale=latent_dim)
        self.order = ("loc", "log_scale")


class _InverseAutoregressiveFlow(_BentNormal):
    def __init__(
        self, family: InverseAutoregressiveFlow, in_features: int, latent_dim: int
    ) -> None:
        super().__init__(in_features, latent_dim)
        widths = [max(width, latent_dim) for width in family.hidden]
        self.size = latent_dim
        self.networks = nn.ModuleList()
        for number in range(family.layers):
            permutation: Any = torch.tensor(order(number, latent_dim))
            self.networks.append(
                ConditionalAutoRegressiveNN(
                    latent_dim, in_features, widths, permutation=permutation
                )
            )

    def forward(self, features: Tensor) -> TorchDistributionMixin:
        layers = [
            Autoregressive(partial(_at, network, features), order(number, self.size))
            for number, network in enumerate(self.networks)
        ]
        return dist.TransformedDistribution(super().forward(features), layers)


def _at(network: nn.Module, features: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """A conditional network, for latents and features whose batches broadcast."""
    batch = torch.broadcast_shapes(z.shape[:-1], features.shape[:-1])
    shift, log_scale = network(z.expand(*batch, -1), context=features.expand(*batch, -1))
    return shift, log_scale


class _PlanarFlow(_BentNormal):
    def __init__(self, layers: int, in_features: int, latent_dim: int) -> None:
        super().__init__(in_features, latent_dim)
        self.sizes = [1, latent_dim, latent_dim]
        self.heads = nn.ModuleList(nn.Linear(in_features, sum(self.sizes)) for _ in range(layers))

    def forward(self, features: Tensor) -> TorchDistributionMixin:
        layers = [
            ConditionedPlanar(head(features).split(self.sizes, dim=-1)) for head in self.heads
        ]
        return dist.TransformedDistribution(super().forward(features), layers)
