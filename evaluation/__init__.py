"""What may be believed: evidence with its errors, predictions and pictures."""

from aevb.evaluation.evidence import importance_curve, summarize
from aevb.evaluation.gaps import Gaps, inference_gaps
from aevb.evaluation.plots import evidence_curve, image_grid, training_curve
from aevb.evaluation.posterior import PosteriorErrors, energy_distance_test, posterior_errors
from aevb.evaluation.predictive import (
    latent_manifold,
    prior_means,
    prior_samples,
    reconstructions,
)

__all__ = [
    "Gaps",
    "PosteriorErrors",
    "energy_distance_test",
    "evidence_curve",
    "image_grid",
    "importance_curve",
    "inference_gaps",
    "latent_manifold",
    "posterior_errors",
    "prior_means",
    "prior_samples",
    "reconstructions",
    "summarize",
    "training_curve",
]
