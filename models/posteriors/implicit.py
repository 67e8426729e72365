"""Posteriors reparameterized through their distribution function (implicitly)."""

from dataclasses import dataclass
from typing import ClassVar

from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import softplus

from aevb.models.posteriors.base import Posterior
from aevb.models.posteriors.heads import LinearHeads
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
        return LinearHeads(_gamma, in_features, first=latent_dim, second=latent_dim)


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
        return LinearHeads(_beta, in_features, first=latent_dim, second=latent_dim)


# With less than this, many draws fall onto the ends of the support in float32: of a beta with a
# concentration of 0.1, a fifth.
_LEAST = 0.5


def _gamma(first: Tensor, second: Tensor) -> TorchDistributionMixin:
    # a rate moves no draw to the ends of the support
    concentration, rate = _LEAST + softplus(first + 1), 1e-6 + softplus(second + 1)
    return dist.Gamma(concentration, rate).to_event(1)


def _beta(first: Tensor, second: Tensor) -> TorchDistributionMixin:
    return dist.Beta(_LEAST + softplus(first + 1), _LEAST + softplus(second + 1)).to_event(1)
