"""A small explorer, and one of a model whose posteriors are known."""

import pytest
import torch

from aevb import data, models
from aevb.experiments.reproduction.labels import labels
from aevb.explore.explorer import Explorer

# Trials in a second or two: as many draws as are compared.
BRIEF = {"num_samples": 200, "num_chains": 4, "max_draws": 50, "num_warmup": 50}


@pytest.fixture(scope="session")
def explorer() -> Explorer:
    """Of 40 digits under a VAE with two latents, untrained."""
    digits = data.load("digits", binarize="dynamic")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = models.VAE((8, 8), latent_dim=2, hidden=[16])
    about = {"run": "small", "model": repr(vae), "data": "digits", "split": "test", "seed": 0}
    return Explorer(
        vae.eval(), digits.test.evaluation(40), labels("digits")[2][:40].numpy(), about,
        num_samples=50, trial={**BRIEF, "num_temperatures": 5},
    )  # fmt: skip
