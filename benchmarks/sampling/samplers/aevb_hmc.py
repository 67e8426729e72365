"""aevb's HMC over all chains and datapoints at once, on the same Pyro program as Pyro's."""

import torch

from aevb import inference
from benchmarks.common.trained import Trained
from benchmarks.sampling.samplers import Array, Sample, Settings
from benchmarks.sampling.samplers.pyro_hmc import program

__all__ = ["build"]


def build(trained: Trained, settings: Settings, variant: str) -> Sample:
    """Chains start from the prior, and no guide helps."""
    del variant
    model = program(trained)

    def sample(images: Array, chains: int, seed: int) -> Array:
        draws = inference.hmc(
            model,
            torch.from_numpy(images),
            num_chains=chains,
            num_samples=settings.num_samples,
            num_warmup=settings.num_warmup,
            seed=seed,
            target_acceptance=settings.target_acceptance,
        )
        return draws.samples["z"].numpy()

    return sample
