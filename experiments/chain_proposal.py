"""Log p(x) by importance sampling around what Markov chains drew, for models without a guide."""

from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor

from aevb.inference import ImportanceEvidence, importance_evidence

__all__ = ["evidence_around"]

_DEGREES = 5.0  # of freedom: tails heavier than a posterior's


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
