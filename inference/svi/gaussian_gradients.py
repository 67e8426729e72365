"""Gradients of Gaussian expectations, by three estimators."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.func import grad, vjp, vmap

from aevb.inference.process.limits import refuse_below

__all__ = [
    "Covariance",
    "DiagonalCovariance",
    "FullCovariance",
    "GaussianGradients",
    "RankOneCovariance",
    "bonnet_price",
    "reparameterization",
    "score_function",
]

Function = Callable[[Tensor], Tensor]
Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class GaussianGradients:
    r"""Single-draw estimates of the gradients of :math:`E_{\mathcal{N}(\mu, C)} f`.

    Attributes:
        loc: For each draw the gradient with respect to μ, ``(S, K)``.
        covariance: For each draw the gradient with respect to each parameter of C, by name:
            ``(S, *shape of the parameter)``. That of a full covariance is the symmetric G with
            :math:`dE = \langle G, dC \rangle`.
    """

    loc: Tensor
    covariance: Parameters


class Covariance(ABC):
    """A parametrization of C, written as functions of its parameters."""

    @property
    def parameters(self) -> Parameters:
        """Its parameters by name: what it is made of."""
        return dict(vars(self))

    @abstractmethod
    def matrix(self, parameters: Parameters) -> Tensor:
        """C, ``(K, K)``."""

    @abstractmethod
    def root_times(self, parameters: Parameters, noise: Tensor) -> Tensor:
        """R ε with :math:`R R^T = C`, ``(K,)``."""


@dataclass(frozen=True)
class DiagonalCovariance(Covariance):
    r""":math:`C = \mathrm{diag}(v)`.

    Args:
        variance: v, positive, ``(K,)``.

    Example:
        >>> DiagonalCovariance(torch.ones(3)).parameters
        {'variance': tensor([1., 1., 1.])}
    """

    variance: Tensor

    def matrix(self, parameters: Parameters) -> Tensor:
        """See :meth:`Covariance.matrix`."""
        return torch.diag_embed(parameters["variance"])

    def root_times(self, parameters: Parameters, noise: Tensor) -> Tensor:
        """See :meth:`Covariance.root_times`."""
        return parameters["variance"].sqrt() * noise


@dataclass(frozen=True)
class RankOneCovariance(Covariance):
    r""":math:`C^{-1} = D + u u^\top`, the paper's section 4.3.

    Args:
        precision_diagonal: The diagonal of D, positive, ``(K,)``.
        precision_factor: u, ``(K,)``.
    """

    precision_diagonal: Tensor
    precision_factor: Tensor

    def matrix(self, parameters: Parameters) -> Tensor:
        """See :meth:`Covariance.matrix`."""
        diagonal, _, scaled, eta = self._parts(parameters)
        return torch.diag_embed(1 / diagonal) - eta * torch.outer(scaled, scaled)

    def root_times(self, parameters: Parameters, noise: Tensor) -> Tensor:
        """See :meth:`Covariance.root_times`; takes O(K)."""
        diagonal, factor, scaled, eta = self._parts(parameters)
        noise = noise / diagonal.sqrt()
        return noise - eta / (1 + eta.sqrt()) * (factor @ noise) * scaled

    @staticmethod
    def _parts(parameters: Parameters) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        diagonal, factor = parameters["precision_diagonal"], parameters["precision_factor"]
        scaled = factor / diagonal
        return diagonal, factor, scaled, 1 / (1 + factor @ scaled)


@dataclass(frozen=True)
class FullCovariance(Covariance):
    """C itself; its root is the Cholesky factor.

    Args:
        covariance: C, symmetric and positive definite, ``(K, K)``.
    """

    covariance: Tensor

    def matrix(self, parameters: Parameters) -> Tensor:
        """See :meth:`Covariance.matrix`."""
        return parameters["covariance"]

    def root_times(self, parameters: Parameters, noise: Tensor) -> Tensor:
        """See :meth:`Covariance.root_times`."""
        return torch.linalg.cholesky(parameters["covariance"]) @ noise


def reparameterization(
    function: Function,
    loc: Tensor,
    covariance: Covariance,
    num_samples: int,
    generator: torch.Generator | None = None,
) -> GaussianGradients:
    r"""Gradients through the draws :math:`\mu + R \epsilon`.

    .. math:: \nabla_\mu E f = E\, g, \qquad \nabla_R E f = E\, g \epsilon^\top, \qquad
        g = \nabla f(\mu + R \epsilon)

    References:
        Stochastic Backpropagation and Approximate Inference in Deep Generative Models (Rezende,
        Mohamed & Wierstra, 2014), equations 8 to 10, https://arxiv.org/abs/1401.4082

    Args:
        function: f, from ``(K,)`` to a scalar, differentiable.
        loc: μ, ``(K,)``.
        covariance: C.
        num_samples: S.
        generator: Of the draws; by default torch's.

    Example:
        >>> ones = torch.ones(2)
        >>> estimate = reparameterization(
        ...     lambda z: (z**2).sum(), 3 * ones, DiagonalCovariance(ones), num_samples=5
        ... )
        >>> estimate.loc.shape, estimate.covariance["variance"].shape
        (torch.Size([5, 2]), torch.Size([5, 2]))
    """
    noise = _noise(loc, num_samples, generator)
    parameters = covariance.parameters

    def one_draw(epsilon: Tensor) -> tuple[Tensor, Parameters]:
        draw, pull_back = vjp(lambda p: loc + covariance.root_times(p, epsilon), parameters)[:2]
        slope = grad(function)(draw)
        return slope, pull_back(slope)[0]

    return GaussianGradients(*vmap(one_draw)(noise))


def bonnet_price(
    function: Function,
    loc: Tensor,
    covariance: Covariance,
    num_samples: int,
    generator: torch.Generator | None = None,
) -> GaussianGradients:
    r"""Gradients by the theorems of Bonnet and Price.

    .. math:: \nabla_\mu E f = E\, \nabla f(z), \qquad
        \nabla_C E f = \tfrac12 E\, \nabla \nabla f(z)

    f is twice differentiable, and its Hessian exact, by K Hessian-vector products for each draw.

    References:
        Stochastic Backpropagation and Approximate Inference in Deep Generative Models (Rezende,
        Mohamed & Wierstra, 2014), equations 7 and 8 and appendix A, https://arxiv.org/abs/1401.4082

    Arguments are those of :func:`reparameterization`.
    """
    parameters = covariance.parameters
    draws = _draws(loc, covariance, num_samples, generator)
    pull_back = vjp(covariance.matrix, parameters)[1]

    def one_draw(draw: Tensor) -> tuple[Tensor, Parameters]:
        # the product of the (symmetric) Hessian with a direction is a derivative of the slope
        slope, product = vjp(grad(function), draw)[:2]
        basis = torch.eye(len(loc), dtype=loc.dtype, device=loc.device)
        (second,) = vmap(product)(basis)
        return slope, pull_back((second + second.T) / 4)[0]

    return GaussianGradients(*vmap(one_draw)(draws))


def score_function(
    function: Function,
    loc: Tensor,
    covariance: Covariance,
    num_samples: int,
    generator: torch.Generator | None = None,
) -> GaussianGradients:
    r"""Gradients by the score of the density, which needs no derivative of f.

    .. math:: \nabla_\theta E f = E\, f(z) \nabla_\theta \log \mathcal{N}(z; \mu, C)

    References:
        Simple statistical gradient-following algorithms for connectionist reinforcement learning
        (Williams, 1992), https://doi.org/10.1007/BF00992696

    Arguments are those of :func:`reparameterization`.
    """
    parameters = covariance.parameters
    draws = _draws(loc, covariance, num_samples, generator)

    def log_density(mean: Tensor, values: Parameters, draw: Tensor) -> Tensor:
        # checks would look at values, which vmap does not have
        return MultivariateNormal(mean, covariance.matrix(values), validate_args=False).log_prob(
            draw
        )

    def one_draw(draw: Tensor) -> tuple[Tensor, Parameters]:
        score_loc, score_covariance = grad(log_density, argnums=(0, 1))(loc, parameters, draw)
        value = function(draw)
        return value * score_loc, {n: value * score for n, score in score_covariance.items()}

    return GaussianGradients(*vmap(one_draw)(draws))


def _noise(loc: Tensor, num_samples: int, generator: torch.Generator | None) -> Tensor:
    refuse_below(1, num_samples=num_samples)
    shape = (num_samples, *loc.shape)
    return torch.randn(shape, generator=generator, dtype=loc.dtype, device=loc.device)


def _draws(
    loc: Tensor, covariance: Covariance, num_samples: int, generator: torch.Generator | None
) -> Tensor:
    parameters = covariance.parameters
    noise = _noise(loc, num_samples, generator)
    return loc + vmap(lambda epsilon: covariance.root_times(parameters, epsilon))(noise)
