"""Closed forms and naive loops that the library is checked against."""

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor

from aevb.models import FactorAnalysis

# Chance that a statistical test which is not repeated fails although nothing is wrong.
FALSE_ALARM_RATE = 1e-6
STANDARD_ERRORS = 5.0  # two-sided, 6e-7


def linear_gaussian(features: int = 6, latent_dim: int = 3, seed: int = 0) -> FactorAnalysis:
    """A factor analysis in float64 with loadings of order one and unequal noise."""
    generator = torch.Generator().manual_seed(seed)
    fa = FactorAnalysis((features,), latent_dim).double()
    with torch.no_grad():
        for parameter in fa.parameters():
            start = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.7 * start)
    return fa


def simulate(fa: FactorAnalysis, num: int, seed: int = 0) -> Tensor:
    """Datapoints from the model itself, ``(num, *shape)``."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        return fa.model(size=num)


def mean_field_guide(fa: FactorAnalysis, scale_factor: float = 1.0) -> Callable[..., Any]:
    """The diagonal normal closest in KL(q‖p) to the exact posterior, optionally mis-scaled.

    Its mean is the exact one and its precision the diagonal of the exact precision (Bishop,
    Pattern Recognition and Machine Learning, equation 10.12 onwards).
    """

    def guide(x: Tensor) -> Tensor:
        posterior = fa.posterior(x)
        variance = 1 / posterior.precision_matrix.diagonal(dim1=-2, dim2=-1)
        with pyro.plate("data", len(x)):
            normal = dist.Normal(posterior.loc, scale_factor * variance.sqrt()).to_event(1)
            return pyro.sample("z", normal)

    return guide


def misscaled_guide(fa: FactorAnalysis, factor: float) -> Callable[..., Any]:
    """The exact posterior with all scales multiplied by a factor."""

    def guide(x: Tensor) -> Tensor:
        exact = fa.posterior(x)
        with pyro.plate("data", len(x)):
            wrong = dist.MultivariateNormal(exact.loc, scale_tril=factor * exact.scale_tril)
            return pyro.sample("z", wrong)

    return guide


def mean_field_gap(fa: FactorAnalysis, x: Tensor) -> Tensor:
    """KL(q‖p) of :func:`mean_field_guide`, ``(B,)``: half the log-ratio of the precisions."""
    precision = fa.posterior(x).precision_matrix
    diagonal = precision.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * (diagonal - torch.logdet(precision)).expand(len(x))


def naive_log_weights(
    model: Callable[..., Any], guide: Callable[..., Any], x: Tensor, num_samples: int
) -> Tensor:
    """log p(x, z) − log q(z|x), one datapoint and one draw at a time, ``(num_samples, B)``."""
    weights = torch.empty(num_samples, len(x), dtype=torch.float64)
    for sample in range(num_samples):
        for row in range(len(x)):
            point = x[row : row + 1]
            q = pyro.poutine.trace(guide).get_trace(point)
            p = pyro.poutine.trace(pyro.poutine.replay(model, trace=q)).get_trace(point)
            weights[sample, row] = p.log_prob_sum() - q.log_prob_sum()
    return weights
