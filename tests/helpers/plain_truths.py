"""Exact posterior moments and evidence, by conjugacy or by quadrature, in float64."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, biject_to

__all__ = [
    "Axis",
    "Truth",
    "conjugate",
    "covariance_of",
    "linear_gaussian",
    "moments",
    "nodes",
    "over_hyperparameters",
    "over_grid",
    "quadrature",
]

Moments = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Truth:
    """What is known of a posterior.

    Attributes:
        means: Posterior means of each latent site, flattened.
        sds: Posterior standard deviations, likewise.
        log_evidence: In nats, one number, or one for each datapoint.
        how: How they are known.
        mean_errors: Monte Carlo standard errors of the means, where a long run gave them.
        sd_errors: Likewise of the standard deviations.
    """

    means: dict[str, Tensor]
    sds: dict[str, Tensor]
    log_evidence: Tensor | None
    how: str
    mean_errors: dict[str, Tensor] = field(default_factory=dict)
    sd_errors: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Axis:
    """Points of one latent number, equally spaced on the real line that its support maps to.

    The trapezoidal rule is exact but for terms exponentially small in the spacing where the
    integrand is smooth and is gone at both ends.

    Attributes:
        name: Of the latent.
        prior: Its distribution, of independent numbers.
        low: First point, unconstrained.
        high: Last point, unconstrained.
        points: How many.
    """

    name: str
    prior: Any
    low: float
    high: float
    points: int = 61


def nodes(axes: Sequence[Axis], finer: float = 1.0) -> tuple[dict[str, Tensor], Tensor]:
    """Points of the product grid and the log of prior times weight at each.

    Args:
        axes: One for each latent number.
        finer: Factor of the number of points.

    Returns:
        Values by name, ``(G,)``, and log-weights, ``(G,)``.
    """
    values, weights = [], []
    for axis in axes:
        count = round(axis.points * finer)
        u = torch.linspace(axis.low, axis.high, count, dtype=torch.float64)
        transform = biject_to(axis.prior.support)
        value = transform(u)
        jacobian = transform.log_abs_det_jacobian(u, value)
        step = math.log((axis.high - axis.low) / (count - 1))
        values.append(value)
        weights.append(axis.prior.log_prob(value) + jacobian + step)
    mesh = torch.meshgrid(*values, indexing="ij")
    total = sum(torch.meshgrid(*weights, indexing="ij"), start=torch.zeros(()))
    return {a.name: m.reshape(-1) for a, m in zip(axes, mesh, strict=True)}, total.reshape(-1)


def linear_gaussian(
    design: Tensor,
    noise_variance: Tensor,
    y: Tensor,
    prior_mean: Tensor,
    prior_covariance: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Posterior of z ~ N(m, P) given y ~ N(A z, R), for a batch of (A, R, m, P).

    References:
        Bishop, Pattern Recognition and Machine Learning (2006), section 2.3.3

    Args:
        design: A, ``(*batch, n, d)``.
        noise_variance: Diagonal of R, ``(*batch, n)``, or R itself, ``(*batch, n, n)``.
        y: ``(n,)``, less any offset.
        prior_mean: m, ``(*batch, d)``.
        prior_covariance: P, ``(*batch, d, d)``.

    Returns:
        Mean ``(*batch, d)``, covariance ``(*batch, d, d)`` and log evidence ``(*batch,)``.
    """
    noise = noise_variance
    if noise.shape[-1:] == y.shape and noise.shape[-2:] != (len(y), len(y)):
        noise = torch.diag_embed(noise)
    cross = design @ prior_covariance
    marginal = cross @ design.mT + noise
    centre = (design @ prior_mean.unsqueeze(-1)).squeeze(-1)
    gain = torch.linalg.solve(marginal, cross).mT
    mean = prior_mean + (gain @ (y - centre).unsqueeze(-1)).squeeze(-1)
    covariance = prior_covariance - gain @ cross
    return mean, covariance, MultivariateNormal(centre, marginal).log_prob(y)


def covariance_of(root: Tensor) -> Tensor:
    """Covariance of ``root @ e`` for standard normal e."""
    return root @ root.mT


def conjugate(
    sites: Mapping[str, slice | int],
    design: Tensor,
    noise_variance: Tensor,
    y: Tensor,
    prior_mean: Tensor,
    prior_covariance: Tensor,
    offset: float = 0.0,
) -> Truth:
    """The truth of a linear Gaussian model.

    Args:
        sites: Which dimensions of z belong to which site.
        design: As for :func:`linear_gaussian`, as are the others.
        noise_variance: R.
        y: Data.
        prior_mean: m.
        prior_covariance: P.
        offset: To add to the log evidence.
    """
    mean, covariance, evidence = linear_gaussian(
        design, noise_variance, y, prior_mean, prior_covariance
    )
    sd = covariance.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    return Truth(
        {name: mean[part].reshape(-1) for name, part in sites.items()},
        {name: sd[part].reshape(-1) for name, part in sites.items()},
        evidence + offset,
        "closed form: linear Gaussian",
    )


def moments(value: Tensor) -> Moments:
    """A function of the grid's values as moments without spread, ``(G, k)``."""
    value = value.reshape(len(value), -1)
    return value, torch.zeros_like(value)


def over_grid(
    log_weights: Tensor, log_likelihood: Tensor, sites: Mapping[str, Moments], how: str
) -> Truth:
    """Moments of a mixture over the points of a grid.

    Args:
        log_weights: Of :func:`nodes`, ``(G,)``.
        log_likelihood: Of the data given each point, ``(G,)``.
        sites: Conditional means and variances of each site, ``(G, k)``.
        how: How this is known.
    """
    joint = log_weights + log_likelihood
    evidence = torch.logsumexp(joint, 0)
    share = torch.exp(joint - evidence).unsqueeze(-1)
    means, sds = {}, {}
    for name, (mean, variance) in sites.items():
        centre = (share * mean).sum(0)
        means[name] = centre
        sds[name] = (share * (variance + (mean - centre).square())).sum(0).sqrt()
    return Truth(means, sds, evidence, how)


def quadrature(
    axes: Sequence[Axis],
    log_likelihood: Callable[[dict[str, Tensor]], Tensor],
    sites: Callable[[dict[str, Tensor]], Mapping[str, Tensor]] | None = None,
    finer: float = 1.0,
) -> Truth:
    """The truth where all latents lie on a grid.

    Args:
        axes: One for each latent number.
        log_likelihood: Of a grid's values, ``(G,)``.
        sites: Values of the sites, ``(G, ...)``; each axis is a site of its own if left out.
        finer: Factor of the number of points.
    """
    values, weights = nodes(axes, finer)
    shown = values if sites is None else sites(values)
    return over_grid(
        weights,
        log_likelihood(values),
        {name: moments(value) for name, value in shown.items()},
        f"quadrature in {len(axes)} dimensions",
    )


def over_hyperparameters(
    axes: Sequence[Axis],
    conditional: Callable[[dict[str, Tensor]], tuple[Tensor, Tensor, Tensor, Tensor]],
    y: Tensor,
    sites: Mapping[str, slice],
    finer: float = 1.0,
    shown: Callable[[dict[str, Tensor]], Mapping[str, Tensor]] | None = None,
) -> Truth:
    """The truth of a model that is linear Gaussian given its hyperparameters.

    Args:
        axes: One for each hyperparameter.
        conditional: Design, noise variance, prior mean and prior covariance at a grid's values.
        y: Data.
        sites: Which dimensions of the Gaussian latents belong to which site.
        finer: Factor of the number of points.
        shown: Values of the hyperparameters' sites; each axis is a site if left out.
    """
    values, weights = nodes(axes, finer)
    design, noise, prior_mean, prior_covariance = conditional(values)
    mean, covariance, evidence = linear_gaussian(design, noise, y, prior_mean, prior_covariance)
    variance = covariance.diagonal(dim1=-2, dim2=-1).clamp(min=0)
    hyper = values if shown is None else shown(values)
    found = {name: moments(value) for name, value in hyper.items()}
    found |= {name: (mean[:, part], variance[:, part]) for name, part in sites.items()}
    how = f"closed form given {len(axes)} hyperparameters, quadrature over these"
    return over_grid(weights, evidence, found, how)
