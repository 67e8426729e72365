"""Densities with discrete latents summed out, against sums written by hand."""

from typing import Any

import pyro
import pytest
import torch
from discrete_programs import (
    LENGTHS,
    SEQUENCES,
    X,
    local,
    local_by_hand,
    markov,
    markov_by_hand,
    mixture_by_hand,
    no_guide,
    two_means,
    two_means_by_hand,
)
from pyro import distributions as dist
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

from aevb import evaluation, inference
from aevb.inference import LogDensity

from oracles import STANDARD_ERRORS


def test_a_mixture_with_components_summed_out_is_the_mixture() -> None:
    found, wanted = (LogDensity(model, X) for model in (two_means, two_means_by_hand))
    u = torch.randn(6, 1, 3, dtype=torch.float64)
    torch.testing.assert_close(found.joint(u), wanted.joint(u), rtol=1e-10, atol=0.0)
    for ours, theirs in zip(found.split(u), wanted.split(u), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0.0)


def test_a_latent_that_depends_on_a_discrete_one() -> None:
    density = LogDensity(local, X)
    assert density.is_local
    assert density.dim == 2
    u = torch.randn(4, len(X), 2, dtype=torch.float64)
    wanted = local_by_hand(X, u[..., 0], u[..., 1])
    torch.testing.assert_close(density.joint(u), wanted, rtol=1e-10, atol=0.0)
    shifted = local_by_hand(X, u[..., 0], u[..., 1] + 0.01)
    assert not torch.allclose(density.joint(u), shifted, rtol=1e-6)


def test_the_prior_of_such_a_latent_is_not_told_from_the_rest() -> None:
    with pytest.raises(ValueError, match=r"\['w'\] depend on discrete ones.*anneal from a guide"):
        inference.ais_evidence(local, X, num_chains=2, num_temperatures=3)


def test_chains_of_states_are_summed_out_by_paths() -> None:
    def model(sequences: Tensor, lengths: Tensor) -> None:
        pyro.sample("unrelated", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
        markov(sequences, lengths)

    density = LogDensity(model, SEQUENCES, LENGTHS)
    u = torch.randn(3, 1, 1, dtype=torch.float64)
    wanted = dist.Normal(0.0, 1.0).log_prob(u[..., 0]) + markov_by_hand(SEQUENCES, LENGTHS).sum()
    torch.testing.assert_close(density.joint(u), wanted, rtol=1e-10, atol=0.0)
    unmasked = markov_by_hand(SEQUENCES, torch.full((3,), 4)).sum()
    assert abs(float(unmasked - markov_by_hand(SEQUENCES, LENGTHS).sum())) > 0.1


def test_importance_weights_are_of_the_sum() -> None:
    """Estimates of a guide without the discrete site are those of the mixture by hand."""
    guide = AutoNormal(poutine.block(two_means, hide=["second"]))
    program = inference.Program(two_means, guide)
    program.guide(X)
    found, wanted = (
        inference.importance_evidence(model, program.guide, X, num_samples=200, seed=2)
        for model in (two_means, two_means_by_hand)
    )
    for name in ("log_evidence", "standard_error", "khat"):
        ours, theirs = (getattr(evidence, name) for evidence in (found, wanted))
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_a_guide_that_draws_the_discrete_site_is_weighed_at_its_draws() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            weights = torch.tensor([0.2, 0.3, 0.5]).to(x)
            k = pyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
            locs = torch.tensor([-3.0, 0.5, 2.0]).to(x)
            pyro.sample("x", dist.Normal(locs[k], 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(torch.ones(3).to(x) / 3))

    found = inference.importance_evidence(model, guide, X, num_samples=4000, seed=1)
    error = (found.log_evidence - mixture_by_hand(X)) / found.standard_error
    assert float(error.abs().max()) < STANDARD_ERRORS


def test_calibration_ranks_what_the_guide_draws() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()).to(x), 1.0))
            second = pyro.sample("second", dist.Bernoulli(torch.tensor(0.5).to(x)))
            pyro.sample("x", dist.Normal(z + 0.0 * second, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    found = evaluation.calibrate(model, guide, X, num_simulations=60, seed=1)
    assert "second" not in str(list(found.names))
    assert found.is_calibrated


def test_models_of_discrete_latents_alone_have_nothing_to_sample() -> None:
    with pytest.raises(ValueError, match="has no continuous latents"):
        inference.hmc(markov, SEQUENCES, LENGTHS)
    assert no_guide() is None


def test_annealing_from_the_prior_finds_the_evidence_of_the_mixture() -> None:
    settings: dict[str, Any] = {"num_chains": 8, "num_temperatures": 20, "seed": 1}
    found, wanted = (
        inference.ais_evidence(model, X, **settings) for model in (two_means, two_means_by_hand)
    )
    error = (found.standard_error**2 + wanted.standard_error**2).sqrt()
    assert float((found.log_evidence - wanted.log_evidence).abs() / error) < STANDARD_ERRORS


@pytest.mark.slow
def test_chains_of_a_mixture_find_the_moments_of_the_mixture_by_hand() -> None:
    found, wanted = (
        inference.hmc(model, X, num_chains=8, num_samples=300, num_warmup=300, seed=seed)
        for seed, model in ((1, two_means), (2, two_means_by_hand))
    )
    assert set(found.samples) == {"share", "locs"}
    for name in found.samples:
        ours, theirs = (d.samples[name].double().mean(1) for d in (found, wanted))
        # chains are independent, so that the spread of their means is the error of all
        error = ((ours.var(0) + theirs.var(0)) / len(ours)).sqrt()
        assert bool(((ours - theirs).mean(0).abs() < STANDARD_ERRORS * error).all())
