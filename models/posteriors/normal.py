"""Normal posteriors: diagonal, rank-one precision, low-rank and full covariance.

What correlates latents is predicted relative to their scales and divided by their number K.
Predicted as it is, a fresh network's K² correlations swamp the scales, and training starts with a
noise that four epochs of MNIST do not undo (9 to 12 nats at 40 and 200 latents).
"""

from dataclasses import dataclass

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from aevb.models.normals import (
    CholeskyNormal,
    LowRankCovarianceNormal,
    RankOnePrecisionNormal,
)
from aevb.models.posteriors.base import Posterior
from aevb.models.posteriors.heads import LinearHeads
from aevb.models.settings import at_least

__all__ = ["DiagonalNormal", "FullNormal", "LowRankNormal", "RankOneNormal"]


@dataclass(frozen=True)
class DiagonalNormal(Posterior):
    r"""Independent normals whose mean and log-variance are linear in the features.

    .. math:: q(z|x) = \mathcal{N}(z; \mu(x), \mathrm{diag}\, \sigma^2(x))

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), equation 9,
        https://arxiv.org/abs/1312.6114

    Example:
        >>> import torch
        >>> posterior = DiagonalNormal().build(in_features=500, latent_dim=20)
        >>> posterior(torch.zeros(3, 500)).batch_shape, posterior(torch.zeros(3, 500)).event_shape
        (torch.Size([3]), torch.Size([20]))
    """

    def build(self, in_features: int, latent_dim: int) -> nn.Module:
        """Two linear heads; ``forward``: ``(*batch, in_features)`` → a distribution of ``z``."""
        return LinearHeads(_diagonal, in_features, loc=latent_dim, log_variance=latent_dim)


@dataclass(frozen=True)
class RankOneNormal(Posterior):
    r"""A normal whose precision is a diagonal plus a rank-one term; everything costs O(K).

    .. math:: q(z|x) = \mathcal{N}(z; \mu(x), C(x)), \qquad C^{-1} = D(x) + u(x) u(x)^\top

    References:
        Stochastic Backpropagation and Approximate Inference in Deep Generative Models (Rezende,
        Mohamed & Wierstra, 2014), section 4.3, https://arxiv.org/abs/1401.4082

    Example:
        >>> import torch
        >>> posterior = RankOneNormal().build(in_features=500, latent_dim=20)
        >>> posterior(torch.zeros(3, 500)).rsample().shape
        torch.Size([3, 20])
    """

    def build(self, in_features: int, latent_dim: int) -> nn.Module:
        """Three linear heads: mean, log of the precision's diagonal D, and K·D^(-1/2) u."""
        return LinearHeads(
            _rank_one, in_features, loc=latent_dim, log_precision=latent_dim,
            relative_factor=latent_dim,
        )  # fmt: skip


@dataclass(frozen=True)
class LowRankNormal(Posterior):
    r"""A normal whose covariance is a diagonal plus a term of low rank.

    .. math:: q(z|x) = \mathcal{N}(z; \mu(x), \mathrm{diag}\, d(x) + W(x) W(x)^\top)

    References:
        Gaussian variational approximation with a factor covariance structure (Ong, Nott & Smith,
        2018), https://doi.org/10.1080/10618600.2017.1390472

    Args:
        rank: Columns of W.

    Raises:
        ValueError: If ``rank`` is not positive.

    Example:
        >>> LowRankNormal(rank=1).build(10, 4)(torch.zeros(3, 10)).cov_factor.shape
        torch.Size([3, 4, 1])
    """

    rank: int = at_least(1, 2)

    def build(self, in_features: int, latent_dim: int) -> nn.Module:
        """Three linear heads: mean, log of the diagonal d, and K·diag(d)^(-1/2) W."""
        return LinearHeads(
            _low_rank, in_features, loc=latent_dim, log_diagonal=latent_dim,
            relative_factor=latent_dim * self.rank,
        )  # fmt: skip


@dataclass(frozen=True)
class FullNormal(Posterior):
    r"""A normal with every correlation, through the Cholesky factor of its covariance.

    .. math:: q(z|x) = \mathcal{N}(z; \mu(x), L(x) L(x)^\top)

    References:
        An Introduction to Variational Autoencoders (Kingma & Welling, 2019), section 2.5.1,
        https://arxiv.org/abs/1906.02691

    Example:
        >>> FullNormal().build(10, 2)(torch.zeros(3, 10)).covariance_matrix.shape
        torch.Size([3, 2, 2])
    """

    def build(self, in_features: int, latent_dim: int) -> nn.Module:
        """Three linear heads: mean, log of L's diagonal s, and K·diag(s)^(-1) L below it."""
        return _FullNormal(in_features, latent_dim)


def _diagonal(loc: Tensor, log_variance: Tensor) -> TorchDistributionMixin:
    return dist.Normal(loc, torch.exp(0.5 * log_variance)).to_event(1)


def _rank_one(
    loc: Tensor, log_precision: Tensor, relative_factor: Tensor
) -> TorchDistributionMixin:
    relative = relative_factor / log_precision.shape[-1]
    factor = (0.5 * log_precision).exp() * relative
    return RankOnePrecisionNormal(loc, log_precision.exp(), factor)


def _low_rank(
    loc: Tensor, log_diagonal: Tensor, relative_factor: Tensor
) -> TorchDistributionMixin:
    size = loc.shape[-1]
    relative = relative_factor.unflatten(-1, (size, -1))
    factor = (0.5 * log_diagonal).exp().unsqueeze(-1) * relative / size
    return LowRankCovarianceNormal(loc, factor, log_diagonal.exp())


class _FullNormal(nn.Module):
    places: Tensor

    def __init__(self, in_features: int, latent_dim: int) -> None:
        super().__init__()
        self.size = latent_dim
        self.loc = nn.Linear(in_features, latent_dim)
        self.log_diagonal = nn.Linear(in_features, latent_dim)
        rows, columns = torch.tril_indices(latent_dim, latent_dim, offset=-1)
        self.register_buffer("places", rows * latent_dim + columns, persistent=False)
        if latent_dim > 1:
            self.relative_below = nn.Linear(in_features, len(rows))

    def forward(self, features: Tensor) -> TorchDistributionMixin:
        scale = self.log_diagonal(features).exp()
        factor = torch.diag_embed(torch.ones_like(scale))
        if self.size > 1:
            below = self.relative_below(features) / self.size
            flat = factor.flatten(-2).index_copy(-1, self.places, below)
            factor = flat.unflatten(-1, (self.size, self.size))
        return CholeskyNormal(self.loc(features), scale_tril=scale.unsqueeze(-1) * factor)
