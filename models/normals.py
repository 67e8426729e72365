"""Correlated normal distributions, with closed divergences from independent ones."""

import math
from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import Independent, Normal, constraints
from torch.distributions.kl import register_kl

__all__ = ["CholeskyNormal", "LowRankCovarianceNormal", "RankOnePrecisionNormal"]

LOG_2PI = math.log(2 * math.pi)


class RankOnePrecisionNormal(TorchDistribution):
    r"""A normal with precision :math:`C^{-1} = D + u u^\top`; everything costs O(K).

    With :math:`s = u^\top D^{-1} u` and :math:`\eta = 1 / (1 + s)`,

    .. math::
        C = D^{-1} - \eta D^{-1} u u^\top D^{-1}, \qquad \log |C| = \log \eta - \log |D|, \\
        R = D^{-1/2} - \frac{1 - \sqrt\eta}{s} D^{-1} u u^\top D^{-1/2}, \qquad C = R R^\top.

    References:
        Stochastic Backpropagation and Approximate Inference in Deep Generative Models (Rezende,
        Mohamed & Wierstra, 2014), section 4.3 and appendix B, https://arxiv.org/abs/1401.4082

    Args:
        loc: Mean, ``(*batch, K)``.
        precision_diagonal: The diagonal of D, positive, ``(*batch, K)``.
        precision_factor: u, ``(*batch, K)``.

    Example:
        >>> one = torch.ones(3)
        >>> RankOnePrecisionNormal(0 * one, one, one).covariance_matrix
        tensor([[ 0.7500, -0.2500, -0.2500],
                [-0.2500,  0.7500, -0.2500],
                [-0.2500, -0.2500,  0.7500]])
    """

    arg_constraints = {
        "loc": constraints.real_vector,
        "precision_diagonal": constraints.independent(constraints.positive, 1),
        "precision_factor": constraints.real_vector,
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        precision_diagonal: Tensor,
        precision_factor: Tensor,
        validate_args: bool | None = None,
    ) -> None:
        self.loc, self.precision_diagonal, self.precision_factor = torch.broadcast_tensors(
            loc, precision_diagonal, precision_factor
        )
        scaled = self.precision_factor / self.precision_diagonal  # D⁻¹u
        self._scaled = scaled
        self._eta = 1 / (1 + (self.precision_factor * scaled).sum(-1, keepdim=True))
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "RankOnePrecisionNormal":
        """The same distribution over a larger batch."""
        new = self._get_checked_instance(RankOnePrecisionNormal, _instance)
        shape = torch.Size(batch_shape) + self.event_shape
        for name in ("loc", "precision_diagonal", "precision_factor", "_scaled"):
            setattr(new, name, getattr(self, name).expand(shape))
        new._eta = self._eta.expand(torch.Size(batch_shape) + (1,))
        super(RankOnePrecisionNormal, new).__init__(
            torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """The mean, ``(*batch, K)``."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The diagonal of C, ``(*batch, K)``."""
        # η (1 + Σ u_j²/D_j over the others) / D_i: no difference that could cancel
        shares = self.precision_factor * self._scaled
        before = torch.cumsum(shares, -1)[..., :-1]
        after = torch.cumsum(shares.flip(-1), -1).flip(-1)[..., 1:]
        zero = torch.zeros_like(shares[..., :1])
        others = torch.cat([zero, before], -1) + torch.cat([after, zero], -1)
        return self._eta * (1 + others) / self.precision_diagonal

    @property
    def covariance_matrix(self) -> Tensor:
        """C, ``(*batch, K, K)``."""
        outer = self._scaled.unsqueeze(-1) * self._scaled.unsqueeze(-2)
        return torch.diag_embed(1 / self.precision_diagonal) - self._eta.unsqueeze(-1) * outer

    @property
    def log_det_covariance(self) -> Tensor:
        """Log |C|, ``(*batch,)``."""
        return self._eta.log().squeeze(-1) - self.precision_diagonal.log().sum(-1)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Draws loc + R ε, ``(*sample_shape, *batch, K)``, with gradients."""
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        noise = noise * self.precision_diagonal.rsqrt()
        along = (self.precision_factor * noise).sum(-1, keepdim=True)
        # (1 − √η) / s, which is 0/0 at u = 0, is η / (1 + √η)
        factor = self._eta / (1 + self._eta.sqrt())
        return self.loc + noise - factor * along * self._scaled

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, ``(*batch,)``."""
        if self._validate_args:
            self._validate_sample(value)
        difference = value - self.loc
        along = (self.precision_factor * difference).sum(-1)
        square = (self.precision_diagonal * difference.square()).sum(-1) + along.square()
        size = self.event_shape[0]
        return -0.5 * (square + self.log_det_covariance + size * LOG_2PI)

    def entropy(self) -> Tensor:
        """In nats, ``(*batch,)``."""
        size = self.event_shape[0]
        return 0.5 * (self.log_det_covariance + size * (1 + LOG_2PI))


class CholeskyNormal(dist.MultivariateNormal):
    """A normal with any covariance, given by its Cholesky factor."""

    @property
    def log_det_covariance(self) -> Tensor:
        """Log |C|, ``(*batch,)``."""
        factor: Tensor = self.scale_tril
        return 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


class LowRankCovarianceNormal(dist.LowRankMultivariateNormal):
    """A normal whose covariance is a diagonal plus a term of low rank."""

    @property
    def log_det_covariance(self) -> Tensor:
        """Log |C|, ``(*batch,)``, by the matrix determinant lemma."""
        small: Tensor = self._capacitance_tril
        log_det = 2 * small.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return log_det + self.cov_diag.log().sum(-1)


def _kl_to_independent_normal(p: Any, q: Any) -> Tensor:
    """Closed form for a diagonal normal on the right."""
    if not isinstance(q.base_dist, Normal) or q.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    loc, scale = q.base_dist.loc, q.base_dist.scale
    squares = (p.variance + (p.mean - loc).square()) / scale.square()
    log_ratio = 2 * scale.log().expand_as(p.mean).sum(-1) - p.log_det_covariance
    return 0.5 * (squares.sum(-1) - p.event_shape[0] + log_ratio)


for _family in (RankOnePrecisionNormal, CholeskyNormal, LowRankCovarianceNormal):
    register_kl(_family, Independent)(_kl_to_independent_normal)
