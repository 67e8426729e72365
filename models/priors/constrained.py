"""Priors on parts of the real line; posteriors are carried over to them by a bijection."""

from dataclasses import dataclass
from typing import ClassVar

from pyro import distributions as dist
from torch import nn
from torch.distributions import constraints

from aevb.models.priors.base import Prior
from aevb.models.priors.fixed import Fixed
from aevb.models.settings import positive
from aevb.models.supports import POSITIVE, SIMPLEX, UNIT_INTERVAL

__all__ = ["Beta", "Dirichlet", "Gamma", "LogNormal"]


@dataclass(frozen=True)
class Beta(Prior):
    r"""Independent beta distributions, ``z`` in (0, 1).

    .. math:: p(z) \propto \prod_j z_j^{a-1} (1 - z_j)^{b-1}

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), section 2.4,
        https://arxiv.org/abs/1312.6114

    Args:
        concentration1: a.
        concentration0: b.

    Raises:
        ValueError: If a concentration is not positive.

    Example:
        >>> z = Beta().build(latent_dim=3)().sample((1000,))
        >>> bool((z > 0).all() and (z < 1).all())
        True
    """

    concentration1: float = positive(2.0)
    concentration0: float = positive(2.0)
    support: ClassVar[constraints.Constraint] = UNIT_INTERVAL

    def build(self, latent_dim: int) -> nn.Module:
        """A module without parameters."""
        values = self.concentration1, self.concentration0
        return Fixed(dist.Beta, *values, latent_dim=latent_dim)


@dataclass(frozen=True)
class Gamma(Prior):
    r"""Independent gamma distributions, ``z`` positive.

    .. math:: p(z) \propto \prod_j z_j^{a-1} \exp(-r z_j)

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), section 2.4,
        https://arxiv.org/abs/1312.6114

    Args:
        concentration: a.
        rate: r.

    Raises:
        ValueError: If a value is not positive.

    Example:
        >>> bool((Gamma().build(latent_dim=3)().sample((1000,)) > 0).all())
        True
    """

    concentration: float = positive(2.0)
    rate: float = positive(2.0)
    support: ClassVar[constraints.Constraint] = POSITIVE

    def build(self, latent_dim: int) -> nn.Module:
        """A module without parameters."""
        return Fixed(dist.Gamma, self.concentration, self.rate, latent_dim=latent_dim)


@dataclass(frozen=True)
class LogNormal(Prior):
    r"""Independent log-normals, ``z`` positive: :math:`\log z_j \sim \mathcal{N}(m, s^2)`.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), section 2.4 (composition),
        https://arxiv.org/abs/1312.6114

    Args:
        loc: m, of the logarithm.
        scale: s, of the logarithm.

    Raises:
        ValueError: If ``scale`` is not positive.

    Example:
        >>> bool((LogNormal().build(latent_dim=3)().sample((1000,)) > 0).all())
        True
    """

    loc: float = 0.0
    scale: float = positive(1.0)
    support: ClassVar[constraints.Constraint] = POSITIVE

    def build(self, latent_dim: int) -> nn.Module:
        """A module without parameters."""
        return Fixed(dist.LogNormal, self.loc, self.scale, latent_dim=latent_dim)


@dataclass(frozen=True)
class Dirichlet(Prior):
    r"""Proportions: ``z`` is positive and sums to one.

    .. math:: p(z) \propto \prod_j z_j^{a - 1}

    References:
        Autoencoding Variational Inference for Topic Models (Srivastava & Sutton, 2017),
        https://arxiv.org/abs/1703.01488

    Args:
        concentration: a, the same for every proportion.

    Raises:
        ValueError: If ``concentration`` is not positive, or there is only one proportion.

    Example:
        >>> z = Dirichlet().build(latent_dim=3)().sample((1000,))
        >>> bool(((z.sum(-1) - 1).abs() < 1e-6).all())
        True
    """

    concentration: float = positive(1.0)
    support: ClassVar[constraints.Constraint] = SIMPLEX

    def build(self, latent_dim: int) -> nn.Module:
        """A module without parameters."""
        if latent_dim < 2:
            raise ValueError(f"Dirichlet: needs latent_dim of at least 2; got {latent_dim}")
        return Fixed(dist.Dirichlet, self.concentration, latent_dim=latent_dim)
