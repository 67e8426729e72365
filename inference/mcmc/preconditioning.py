"""Masses from draws and the gradients there, by which a posterior becomes nearly round."""

import torch
from torch import Tensor

from aevb.inference.mcmc.metrics import Dense, Diagonal, LowRank, Metric

__all__ = ["KINDS", "choose_kind", "fitted_metric", "widest_direction"]

KINDS = ("auto", "diagonal", "dense", "low-rank")

# Beyond so many dimensions a matrix costs more than the density of most models, and more draws
# than warm-up has.
_LARGEST_DENSE = 128
_MOST_DENSE_NUMBERS = 2**26
# Directions of a low rank at most, and by how much their variances must stand out.
_LARGEST_RANK = 16
_LEAST_STRETCH = 2.0
# Of a direction, between two that are about as wide it need not decide.
_POWER_ITERATIONS = 20
# Stan's: so many draws' worth of belief in a variance of a thousandth of the diagonal's.
_PRIOR_DRAWS, _PRIOR_VARIANCE = 5.0, 1e-3


def choose_kind(mass: str, batch: int, dim: int) -> str:
    """What ``"auto"`` is.

    Example:
        >>> [choose_kind("auto", 100, dim) for dim in (1, 20, 1000)]
        ['diagonal', 'dense', 'low-rank']
    """
    if mass not in KINDS:
        raise ValueError(f"mass: expected one of {', '.join(KINDS)}; got {mass!r}")
    if mass != "auto":
        return mass
    if dim == 1:
        return "diagonal"
    fits = dim <= _LARGEST_DENSE and batch * dim**2 <= _MOST_DENSE_NUMBERS
    return "dense" if fits else "low-rank"


def fitted_metric(draws: Tensor, gradients: Tensor, kind: str) -> Metric:
    r"""The masses that make the Fisher divergence from a standard normal least.

    .. math:: M^{-1} = \operatorname{Cov}(u) \mathbin{\#} \operatorname{Cov}(\nabla)^{-1}

    is the geometric mean of the covariance of draws and the inverse covariance of gradients. Both
    are the same for a normal posterior; then it is exact for as few draws as it has dimensions,
    and whatever they were drawn from. A datapoint gets unit masses if its draws stand still or
    are not finite.

    References:
        Preconditioning Hamiltonian Monte Carlo by Minimizing Fisher Divergence (Seyboldt, Carlson
        & Carpenter, 2026), https://arxiv.org/abs/2603.18845

    Args:
        draws: ``(draws, batch, dim)``.
        gradients: Of the log-density there.
        kind: ``"diagonal"``, ``"dense"`` or ``"low-rank"``.

    Example:
        >>> u = torch.randn(50, 1, 2, dtype=torch.float64, generator=torch.manual_seed(0))
        >>> precision = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
        >>> metric = fitted_metric(u, -u @ precision, "dense")
        >>> bool(torch.allclose(metric.inverse_mass @ precision, torch.eye(2).double(), atol=0.01))
        True
    """
    dtype = draws.dtype
    draws, gradients = draws.double(), gradients.double()
    largest = draws.abs().amax(0)
    draws, gradients = draws - draws.mean(0), gradients - gradients.mean(0)
    spread, steepness = (v.square().mean(0) for v in (draws, gradients))
    scale = (spread / steepness).pow(0.25)
    # of draws that stand still there is nothing but rounding to see
    moves = (spread.sqrt() > 1e-12 * largest) & (steepness > 0)
    known = (moves & torch.isfinite(spread + steepness) & torch.isfinite(scale)).all(-1)
    draws, gradients = (torch.where(known[:, None], v, 0.0) for v in (draws, gradients))
    scale = torch.where(known[:, None], scale, 1.0)
    if kind == "diagonal":
        return Diagonal(scale.to(dtype))
    rows = (draws / scale).movedim(0, 1), (gradients * scale).movedim(0, 1)
    if kind == "dense":
        factor = scale.unsqueeze(-1) * _root(_geometric_mean(*map(_covariance, rows)))
        # of a square root, which is no Cholesky factor, take the triangular one
        return Dense(torch.linalg.qr(factor.mT).R.mT.contiguous().to(dtype))
    return _low_rank(*rows, scale, dtype)


def widest_direction(draws: Tensor, metric: Metric) -> Tensor:
    """The direction in which whitened draws vary most, ``(batch, dim)``, by power iteration.

    Where masses fit to the curvature, it is along the tails that a normal has not, which take
    longest to go through.

    Args:
        draws: ``(draws, batch, dim)``.
        metric: That whitens them.

    Example:
        >>> draws = torch.randn(200, 1, 3, generator=torch.manual_seed(0)) * torch.tensor(
        ...     [1, 5, 1]
        ... )
        >>> widest_direction(draws, Diagonal(torch.ones(1, 3))).abs().argmax(-1)
        tensor([1])
    """
    rows = metric.whiten(draws).double()
    rows = (rows - rows.mean(0)).movedim(0, 1)
    # a draw that stands still, or is not finite, has none, and any will do
    rows = torch.where(torch.isfinite(rows).all(1, keepdim=True), rows, 0.0)
    farthest = rows.square().sum(-1).argmax(-1)
    direction = rows[torch.arange(len(rows), device=rows.device), farthest].unsqueeze(-1)
    for _ in range(_POWER_ITERATIONS):
        direction = torch.nn.functional.normalize(direction, dim=1)
        direction = rows.mT @ (rows @ direction)
    return torch.nn.functional.normalize(direction.squeeze(-1), dim=-1)


def _covariance(rows: Tensor) -> Tensor:
    """Of centred draws ``(batch, draws, dim)``, drawn towards a small multiple of one."""
    num = rows.shape[1]
    share = num / (num + _PRIOR_DRAWS)
    found = share * rows.mT @ rows / num
    found.diagonal(dim1=-2, dim2=-1).add_((1 - share) * _PRIOR_VARIANCE + 1e-12)
    return found


def _geometric_mean(covariance: Tensor, precision: Tensor) -> Tensor:
    """The X with X P X = C, ``(..., dim, dim)``."""
    root = _root(precision)
    inverse = torch.linalg.inv(root)
    return inverse @ _root(root @ covariance @ root) @ inverse


def _root(matrix: Tensor) -> Tensor:
    """Symmetric square root."""
    values, vectors = torch.linalg.eigh(0.5 * (matrix + matrix.mT))
    values = values.clamp(min=1e-14 * values.amax(-1, keepdim=True)).clamp(min=1e-30)
    return (vectors * values.sqrt().unsqueeze(-2)) @ vectors.mT


def _low_rank(draws: Tensor, gradients: Tensor, scale: Tensor, dtype: torch.dtype) -> LowRank:
    """The geometric mean inside the span of the widest and the steepest directions."""
    num, dim = draws.shape[1:]
    rank = min(_LARGEST_RANK, dim, max(1, num // 4))
    spans = [
        torch.linalg.svd(rows, full_matrices=False).Vh[:, :rank] for rows in (draws, gradients)
    ]
    basis = torch.linalg.qr(torch.cat(spans, 1).mT).Q  # (batch, dim, up to 2 rank)
    inside = _geometric_mean(*(_covariance(rows @ basis) for rows in (draws, gradients)))
    values, vectors = torch.linalg.eigh(0.5 * (inside + inside.mT))
    # what hardly stands out is noise of few draws
    plain = (values < _LEAST_STRETCH) & (values > 1 / _LEAST_STRETCH)
    stretch = torch.where(plain, 1.0, values.clamp(min=1e-20).sqrt())
    return LowRank(scale.to(dtype), (basis @ vectors).to(dtype), stretch.to(dtype))
