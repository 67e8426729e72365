"""The AEVB paper's own estimator of log p(x): posterior draws and a density of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aevb.inference.mcmc.hmc import Draws, hmc
from aevb.inference.process import randomness
from aevb.inference.programs.log_density import LogDensity

__all__ = ["HMCEvidence", "hmc_evidence"]

# Where the paper found it reliable: "as long as the dimensionality is low (less than 5)".
LARGEST_DIM = 4
_KERNELS_AT_ONCE = 20_000_000


@dataclass(frozen=True)
class HMCEvidence:
    """Estimates of log p(x) from draws of the posterior.

    Attributes:
        log_evidence: ``(batch,)``, in nats.
        standard_error: From the spread over chains, which are independent; ``(batch,)``.
        draws: Of the posterior.
    """

    log_evidence: Tensor
    standard_error: Tensor
    draws: Draws

    def __repr__(self) -> str:
        """One line, with means over datapoints."""
        return (
            f"HMCEvidence(log_evidence={self.log_evidence.mean():.3f} mean of "
            f"{len(self.log_evidence)}, {self.draws!r})"
        )


def hmc_evidence(
    model: Callable[..., Any],
    *args: Any,
    num_chains: int = 16,
    num_samples: int = 100,
    num_warmup: int = 300,
    seed: int = 0,
    guide: Callable[..., Any] | None = None,
    chain_batch_size: int | None = None,
    allow_high_dim: bool = False,
) -> HMCEvidence:
    r"""Estimate log p(x) from posterior draws and a density fitted to half of them.

    .. math:: \frac1{p(x)} = E_{p(z|x)} \frac{q(z)}{p(x, z)} \approx
        \frac1S \sum_s \frac{q(z_s)}{p(x, z_s)}

    The paper leaves q open; here it is a kernel density of the draws of half of the chains, in
    unconstrained coordinates, with normal kernels of Scott's width. The other half is averaged.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), appendix D; Multivariate Density
        Estimation (Scott, 1992), section 6.3

    Args:
        model: Pyro program of the joint distribution.
        args: Its arguments.
        num_chains: At least 4, half of them for the density.
        num_samples: Draws of each chain.
        num_warmup: Iterations before.
        seed: Of everything random.
        guide: As for :func:`~aevb.inference.mcmc.hmc.hmc`.
        chain_batch_size: Chains evaluated at once.
        allow_high_dim: Go on above 4 dimensions, where the density fits badly and the estimate is
            far off.

    Raises:
        ValueError: Above 4 dimensions unless allowed, or with fewer than 4 chains.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> fa, x = FactorAnalysis((5,), 2).double(), torch.zeros(3, 5).double()
        >>> evidence = hmc_evidence(fa.model, x, seed=1)
        >>> bool((evidence.log_evidence - fa.log_evidence(x)).abs().max() < 0.2)
        True
    """
    if num_chains < 4:
        raise ValueError(f"num_chains: must be at least 4; got {num_chains}")
    with torch.no_grad(), randomness.stream(seed, "hmc evidence", torch.device("cpu")):
        density = LogDensity(model, *args)
    if density.dim > LARGEST_DIM and not allow_high_dim:
        raise ValueError(
            f"hmc_evidence: fails above {LARGEST_DIM} dimensions, and the posterior has "
            f"{density.dim}; use ais_evidence or importance_evidence, or allow_high_dim=True"
        )
    draws = hmc(
        model, *args, num_chains=num_chains, num_samples=num_samples, num_warmup=num_warmup,
        seed=seed, guide=guide, chain_batch_size=chain_batch_size,
    )  # fmt: skip
    half = num_chains // 2
    fitted, averaged = draws.unconstrained[:half], draws.unconstrained[half:]
    log_joint = draws.stats["lp"].reshape(num_chains, num_samples, -1)[half:]
    log_ratio = _log_kernel_density(fitted, averaged) - log_joint
    # log of the mean of q/p within each chain, then over chains
    by_chain = torch.logsumexp(log_ratio, 1) - math.log(num_samples)
    mean = torch.logsumexp(by_chain, 0) - math.log(len(by_chain))
    relative = torch.exp(by_chain - mean)
    error = relative.std(0) / math.sqrt(len(by_chain))
    return HMCEvidence(-mean.cpu(), error.cpu(), draws)


def _log_kernel_density(fitted: Tensor, at: Tensor) -> Tensor:
    """Log of a normal kernel density, ``(chains, draws, batch)``.

    Args:
        fitted: Draws, ``(chains, draws, batch, dim)``.
        at: Where to evaluate it, likewise.
    """
    points = fitted.flatten(0, 1).double().movedim(0, 1)  # (batch, draws, dim)
    places = at.flatten(0, 1).double().movedim(0, 1)
    num, dim = points.shape[1:]
    centred = points - points.mean(1, keepdim=True)
    covariance = centred.mT @ centred / (num - 1)
    width = num ** (-1 / (dim + 4))
    factor = torch.linalg.cholesky(covariance) * width
    white = torch.linalg.solve_triangular(factor, points.mT, upper=False).mT
    white_places = torch.linalg.solve_triangular(factor, places.mT, upper=False).mT
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    constant = math.log(num) + 0.5 * dim * math.log(2 * math.pi)
    size = max(1, _KERNELS_AT_ONCE // (num * len(points)))
    columns = [
        torch.logsumexp(torch.cdist(part, white).square_().mul_(-0.5), -1)
        for part in white_places.split(size, 1)
    ]
    result = torch.cat(columns, 1) - constant - log_det.unsqueeze(-1)
    return result.movedim(0, 1).unflatten(0, at.shape[:2])
