"""One posterior by one sampler in a process of its own: a whole call, libraries imported.

A sampler gives values of all sites, ``(chains, draws, *event)`` by name.
"""

import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.common.machine import peak_memory
from benchmarks.common.worker import run_worker
from benchmarks.sampling.joint.observations import POSTERIORS, observed

Array = np.ndarray[Any, Any]


def main(settings: SimpleNamespace) -> dict[str, Any]:
    """Sample; how many effective draws there are of the worst number."""
    sampler = _SAMPLERS[settings.sampler](settings.posterior, settings)
    start = time.perf_counter()
    values = sampler(0)
    seconds = time.perf_counter() - start
    import arviz
    from xarray import Dataset

    flat = np.concatenate([v.reshape(*v.shape[:2], -1) for _, v in sorted(values.items())], -1)
    dataset = Dataset({"z": (("chain", "draw", "number"), flat.astype(np.float64))})
    effective = float(np.asarray(arviz.ess(dataset)["z"]).min())
    tail = float(np.asarray(arviz.ess(dataset, method="tail")["z"]).min())
    rhat = float(np.asarray(arviz.rhat(dataset)["z"]).max()) if len(flat) > 1 else None
    return {
        "seconds": seconds,
        "ess": effective,
        "tail": tail,
        "rate": effective / seconds,
        "rhat": rhat,
        "moment": float(np.sqrt(np.square(np.median(flat, (0, 1))).sum())),
        "memory_mib": peak_memory(),
        "brief": f"{seconds:.1f} s, {effective:.0f} effective samples",
    }


def _aevb(name: str, settings: SimpleNamespace) -> Any:
    import torch

    from aevb import inference
    from benchmarks.sampling.joint.pyro_programs import PROGRAMS

    args = [torch.from_numpy(value) for value in observed(name)]

    def sample(seed: int) -> dict[str, Array]:
        draws = inference.hmc(
            PROGRAMS[name], *args, num_chains=settings.chains, num_samples=settings.num_samples,
            num_warmup=settings.num_warmup, seed=seed,
        )  # fmt: skip
        return {site: value.numpy() for site, value in draws.samples.items()}

    return sample


def _pyro(name: str, settings: SimpleNamespace) -> Any:
    import pyro
    import torch
    from pyro.infer import MCMC, NUTS

    from benchmarks.sampling.joint.pyro_programs import PROGRAMS

    pyro.enable_validation(False)
    args = [torch.from_numpy(value) for value in observed(name)]

    def sample(seed: int) -> dict[str, Array]:
        pyro.set_rng_seed(seed)
        mcmc = MCMC(
            NUTS(PROGRAMS[name]), settings.num_samples, warmup_steps=settings.num_warmup,
            disable_progbar=True,
        )  # fmt: skip
        mcmc.run(*args)
        found = mcmc.get_samples(group_by_chain=True)
        return {site: value.squeeze().unsqueeze(0).numpy() for site, value in found.items()}

    return sample


def _numpyro(name: str, settings: SimpleNamespace) -> Any:
    import jax
    import jax.numpy as jnp
    import numpyro
    from numpyro.infer import MCMC, NUTS

    if POSTERIORS[name][1] == "float64":
        numpyro.enable_x64()
    from benchmarks.sampling.joint.numpyro_programs import PROGRAMS

    args = [jnp.asarray(value) for value in observed(name)]

    def sample(seed: int) -> dict[str, Array]:
        mcmc = MCMC(
            NUTS(PROGRAMS[name]), num_warmup=settings.num_warmup,
            num_samples=settings.num_samples, num_chains=settings.chains,
            chain_method="vectorized", progress_bar=False,
        )  # fmt: skip
        mcmc.run(jax.random.PRNGKey(seed), *args)
        found = mcmc.get_samples(group_by_chain=True)
        return {site: np.asarray(value) for site, value in found.items()}

    return sample


_SAMPLERS = {"aevb": _aevb, "pyro": _pyro, "numpyro": _numpyro}


if __name__ == "__main__":
    run_worker(main)
