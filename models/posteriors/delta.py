"""No posterior at all: the ordinary autoencoder's code."""

from dataclasses import dataclass
from typing import ClassVar

from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from aevb.models.posteriors.base import Posterior
from aevb.models.posteriors.heads import LinearHeads

__all__ = ["Delta"]


@dataclass(frozen=True)
class Delta(Posterior):
    r"""All mass on one value: the model becomes an ordinary autoencoder.

    Training maximizes :math:`\log p(x, z(x))`, a penalized reconstruction and no bound on the
    evidence; estimates of the evidence refuse it.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), section 2.3 (connection with
        autoencoders), https://arxiv.org/abs/1312.6114

    Example:
        >>> import torch
        >>> Delta().build(10, 2)(torch.zeros(3, 10)).rsample().shape
        torch.Size([3, 2])
    """

    scores_any_value: ClassVar[bool] = False

    def build(self, in_features: int, latent_dim: int) -> nn.Module:
        """One linear head."""
        return LinearHeads(_point, in_features, loc=latent_dim)


def _point(loc: Tensor) -> TorchDistributionMixin:
    return dist.Delta(loc, event_dim=1)
