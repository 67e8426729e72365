"""Posteriors that are a linear layer for each parameter of a family."""

from collections.abc import Callable
from typing import Any

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

__all__ = ["LinearHeads", "located"]


class LinearHeads(nn.Module):
    """A linear layer for each parameter of a family.

    Args:
        family: From the layers' values, by name, to the distribution of each datapoint.
        in_features: Width of the encoder's features.
        sizes: Width of each layer, by name.

    Attributes:
        order: In which layers are evaluated, by default the first one last: it decides the last
            bits of the features' gradient.
    """

    def __init__(self, family: Callable[..., Any], in_features: int, **sizes: int) -> None:
        super().__init__()
        self.family = family
        for name, size in sizes.items():
            self.add_module(name, nn.Linear(in_features, size))
        first, *others = sizes
        self.order = (*others, first)

    def forward(self, features: Tensor) -> TorchDistributionMixin:
        """``(*batch, in_features)`` → a distribution of ``z``."""
        return self.family(**{name: getattr(self, name)(features) for name in self.order})


def located(family: Any, loc: Tensor, log_scale: Tensor) -> TorchDistributionMixin:
    """Independent dimensions of a family of locations and scales, ``(*batch, latent_dim)``."""
    return family(loc, log_scale.exp()).to_event(1)
