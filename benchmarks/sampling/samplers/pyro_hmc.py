"""Pyro's HMC, one chain at a time."""

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro.infer import HMC, MCMC
from torch import Tensor

from benchmarks.common.trained import LATENT_DIM, Trained
from benchmarks.sampling.samplers import Array, Sample, Settings

__all__ = ["build", "program"]


def program(trained: Trained) -> Callable[[Tensor], Any]:
    """The model with the trained decoder."""
    hidden, hidden_bias, head, head_bias = map(torch.from_numpy, trained.decoder)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            prior = dist.Normal(x.new_zeros(len(x), LATENT_DIM), 1.0)
            z = pyro.sample("z", prior.to_event(1))
            features = torch.tanh(torch.nn.functional.linear(z, hidden, hidden_bias))
            logits = torch.nn.functional.linear(features, head, head_bias)
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    return model


def build(trained: Trained, settings: Settings, variant: str) -> Sample:
    """``variant`` is ``"jit"`` or empty."""
    pyro.enable_validation(False)  # no other competitor validates either
    model = program(trained)

    def sample(images: Array, chains: int, seed: int) -> Array:
        pyro.set_rng_seed(seed)
        kernel = HMC(
            model,
            trajectory_length=settings.trajectory_length,
            target_accept_prob=settings.target_acceptance,
            jit_compile=variant == "jit",
            ignore_jit_warnings=True,
        )
        mcmc = MCMC(
            kernel,
            settings.num_samples,
            warmup_steps=settings.num_warmup,
            num_chains=chains,
            disable_progbar=True,
        )
        mcmc.run(torch.from_numpy(images))
        return mcmc.get_samples(group_by_chain=True)["z"].numpy()

    return sample
