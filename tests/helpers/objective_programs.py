"""Small programs, and values and gradients of objectives on them."""

from typing import Any

import torch

from aevb import models
from aevb.inference import Objective

X = (torch.rand(6, 3, 3, generator=torch.Generator().manual_seed(1)) > 0.5).float()


def vae(**parts: Any) -> models.VAE:
    torch.manual_seed(2)
    return models.VAE((3, 3), latent_dim=2, hidden=[5], **parts)


def estimator(objective: Objective) -> Any:
    """Told how deep plates are, because to find out it would draw."""
    loss = objective.estimator()
    loss.max_plate_nesting = 1 + (loss.num_particles > 1)
    return loss
