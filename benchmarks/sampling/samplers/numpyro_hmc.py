"""NumPyro's HMC, jitted once for all calls."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import HMC, MCMC

from benchmarks.common.trained import LATENT_DIM, Trained
from benchmarks.sampling.samplers import Array, Sample, Settings

__all__ = ["build"]


def build(trained: Trained, settings: Settings, variant: str) -> Sample:
    """``variant`` is ``"vectorized"``, chains of one posterior, or ``"vmap"``, all of all.

    Under ``vectorized`` the whole run is jitted from outside: by itself ``MCMC.run`` traces the
    model anew for each posterior, which takes longer than the chains.
    """
    hidden, hidden_bias, head, head_bias = map(jnp.asarray, trained.decoder)

    def model(x: jax.Array) -> None:
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([LATENT_DIM]).to_event(1))
        logits = jnp.tanh(z @ hidden.T + hidden_bias) @ head.T + head_bias
        numpyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def mcmc(chains: int) -> MCMC:
        return MCMC(
            HMC(
                model,
                trajectory_length=settings.trajectory_length,
                target_accept_prob=settings.target_acceptance,
            ),
            num_warmup=settings.num_warmup,
            num_samples=settings.num_samples,
            num_chains=chains,
            chain_method="vectorized",
            progress_bar=False,
        )

    def chains_of(key: jax.Array, x: jax.Array, chains: int) -> jax.Array:
        run = mcmc(chains)
        run.run(key, x)
        return run.get_samples(group_by_chain=True)["z"]  # (chains, draws, latent)

    vectorized = jax.jit(chains_of, static_argnums=2)

    @jax.jit
    def vmapped(keys: jax.Array, images: jax.Array) -> jax.Array:
        by_chain = jax.vmap(lambda key, x: chains_of(key, x, 1)[0], (0, None))
        return jax.vmap(by_chain)(keys, images)  # (datapoints, chains, draws, latent)

    def sample(images: Array, chains: int, seed: int) -> Array:
        key = jax.random.PRNGKey(seed)
        if variant == "vmap":
            keys = jax.random.split(key, len(images) * chains).reshape(len(images), chains, -1)
            return np.moveaxis(np.asarray(vmapped(keys, jnp.asarray(images))), 0, 2)
        (image,) = images
        return np.asarray(vectorized(key, jnp.asarray(image), chains))[:, :, None]

    return sample
