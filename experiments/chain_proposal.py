"""Log p(x) by importance sampling around what Markov chains drew, for models without a guide."""

from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor

from aevb.inference import ImportanceEvidence, LogDensity, importance_evidence

__all__ = ["evidence_around", "likely_start"]

_DEGREES = 5.0  # of freedom: tails heavier than a posterior's
_BLOCKS, _BLOCK = 10, 100  # draws of the prior that a start is chosen from


def likely_start(density: LogDensity, num_chains: int) -> Tensor:
    """Where chains start: draws of the prior, chosen in proportion to their likelihood.

    Chains that start anywhere in the prior stay in modes that hold next to none of the mass.

    Args:
        density: Of the posteriors.
        num_chains: Of each.

    Returns:
        ``(chains, batch, latent)``.
    """
    with torch.no_grad():
        draws = [density.prior_draws(_BLOCK) for _ in range(_BLOCKS)]
        likelihood = torch.cat([density.split(some)[1] for some in draws])
    chosen = torch.multinomial(likelihood.T.double().softmax(-1), num_chains, replacement=True)
    u = torch.cat(draws)
    return u.gather(0, chosen.T.unsqueeze(-1).expand(-1, -1, u.shape[-1]))


def evidence_around(
    draws: Tensor, model: Any, x: Tensor, num_samples: int, seed: int = 0
) -> ImportanceEvidence:
    """Log p(x) by importance sampling around draws of the posterior, which needs no guide.

    The proposal of each image is a Student t with the draws' mean and covariance.

    Args:
        draws: Of each posterior, ``(chains, draws, batch, latent)``.
        model: A VAE whose prior lies on all real vectors.
        x: Images, ``(batch, *shape)``.
        num_samples: For each image.
        seed: Of the samples.
    """
    by_image = draws.flatten(0, 1).transpose(0, 1)
    mean = by_image.mean(1)
    apart = by_image - mean.unsqueeze(1)
    covariance = apart.mT @ apart / (by_image.shape[1] - 1)
    # where all chains stand still there is nothing to factor
    scale = torch.linalg.cholesky(covariance + 1e-8 * torch.eye(mean.shape[1]).to(mean))

    def proposal(x: Tensor, mean: Tensor, scale: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateStudentT(_DEGREES, mean, scale))

    return importance_evidence(
        lambda x, *_: model.model(x), proposal, x, mean, scale, num_samples=num_samples, seed=seed
    )
