"""Posteriors reparameterized through their distribution function (implicitly)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import softplus

from aevb.models.posteriors.base import Posterior
from aevb.models.supports import POSITIVE, UNIT_INTERVAL

__all__ = ["Beta", "Gamma"]


@dataclass(frozen=True)
class Gamma(Posterior):
    r"""Independent gamma distributions on the positive numbers, with implicit gradients.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), section 2.4, items 1 and 3,
        https://arxiv.org/abs/1312.6114; Implicit Reparameterization Gradients (Figurnov et al.,
        2018), https://arxiv.org/abs/1805.08498

    Example:
        >>> import torch
        >>> bool((Gamma().build(10, 2)(torch.zeros(3, 10)).rsample() > 0).all())
        True
    """

    support: ClassVar[constraints.Constraint] = POSITIVE

    def build(self, in_features: int, latent_dim: int) -> nn.Module:
        """Two linear heads, made positive: concentration and rate."""
        return _Positive(dist.Gamma, in_features, latent_dim)


@dataclass(frozen=True)
class Beta(Posterior):
    r"""Independent beta distributions on (0, 1), with implicit gradients.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), section 2.4, items 1 and 3,
        https://arxiv.org/abs/1312.6114; Implicit Reparameterization Gradients (Figurnov et al.,
        2018), https://arxiv.org/abs/1805.08498

    Example:
        >>> import torch
        >>> bool((Beta().build(10, 2)(torch.zeros(3, 10)).rsample() < 1).all())
        True
    """

    support: ClassVar[constraints.Constraint] = UNIT_INTERVAL

    def build(self, in_features: int, latent_dim: int) -> nn.Module:
        """Two linear heads, made positive: the two concentrations."""
        return _Positive(dist.Beta, in_features, latent_dim)


# With less than this, many draws fall onto the ends of the support in float32: of a beta with a
# concentration of 0.1, a fifth.
_LEAST = 0.5


class _Positive(nn.Module):
    def __init__(self, family: Any, in_features: int, latent_dim: int) -> None:
        super().__init__()
        self.family = family
        self.first = nn.Linear(in_features, latent_dim)
        self.second = nn.Linear(in_features, latent_dim)

    def forward(self, features: Tensor) -> TorchDistributionMixin:
        first, second = (softplus(head(features) + 1) for head in (self.first, self.second))
        # a rate moves no draw to the ends of the support
        least = 1e-6 if self.family is dist.Gamma else _LEAST
        return self.family(_LEAST + first, least + second).to_event(1)
