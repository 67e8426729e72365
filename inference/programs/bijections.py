"""From the real line to where a latent may lie, whatever distribution it has."""

import math
from typing import Any

from pyro import distributions as dist
from torch import Tensor
from torch import distributions as torch_dist
from torch.distributions import biject_to, constraints
from torch.distributions.transforms import ComposeTransform, IndependentTransform

__all__ = ["bijection_of", "bounds_of", "family", "unwrapped"]

# Their densities go round, so that no real line is mapped onto their support once.
_CIRCULAR = (dist.ProjectedNormal, dist.SineBivariateVonMises, dist.SineSkewed, dist.VonMises3D)
_WRAPPERS = (dist.ExpandedDistribution, dist.MaskedDistribution)


def bijection_of(fn: Any) -> Any:
    """A bijection from a real space to the support of a distribution.

    The support that torch reports is the codomain of the last transform, which is too wide where
    the base distribution is bounded: a shifted exponential says ``real``. Its bijection is then
    that of the base, followed by the transforms.

    Raises:
        ValueError: If there is none.

    Example:
        >>> import torch
        >>> from torch.distributions.transforms import AffineTransform
        >>> affine = AffineTransform(1.0, 2.0)
        >>> shifted = dist.TransformedDistribution(dist.Exponential(1.0), [affine])
        >>> float(bijection_of(shifted)(torch.tensor(-100.0)))
        1.0
    """
    if isinstance(fn, torch_dist.Independent):
        return IndependentTransform(bijection_of(fn.base_dist), fn.reinterpreted_batch_ndims)
    if isinstance(fn, _WRAPPERS):
        return bijection_of(fn.base_dist)
    if isinstance(fn, torch_dist.VonMises):
        return biject_to(constraints.interval(-math.pi, math.pi))
    if isinstance(fn, _CIRCULAR):
        raise ValueError(f"{type(fn).__name__} is circular; write it with a latent on an interval")
    if isinstance(fn, torch_dist.TransformedDistribution) and not _is_real(fn.base_dist):
        return ComposeTransform([bijection_of(fn.base_dist), *fn.transforms])
    try:
        if isinstance(fn, torch_dist.MixtureSameFamily):
            return _of_all_components(fn.component_distribution)
        return biject_to(fn.support)
    except NotImplementedError:
        raise ValueError(
            f"{type(fn).__name__} has no bijection from the real numbers to {fn.support}"
        ) from None


def _is_real(fn: Any) -> bool:
    """Whether a distribution covers its whole real space."""
    fn = unwrapped(fn)
    if isinstance(fn, torch_dist.TransformedDistribution):
        return _is_real(fn.base_dist)
    circular = isinstance(fn, (torch_dist.VonMises, *_CIRCULAR))
    return not circular and bounds_of(fn) is constraints.real


def unwrapped(fn: Any) -> Any:
    """The distribution inside what only reshapes, repeats or masks it.

    Example:
        >>> type(unwrapped(dist.Normal(0.0, 1.0).expand([3]).to_event(1).mask(False))).__name__
        'Normal'
    """
    while isinstance(fn, (torch_dist.Independent, *_WRAPPERS)):
        fn = fn.base_dist
    return fn


def family(fn: Any) -> str:
    """The name of a distribution, as an error shows it."""
    return type(unwrapped(fn)).__name__.lstrip("_")


def bounds_of(fn: Any) -> Any:
    """The constraint on single values of a distribution."""
    support = fn.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def _of_all_components(fn: Any) -> Any:
    """The bijection to the support that the components of a mixture share."""
    inner = unwrapped(fn)
    bounded = isinstance(inner, torch_dist.TransformedDistribution) and not _is_real(inner)
    own = any(isinstance(bound, Tensor) and bound.ndim for bound in vars(inner.support).values())
    if bounded or own:  # each component may have bounds of its own
        raise NotImplementedError
    return biject_to(fn.support)
