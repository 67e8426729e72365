"""A trial of a guide whose model has a discrete latent for each datapoint, which is summed out."""

import pyro
import torch
from discrete_programs import LOCS, WEIGHTS, X
from pyro import distributions as dist
from torch import Tensor, nn

from aevb import evaluation, inference


class Shifted(nn.Module):
    """A mixture whose components are moved by z, and a guide of z alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(1, 2)

    def model(self, x: Tensor) -> None:
        pyro.module("shifted", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()).to(x), 1.0))
            k = pyro.sample("k", dist.Categorical(WEIGHTS.to(x)))
            pyro.sample("x", dist.Normal(LOCS.to(x)[k] + z, 0.5), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("shifted", self)
        loc, log_scale = self.encoder(x.unsqueeze(-1)).unbind(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()))


def test_a_mixture_is_put_on_trial() -> None:
    module = Shifted()
    trial = evaluation.compare(
        inference.Program(module.model, module.guide), (X.float(),), num_chains=4, num_samples=50,
        num_warmup=50, num_importance_samples=50, num_temperatures=10, max_steps=20,
        num_simulations=10, num_replications=10, seed=1,
    )  # fmt: skip
    assert len(trial.khat) == len(X)
    assert trial.draws.samples.keys() == {"z"}
    sentences = " ".join(trial.verdict())
    assert "datapoints simulated from the model itself" in sentences
    assert "model's replications" in sentences
