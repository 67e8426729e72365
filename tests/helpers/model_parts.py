"""Every prior, likelihood, posterior and scale, as the contract tests build it."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from aevb import models
from aevb.models import likelihoods, posteriors, priors

SHAPE = (2, 3)


PRIORS: list[models.Prior] = [
    models.StandardNormal(),
    models.LearnedNormal(),
    models.MixtureOfGaussians(components=3),
    models.VampPrior(components=3),
    priors.Laplace(),
    priors.StudentT(),
    models.NormalizingFlow(layers=2, hidden=(8,)),
    models.NormalizingFlow(layers=3, hidden=(8,), coupling=True),
    priors.Beta(),
    priors.Gamma(),
    models.LogNormal(),
    models.Dirichlet(2.0),
]

POSTERIORS: list[models.Posterior] = [
    models.DiagonalNormal(),
    models.RankOneNormal(),
    models.LowRankNormal(),
    models.FullNormal(),
    models.InverseAutoregressiveFlow(hidden=(8,)),
    models.PlanarFlow(layers=2),
    posteriors.Laplace(),
    models.Logistic(),
    posteriors.StudentT(),
    posteriors.Gamma(),
    posteriors.Beta(),
    models.Delta(),
]

SCALES: list[models.Scale] = [
    models.FixedScale(0.3),
    models.LearnedScale(0.3),
    models.PerPixelScale(0.3),
    models.PredictedScale(),
]

LIKELIHOODS: list[models.Likelihood] = [
    models.Bernoulli(),
    models.Bernoulli(relaxed=True),
    models.ContinuousBernoulli(),
    models.Binomial(total_count=3),
    *[models.Normal(scale=scale) for scale in SCALES],
    models.Normal(mean=nn.Sigmoid),
    likelihoods.Laplace(),
    likelihoods.StudentT(),
    models.DiscretizedLogistic(levels=4),
    models.DiscretizedLogisticMixture(components=2, levels=4),
    models.Categorical(num_classes=3),
    models.Poisson(),
    models.NegativeBinomial(),
    models.Multinomial(total=6.0),
    models.DirichletMultinomial(total=6.0, concentration=3.0),
]


def build(part: Any) -> tuple[nn.Module, tuple[Tensor, ...], int]:
    """The module of a part, what its ``forward`` takes, and the rank of its events."""
    features = torch.randn(5, 7)
    if isinstance(part, models.Prior):
        with torch.random.fork_rng():
            torch.manual_seed(0)  # the model's, and not part of the prior's state
            encoder = nn.Sequential(nn.Flatten(), models.DiagonalNormal().build(6, 4))
        return part.build_beside(encoder, SHAPE, 4), (), 1
    if isinstance(part, models.Posterior):
        return part.build(7, 4), (features,), 1
    return part.build(7, SHAPE), (features,), len(SHAPE)


DISTRIBUTIONS = [*PRIORS, *POSTERIORS, *LIKELIHOODS]


def doubled(module: nn.Module) -> nn.Module:
    """A copy in float64, with the encoder that a VampPrior looks at but does not own."""
    twin = copy.deepcopy(module).double()
    for encoder in getattr(twin, "_encoder", ()):
        encoder.double()
    return twin
