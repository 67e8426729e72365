"""Everything that draws does so under its seed, and leaves torch's global state alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from aevb import evaluation, models

X = (torch.arange(48.0).reshape(3, 4, 4) % 3 == 0).float()
OBSERVED = torch.arange(16).reshape(4, 4) % 2 == 0
NOISE = torch.randn(2, 20, 3, 2, generator=torch.Generator().manual_seed(0))


def vae() -> models.VAE:
    """Of equal weights at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return models.VAE((4, 4), 2, [6])


VAE = vae()
PROGRAMS = VAE.model, VAE.guide
BRIEF = {"num_chains": 2, "num_samples": 5, "num_warmup": 5}

DRAWING: dict[str, Callable[[int], Tensor]] = {
    "prior_samples": lambda seed: evaluation.prior_samples(VAE.model, 5, seed=seed),
    "prior_means": lambda seed: evaluation.prior_means(VAE.model, 5, seed=seed),
    "reconstructions": lambda seed: evaluation.reconstructions(*PROGRAMS, X, seed=seed),
    "energy_distance_test": lambda seed: evaluation.energy_distance_test(
        NOISE[0], NOISE[1] + 0.3, 99, seed=seed
    )[1],
    "impute": lambda seed: evaluation.impute(*PROGRAMS, X, OBSERVED, seed=seed).mean,
    "denoise": lambda seed: evaluation.denoise(*PROGRAMS, X, seed=seed).mean,
    "impute_hmc": lambda seed: (
        evaluation.impute_hmc(VAE.model, X, OBSERVED, seed=seed, **BRIEF).mean
    ),
    "predictive_check": lambda seed: evaluation.predictive_check(
        *PROGRAMS, X, num_draws=20, seed=seed
    ).replicated["mean"],
    "calibrate": lambda seed: (
        evaluation.calibrate(*PROGRAMS, X, num_simulations=9, seed=seed).ranks
    ),
}


@pytest.mark.filterwarnings("ignore:HMC")
@pytest.mark.parametrize("name", DRAWING)
def test_draws_follow_the_seed_and_nothing_else(name: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = DRAWING[name](3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert torch.equal(DRAWING[name](3), first)
    assert not torch.equal(DRAWING[name](4), first)


@pytest.mark.parametrize(
    "look",
    [
        lambda: evaluation.latent_manifold(VAE.model, 3),
        lambda: evaluation.predictive.checks.observed_data(VAE.model, X)[1],
        lambda: evaluation.embed(VAE.guide, X).mean,
        lambda: evaluation.kl_per_dimension(*PROGRAMS, X).kl,
    ],
    ids=["latent_manifold", "observed_data", "embed", "kl_per_dimension"],
)
def test_what_needs_no_draws_moves_no_state(look: Callable[[], Any]) -> None:
    before = torch.get_rng_state()
    first = look()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    assert torch.equal(look(), first)


def test_means_are_those_of_the_draws() -> None:
    samples = evaluation.prior_samples(VAE.model, 4000, seed=2)
    means = evaluation.prior_means(VAE.model, 4000, seed=2)
    error = (samples - means).double().mean((1, 2)).mean()
    spread = (means * (1 - means)).double().sum() ** 0.5 / means.numel()
    assert abs(float(error / spread)) < 5
