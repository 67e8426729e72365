"""What may be believed: evidence with its errors, predictions and pictures."""

from aevb.evaluation.evidence import summarize
from aevb.evaluation.plots import image_grid, training_curve
from aevb.evaluation.predictive import (
    latent_manifold,
    prior_means,
    prior_samples,
    reconstructions,
)

__all__ = [
    "image_grid",
    "latent_manifold",
    "prior_means",
    "prior_samples",
    "reconstructions",
    "summarize",
    "training_curve",
]
