"""Gaps of guides against closed forms."""

import math
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from aevb import evaluation, inference, models
from aevb.inference import LocalPosterior, refine
from aevb.models import posteriors

from oracles import (
    STANDARD_ERRORS,
    mean_field_gap,
    mean_field_guide,
)

# Gaps


def standardized(values: Tensor, errors: Tensor, wanted: Tensor) -> float:
    """Error of a mean over datapoints, in its Monte Carlo standard errors."""
    return float((values - wanted).mean() / (errors.square().sum().sqrt() / len(values)))


def test_gaps_of_a_mean_field_guide_are_the_closed_forms(oracle: Any) -> None:
    fa, x = oracle
    wide = 1.3
    gaps = evaluation.inference_gaps(
        fa.model, mean_field_guide(fa, wide), x, num_temperatures=30, num_samples=4000, seed=1
    )
    with torch.no_grad():
        closed = mean_field_gap(fa, x)
        # of each dimension, KL grows by (s² − 1)/2 − log s, at the optimal precisions
        amortization = 3 * (0.5 * (wide**2 - 1) - math.log(wide))
        exact = fa.log_evidence(x)
    assert abs(standardized(gaps.log_evidence, gaps.log_evidence_error, exact)) < STANDARD_ERRORS
    # Adam's noise leaves the refined posterior 0.005 nats short of the best
    assert float((gaps.approximation - closed).mean()) == pytest.approx(0.0, abs=0.02)
    z = standardized(gaps.inference, gaps.approximation_error, closed + amortization)
    assert abs(z) < STANDARD_ERRORS
    assert bool(gaps.refinement.is_converged.all())
    summary = gaps.summary()
    parts = summary["approximation_gap"]["mean"] + summary["amortization_gap"]["mean"]
    assert summary["inference_gap"]["mean"] == pytest.approx(parts)


def test_without_refinement_the_approximation_gap_is_wrong(
    oracle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fa, x = oracle
    guide = mean_field_guide(fa, 1.3)
    monkeypatch.setattr(
        evaluation.posterior.gaps,
        "refine",
        lambda model, guide, *args, **kwargs: refine(model, guide, *args, max_steps=1),
    )
    gaps = evaluation.inference_gaps(fa.model, guide, x, num_samples=4000, seed=1)
    closed = mean_field_gap(fa, x)
    assert float((gaps.approximation - closed).mean().detach()) > 0.1


def test_family_that_holds_the_posterior_has_no_gap(oracle: Any) -> None:
    fa, x = oracle

    def guide(x: Tensor) -> None:
        posterior = fa.posterior(x)
        factor = posterior.scale_tril.detach().expand(len(x), 3, 3)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(posterior.loc.detach(), scale_tril=factor))

    gaps = evaluation.inference_gaps(fa.model, guide, x, num_samples=200, max_steps=300)
    assert float(gaps.inference.abs().max()) < 1e-6
    assert float(gaps.approximation.abs().max()) < 0.02


@pytest.mark.parametrize(
    "family",
    [
        models.DiagonalNormal(),
        models.RankOneNormal(),
        models.LowRankNormal(),
        models.FullNormal(),
        models.Logistic(),
        posteriors.StudentT(),
        posteriors.Gamma(),
    ],
    ids=repr,
)
def test_refinement_of_any_family_gains(family: models.Posterior) -> None:
    vae = models.VAE((4, 4), 3, [6], posterior=family)
    x = (torch.rand(7, 4, 4) > 0.5).float()
    before = [parameter.clone() for parameter in vae.parameters()]
    first = inference.importance_evidence(vae.model, vae.guide, x, num_samples=1000).elbo
    refined = refine(vae.model, vae.guide, x, num_particles=10, max_steps=200)
    last = inference.importance_evidence(
        vae.model, refined.posterior.guide, x, num_samples=1000
    ).elbo
    assert float((last - first).min()) > 0.0
    assert all(map(torch.equal, before, vae.parameters()))
    assert all(parameter.grad is None for parameter in vae.parameters())


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            models.VAE((4, 4), 3, [6], posterior=models.InverseAutoregressiveFlow(1, (6,))),
            "transformed by a network",
        ),
        (models.VAE((4, 4), 3, [6], posterior=models.Delta()), "is a point mass"),
        (models.HierarchicalVAE((4, 4), [3, 2], [[8], [6]]), "depends on other draws"),
    ],
    ids=["flow", "point mass", "hierarchy"],
)
def test_families_without_parameters_of_their_own_are_refused(program: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LocalPosterior(program.guide, torch.zeros(2, 4, 4))
