"""The programs in Pyro, as a user of Pyro writes them."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoNormal, init_to_value
from torch import Tensor, nn

from benchmarks.steps.workloads import Network, Workload, initial_weights

__all__ = ["Heads", "networks", "programs"]


class Heads(nn.Module):
    """Tanh layers with several linear heads; gives one tensor per head."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.linear = nn.ModuleDict(
            {name: nn.Linear(fan_in, fan_out) for name, fan_in, fan_out in network.layers()}
        )
        self.hidden = nn.Sequential(
            *(
                module
                for name, linear in self.linear.items()
                if name.startswith("hidden")
                for module in (linear, nn.Tanh())
            )
        )
        self.heads = [linear for name, linear in self.linear.items() if name.startswith("head")]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Value of each head at ``x``, ``(batch, inputs)``."""
        features = self.hidden(x)
        return [head(features) for head in self.heads]


def networks(workload: Workload, device: torch.device) -> dict[str, Heads]:
    """The workload's networks with the initial weights that all competitors share."""
    made = {name: Heads(network) for name, network in workload.networks.items()}
    with torch.no_grad():
        for key, (weight, bias) in initial_weights(workload).items():
            name, layer = key.split(".")
            made[name].linear[layer].weight.copy_(torch.from_numpy(weight))
            made[name].linear[layer].bias.copy_(torch.from_numpy(bias))
    return {name: network.to(device) for name, network in made.items()}


def programs(
    workload: Workload, device: torch.device
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Model and guide."""
    if workload.kind == "vae":
        return _vae(**networks(workload, device))
    if workload.kind == "two-layer":
        return _two_layer(**networks(workload, device))
    if workload.kind == "eight-schools":
        start = {"mu": torch.tensor(0.0), "tau": torch.tensor(5.0), "theta": torch.zeros(8)}
        return _eight_schools, AutoNormal(_eight_schools, init_loc_fn=init_to_value(values=start))

    def model(x: Tensor, y: Tensor) -> None:
        _logistic(x, y, workload.batch)

    start = {"w": torch.zeros(workload.features), "b": torch.tensor(0.0)}
    return model, AutoNormal(model, init_loc_fn=init_to_value(values=start))


def _vae(encoder: Heads, decoder: Heads) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def model(x: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            prior = dist.Normal(x.new_zeros(len(x), 20), x.new_ones(len(x), 20))
            z = pyro.sample("z", prior.to_event(1))
            (logits,) = decoder(z)
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", _normal(encoder(x)))

    return model, guide


def _two_layer(
    encoder1: Heads, encoder2: Heads, decoder2: Heads, decoder1: Heads
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def model(x: Tensor) -> None:
        pyro.module("decoder1", decoder1)
        pyro.module("decoder2", decoder2)
        with pyro.plate("data", len(x)):
            prior = dist.Normal(x.new_zeros(len(x), 50), x.new_ones(len(x), 50))
            z2 = pyro.sample("z2", prior.to_event(1))
            z1 = pyro.sample("z1", _normal(decoder2(z2)))
            (logits,) = decoder1(z1)
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder1", encoder1)
        pyro.module("encoder2", encoder2)
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", _normal(encoder1(x)))
            pyro.sample("z2", _normal(encoder2(z1)))

    return model, guide


def _normal(heads: list[Tensor]) -> dist.TorchDistribution:
    loc, log_variance = heads
    return dist.Normal(loc, torch.exp(0.5 * log_variance)).to_event(1)


def _eight_schools(effects: Tensor, errors: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", 8):
        theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu + tau * theta, errors), obs=effects)


def _logistic(x: Tensor, y: Tensor, batch: int) -> None:
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    b = pyro.sample("b", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x), subsample_size=batch) as rows:
        logits = x[rows] @ w + b
        pyro.sample("y", dist.Bernoulli(logits=logits), obs=y[rows])
