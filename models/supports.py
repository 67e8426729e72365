"""Where latents may lie, and how a posterior family meets a prior on another support."""

from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch.distributions import biject_to, constraints

__all__ = [
    "POSITIVE",
    "REAL",
    "SIMPLEX",
    "UNIT_INTERVAL",
    "latent_support",
    "meet",
    "unconstrained_size",
]

REAL = constraints.real_vector
POSITIVE = constraints.independent(constraints.positive, 1)
UNIT_INTERVAL = constraints.independent(constraints.unit_interval, 1)
SIMPLEX = constraints.simplex


def latent_support(part: Any) -> constraints.Constraint:
    """The support of a prior or posterior family, as this module's constant where it is one.

    Args:
        part: Has ``support``; ``constraints.real`` of single numbers counts as of vectors.

    Raises:
        ValueError: If it is no constraint, or discrete.

    Example:
        >>> from aevb.models import StandardNormal
        >>> latent_support(StandardNormal()) is REAL
        True
    """
    name = type(part).__name__
    support = part.support
    if not isinstance(support, constraints.Constraint):
        raise ValueError(
            f"{name}: support must be one of torch.distributions.constraints; got {support!r}"
        )
    if support.is_discrete:
        raise ValueError(
            f"{name}: lies on a discrete support, and gradients with respect to draws need "
            "continuous latents"
        )
    for known in (REAL, POSITIVE, UNIT_INTERVAL, SIMPLEX):
        if _shape_of(known) == _shape_of(support):
            return known
    return support


def _shape_of(support: constraints.Constraint) -> tuple[Any, ...]:
    """What tells one constraint from another, whether of numbers or of vectors."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return type(support), repr(support)


def unconstrained_size(support: constraints.Constraint, latent_dim: int) -> int:
    """Dimensions of the real space that a support is mapped to.

    Args:
        support: One of this module's constraints.
        latent_dim: Dimensions of the latent vector.

    Example:
        >>> unconstrained_size(SIMPLEX, 3), unconstrained_size(POSITIVE, 3)
        (2, 3)
    """
    if support is REAL:
        return latent_dim
    return int(biject_to(support).inverse_shape(torch.Size([latent_dim]))[-1])


def meet(
    distribution: TorchDistributionMixin,
    support: constraints.Constraint,
    wanted: constraints.Constraint,
) -> TorchDistributionMixin:
    """A distribution carried over to another support by a bijection, Jacobian included.

    Args:
        distribution: On ``support``.
        support: One of this module's constraints.
        wanted: Another one.

    Returns:
        The distribution itself where the two are the same.

    Example:
        >>> import torch
        >>> from pyro.distributions import Normal
        >>> q = meet(Normal(torch.zeros(2), torch.ones(2)).to_event(1), REAL, SIMPLEX)
        >>> q.sample().shape
        torch.Size([3])
    """
    if support is wanted:
        return distribution
    if isinstance(distribution, dist.Delta):
        # a mass has no volume for a Jacobian to change
        point = distribution.v
        point = point if support is REAL else biject_to(support).inv(point)
        return dist.Delta(point if wanted is REAL else biject_to(wanted)(point), event_dim=1)
    transforms = []
    if support is not REAL:
        transforms.append(biject_to(support).inv)
    if wanted is not REAL:
        transforms.append(biject_to(wanted))
    # with a cache, a family that can score nothing but its own draws still scores them
    transforms = [transform.with_cache(1) for transform in transforms]
    return dist.TransformedDistribution(distribution, transforms)
