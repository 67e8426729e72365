"""The posteriors as NumPyro programs."""

import math

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

__all__ = ["PROGRAMS"]


def schools(y: jax.Array, sigma: jax.Array) -> None:
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", len(y)):
        eta = numpyro.sample("eta", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu + tau * eta, sigma), obs=y)


def logistic(x: jax.Array, y: jax.Array) -> None:
    level = numpyro.sample("level", dist.Normal(0.0, 2.5))
    w = numpyro.sample("w", dist.Normal(jnp.zeros(x.shape[1]), 1.0).to_event(1))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Bernoulli(logits=level + x @ w), obs=y)


def hierarchical(group: jax.Array, x: jax.Array, y: jax.Array) -> None:
    loc = numpyro.sample("loc", dist.Normal(jnp.zeros(2), 2.0).to_event(1))
    scale = numpyro.sample("scale", dist.HalfNormal(jnp.ones(2)).to_event(1))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    with numpyro.plate("groups", 20):
        raw = numpyro.sample("raw", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    of = loc + scale * raw
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(of[group, 0] + of[group, 1] * x, noise), obs=y)


def autoregression(y: jax.Array) -> None:
    level = numpyro.sample("level", dist.Normal(0.0, 1.0))
    w = numpyro.sample("w", dist.Normal(jnp.zeros(3), 0.5).to_event(1))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    loc = level + w[0] * y[2:-1] + w[1] * y[1:-2] + w[2] * y[:-3]
    with numpyro.plate("times", len(y) - 3):
        numpyro.sample("y", dist.Normal(loc, noise), obs=y[3:])


def mixture(y: jax.Array) -> None:
    share = numpyro.sample("share", dist.Dirichlet(2 * jnp.ones(3)))
    first = numpyro.sample("first", dist.Normal(-2.0, 3.0))
    gaps = numpyro.sample("gaps", dist.Gamma(2 * jnp.ones(2), 1.0).to_event(1))
    scale = numpyro.sample("scale", dist.LogNormal(jnp.zeros(3), 0.5).to_event(1))
    loc = jnp.stack([first, first + gaps[0], first + gaps[0] + gaps[1]])
    with numpyro.plate("rows", len(y)):
        of = dist.MixtureSameFamily(dist.Categorical(share), dist.Normal(loc, scale))
        numpyro.sample("y", of, obs=y)


def process(x: jax.Array, y: jax.Array) -> None:
    dim = x.shape[1]
    usual = jnp.full(dim, math.sqrt(2) + 0.5 * math.log(dim))
    length = numpyro.sample("length", dist.LogNormal(usual, 1.0).to_event(1))
    height = numpyro.sample("height", dist.Gamma(2.0, 1.0))
    noise = numpyro.sample("noise", dist.LogNormal(-3.0, 1.0))
    rows = x / length
    square = (rows * rows).sum(-1)
    distance = square[:, None] + square - 2 * rows @ rows.T
    kernel = height * jnp.exp(-0.5 * distance) + jnp.eye(len(x)) * (noise + 1e-6)
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), kernel), obs=y)


PROGRAMS = {
    program.__name__: program
    for program in (schools, logistic, hierarchical, autoregression, mixture, process)
}
