"""What may be believed: evidence with its errors, predictions and pictures."""

from aevb.evaluation.arviz import guide_to_arviz, posterior_to_arviz, to_arviz
from aevb.evaluation.diagnostics import ess_bulk, ess_tail, rhat
from aevb.evaluation.image_plots import image_grid, imputation_plot, manifold_plot
from aevb.evaluation.latents.embedding import ActiveUnits, Embedding, active_units, embed
from aevb.evaluation.latents.kl import KLPerDimension, kl_per_dimension
from aevb.evaluation.latents.use import LatentUse, latent_use
from aevb.evaluation.plots import (
    embedding_plot,
    evidence_curve,
    training_curve,
    training_curves,
)
from aevb.evaluation.posterior.calibration import Calibration, calibrate
from aevb.evaluation.posterior.errors import (
    PosteriorErrors,
    energy_distance_test,
    posterior_errors,
)
from aevb.evaluation.posterior.gaps import Gaps, inference_gaps
from aevb.evaluation.predictive.checks import PredictiveCheck, predictive_check
from aevb.evaluation.predictive.imputation import Imputation, denoise, impute, impute_hmc
from aevb.evaluation.predictive.samples import (
    latent_manifold,
    prior_means,
    prior_samples,
    reconstructions,
)
from aevb.evaluation.summaries import importance_curve, summarize
from aevb.evaluation.table_plots import reconstruction_plot, table_plot
from aevb.evaluation.trial.compare import compare
from aevb.evaluation.trial.found import Trial
from aevb.evaluation.trial.report import trial_page

__all__ = [
    "ActiveUnits",
    "Calibration",
    "Embedding",
    "Gaps",
    "Imputation",
    "KLPerDimension",
    "LatentUse",
    "PosteriorErrors",
    "PredictiveCheck",
    "Trial",
    "active_units",
    "calibrate",
    "compare",
    "denoise",
    "embed",
    "embedding_plot",
    "energy_distance_test",
    "ess_bulk",
    "ess_tail",
    "evidence_curve",
    "guide_to_arviz",
    "image_grid",
    "importance_curve",
    "impute",
    "impute_hmc",
    "imputation_plot",
    "inference_gaps",
    "kl_per_dimension",
    "latent_manifold",
    "latent_use",
    "manifold_plot",
    "posterior_errors",
    "posterior_to_arviz",
    "predictive_check",
    "prior_means",
    "prior_samples",
    "reconstruction_plot",
    "reconstructions",
    "rhat",
    "summarize",
    "table_plot",
    "to_arviz",
    "training_curve",
    "training_curves",
    "trial_page",
]
