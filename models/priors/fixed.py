"""A prior without parameters, as a module."""

from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

__all__ = ["Fixed"]


class Fixed(nn.Module):
    """A known distribution, with the same arguments for every latent dimension.

    Args:
        family: Distribution of one dimension, or of a vector.
        values: Arguments of the family, for each dimension.
        latent_dim: Dimensions of ``z``.
    """

    ones: Tensor

    def __init__(self, family: Any, *values: float, latent_dim: int) -> None:
        super().__init__()
        self.family = family
        self.values = values
        # A buffer, so that the distribution follows the model's device and precision.
        self.register_buffer("ones", torch.ones(latent_dim), persistent=False)

    def forward(self) -> TorchDistributionMixin:
        """The distribution, event shape ``(latent_dim,)``."""
        prior = self.family(*(value * self.ones for value in self.values))
        return prior.to_event(1 - prior.event_dim)
