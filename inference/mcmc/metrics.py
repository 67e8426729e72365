r"""Masses of Hamiltonian Monte Carlo, as the coordinates in which they are all one.

With :math:`M^{-1} = W W^T` and momenta :math:`p = W^{-T} r`, where r is standard normal, positions
move along W r and momenta by Wᵀ∇: no mass is ever inverted.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Dense", "Diagonal", "LowRank", "Metric"]


class Metric(Protocol):
    """A linear map W of each datapoint; rows are ``(chains, batch, dim)``."""

    @property
    def variance(self) -> Tensor:
        """Diagonal of M⁻¹, ``(batch, dim)``."""
        ...

    @property
    def inverse_mass(self) -> Tensor:
        """M⁻¹, which resembles the posterior's covariance, ``(batch, dim, dim)``."""
        ...

    def push(self, r: Tensor) -> Tensor:
        """W r, from standard momenta to velocities."""
        ...

    def pull(self, gradient: Tensor) -> Tensor:
        """Wᵀ∇, from gradients to forces on standard momenta."""
        ...

    def whiten(self, u: Tensor) -> Tensor:
        """W⁻¹u, from positions to those at which a fitting posterior is standard normal."""
        ...


@dataclass(frozen=True, repr=False)
class Diagonal:
    """Masses of single dimensions.

    Args:
        scale: Standard deviations, ``(batch, dim)``, of the dtype of positions.

    Example:
        >>> metric = Diagonal(torch.tensor([[2.0, 3.0]]))
        >>> metric.push(torch.ones(1, 1, 2)), metric.variance
        (tensor([[[2., 3.]]]), tensor([[4., 9.]]))
    """

    scale: Tensor

    def __repr__(self) -> str:
        """One line."""
        return f"Diagonal({len(self.scale)} posteriors of {self.scale.shape[-1]} dimensions)"

    @property
    def variance(self) -> Tensor:
        """See :class:`Metric`, as of all methods."""
        return self.scale.square()

    @property
    def inverse_mass(self) -> Tensor:
        """See :class:`Metric`."""
        return torch.diag_embed(self.variance)

    def push(self, r: Tensor) -> Tensor:
        """See :class:`Metric`."""
        return self.scale * r

    def pull(self, gradient: Tensor) -> Tensor:
        """See :class:`Metric`."""
        return self.scale * gradient

    def whiten(self, u: Tensor) -> Tensor:
        """See :class:`Metric`."""
        return u / self.scale


@dataclass(frozen=True, repr=False)
class Dense:
    """A full matrix for each datapoint.

    Args:
        factor: Lower Cholesky factor of M⁻¹, ``(batch, dim, dim)``.

    Example:
        >>> metric = Dense(torch.tensor([[[2.0, 0.0], [1.0, 1.0]]]))
        >>> metric.push(torch.ones(1, 1, 2)), metric.variance
        (tensor([[[2., 2.]]]), tensor([[4., 2.]]))
    """

    factor: Tensor

    def __repr__(self) -> str:
        """One line."""
        return f"Dense({len(self.factor)} posteriors of {self.factor.shape[-1]} dimensions)"

    @classmethod
    def of(cls, covariance: Tensor) -> "Dense":
        """Of given covariances, ``(batch, dim, dim)``.

        Raises:
            ValueError: If one has no Cholesky factor.
        """
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if bool(failed.any()) or not bool(torch.isfinite(factor).all()):
            places = torch.nonzero(failed).flatten()[:10].tolist()
            raise ValueError(f"covariance: must be positive definite; that of {places} is not")
        return cls(factor)

    @property
    def variance(self) -> Tensor:
        """See :class:`Metric`, as of all methods."""
        return self.factor.square().sum(-1)

    @property
    def inverse_mass(self) -> Tensor:
        """See :class:`Metric`."""
        return self.factor @ self.factor.mT

    def push(self, r: Tensor) -> Tensor:
        """See :class:`Metric`."""
        return torch.matmul(r.transpose(0, 1), self.factor.mT).transpose(0, 1)

    def pull(self, gradient: Tensor) -> Tensor:
        """See :class:`Metric`."""
        return torch.matmul(gradient.transpose(0, 1), self.factor).transpose(0, 1)

    def whiten(self, u: Tensor) -> Tensor:
        """See :class:`Metric`."""
        columns = u.movedim(0, -1).to(self.factor.dtype)
        return torch.linalg.solve_triangular(self.factor, columns, upper=False).movedim(-1, 0)


@dataclass(frozen=True, repr=False)
class LowRank:
    r"""Few stretched directions U beside the diagonal S: :math:`W = S (I + U (D - I) U^T)`.

    Args:
        scale: Diagonal of S, ``(batch, dim)``.
        directions: Orthonormal columns U, ``(batch, dim, rank)``.
        stretch: Diagonal of D, ``(batch, rank)``.

    Example:
        >>> metric = LowRank(
        ...     torch.ones(1, 2), torch.tensor([[[1.0], [0.0]]]), torch.full((1, 1), 3.0)
        ... )
        >>> metric.push(torch.ones(1, 1, 2)), metric.variance
        (tensor([[[3., 1.]]]), tensor([[9., 1.]]))
    """

    scale: Tensor
    directions: Tensor
    stretch: Tensor

    def __repr__(self) -> str:
        """One line."""
        return f"LowRank({len(self.scale)} posteriors of {self.scale.shape[-1]} dimensions)"

    @property
    def variance(self) -> Tensor:
        """See :class:`Metric`, as of all methods."""
        along = (self.directions.square() * (self.stretch.square() - 1).unsqueeze(-2)).sum(-1)
        return self.scale.square() * (1 + along)

    @property
    def inverse_mass(self) -> Tensor:
        """See :class:`Metric`."""
        columns = self.directions * (self.stretch.square() - 1).unsqueeze(-2)
        inner = columns @ self.directions.mT
        return self.scale.unsqueeze(-1) * inner * self.scale.unsqueeze(-2) + torch.diag_embed(
            self.scale.square()
        )

    def push(self, r: Tensor) -> Tensor:
        """See :class:`Metric`."""
        return self.scale * self._stretched(r, self.stretch)

    def pull(self, gradient: Tensor) -> Tensor:
        """See :class:`Metric`."""
        return self._stretched(self.scale * gradient, self.stretch)

    def whiten(self, u: Tensor) -> Tensor:
        """See :class:`Metric`."""
        return self._stretched(u / self.scale, 1 / self.stretch)

    def _stretched(self, r: Tensor, by: Tensor) -> Tensor:
        rows = r.transpose(0, 1)
        along = torch.matmul(rows, self.directions) * (by - 1).unsqueeze(-2)
        return r + torch.matmul(along, self.directions.mT).transpose(0, 1)
