"""The programs in NumPyro, as a user of NumPyro writes them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.infer import init_to_value
from numpyro.infer.autoguide import AutoNormal

from benchmarks.steps.workloads import Network, Workload, initial_weights

__all__ = ["programs"]

Programs = tuple[Callable[..., Any], Callable[..., Any]]
Heads = Callable[[jax.Array], list[jax.Array]]


def programs(workload: Workload) -> Programs:
    """Model and guide."""
    if workload.kind == "vae":
        return _vae(**_networks(workload))
    if workload.kind == "two-layer":
        return _two_layer(**_networks(workload))
    if workload.kind == "eight-schools":
        start = {"mu": 0.0, "tau": 5.0, "theta": jnp.zeros(8)}
        return _eight_schools, AutoNormal(_eight_schools, init_loc_fn=init_to_value(values=start))

    def model(x: jax.Array, y: jax.Array) -> None:
        _logistic(x, y, workload.batch)

    start = {"w": jnp.zeros(workload.features), "b": 0.0}
    return model, AutoNormal(model, init_loc_fn=init_to_value(values=start))


def _networks(workload: Workload) -> dict[str, Heads]:
    initial = {
        name: (jnp.asarray(weight.T), jnp.asarray(bias))
        for name, (weight, bias) in initial_weights(workload).items()
    }

    def heads(name: str, network: Network) -> Heads:
        def forward(x: jax.Array) -> list[jax.Array]:
            outputs = []
            for layer, _, _ in network.layers():
                weight = numpyro.param(f"{name}.{layer}.weight", initial[f"{name}.{layer}"][0])
                bias = numpyro.param(f"{name}.{layer}.bias", initial[f"{name}.{layer}"][1])
                if layer.startswith("hidden"):
                    x = jnp.tanh(x @ weight + bias)
                else:
                    outputs.append(x @ weight + bias)
            return outputs

        return forward

    return {name: heads(name, network) for name, network in workload.networks.items()}


def _vae(encoder: Heads, decoder: Heads) -> Programs:
    def model(x: jax.Array) -> None:
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([20]).to_event(1))
            (logits,) = decoder(z)
            numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x: jax.Array) -> None:
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", _normal(encoder(x)))

    return model, guide


def _two_layer(encoder1: Heads, encoder2: Heads, decoder2: Heads, decoder1: Heads) -> Programs:
    def model(x: jax.Array) -> None:
        with numpyro.plate("data", len(x)):
            z2 = numpyro.sample("z2", dist.Normal(0.0, 1.0).expand([50]).to_event(1))
            z1 = numpyro.sample("z1", _normal(decoder2(z2)))
            (logits,) = decoder1(z1)
            numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x: jax.Array) -> None:
        with numpyro.plate("data", len(x)):
            z1 = numpyro.sample("z1", _normal(encoder1(x)))
            numpyro.sample("z2", _normal(encoder2(z1)))

    return model, guide


def _normal(heads: list[jax.Array]) -> dist.Distribution:
    loc, log_variance = heads
    return dist.Normal(loc, jnp.exp(0.5 * log_variance)).to_event(1)


def _eight_schools(effects: jax.Array, errors: jax.Array) -> None:
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", 8):
        theta = numpyro.sample("theta", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu + tau * theta, errors), obs=effects)


def _logistic(x: jax.Array, y: jax.Array, batch: int) -> None:
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x), subsample_size=batch) as rows:
        logits = x[rows] @ w + b
        numpyro.sample("y", dist.Bernoulli(logits=logits), obs=y[rows])
