"""One sampler in a process of its own.

A call draws one posterior or all, one chain or all, as the sampler's row says; where it takes
many calls to draw everything, few are made and the time of the others is that of these.
"""

import importlib
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.common.machine import peak_memory
from benchmarks.common.trained import read, test_images
from benchmarks.common.worker import run_worker
from benchmarks.sampling.samplers import SAMPLERS, Array, Sample, Sampler, Settings

_SHOWN = 2  # posteriors whose moments are compared


def main(settings: SimpleNamespace) -> dict[str, Any]:
    """Build the sampler, and measure it."""
    sampler = SAMPLERS[settings.sampler]
    module = importlib.import_module(f"benchmarks.sampling.samplers.{sampler.module}")
    lengths = settings.num_warmup, settings.num_samples, settings.trajectory_length
    trained = read(Path(settings.trained))
    images = test_images(trained, settings.datapoints)
    memory_before = peak_memory()
    sample = module.build(trained, Settings(*lengths), sampler.variant)
    return measure(sample, sampler, images, settings) | {"memory_before_mib": memory_before}


def measure(
    sample: Sample, sampler: Sampler, images: Array, settings: SimpleNamespace
) -> dict[str, Any]:
    """Make the calls; what they drew and took, as if all had been made."""
    datapoints = len(images) if sampler.all_datapoints else settings.most_datapoints
    chains = settings.chains if sampler.all_chains else settings.most_chains
    width = len(images) if sampler.all_datapoints else 1
    deep = settings.chains if sampler.all_chains else 1
    places = [(c, d) for d in range(0, datapoints, width) for c in range(0, chains, deep)]
    calls = len(places)
    if calls == 1:
        places *= 2  # a later call has nothing to compile
    draws = np.empty((chains, settings.num_samples, datapoints, 0))
    times = []
    for number, (chain, datapoint) in enumerate(places):
        start = time.perf_counter()
        drawn = sample(images[datapoint : datapoint + width], deep, number)
        times.append(time.perf_counter() - start)
        if draws.shape[-1] == 0:
            draws = np.empty((*draws.shape[:3], drawn.shape[-1]))
        draws[chain : chain + deep, :, datapoint : datapoint + width] = drawn
    all_calls = len(images) // width * (settings.chains // deep)
    later = float(np.mean(times[1:]))
    first_time = times[0] + (all_calls - 1) * later
    # chains are independent: their effective samples add up
    effective = sample_sizes(draws) * settings.chains / chains
    return {
        "seconds": first_time,
        "later_seconds": all_calls * later,
        "first_call": times[0],
        "calls": calls,
        "all_calls": all_calls,
        "ess": float(effective.mean()),
        "least_ess": float(effective.min()),
        "ess_per_second": float(effective.mean()) / first_time,
        "later_ess_per_second": float(effective.mean()) / (all_calls * later),
        "second_moment": float(np.square(draws[:, :, :_SHOWN]).sum(-1).mean()),
        "worst_rhat": worst_rhat(draws) if chains > 1 else None,
        "memory_mib": peak_memory(),
        "brief": f"{first_time:.1f} s, {effective.mean():.0f} effective samples",
    }


def sample_sizes(draws: Array) -> Array:
    """Bulk effective samples of each posterior, the least over dimensions, ``(datapoints,)``."""
    return np.asarray(_diagnosed("ess", draws).min(-1))


def worst_rhat(draws: Array) -> float:
    """Largest over dimensions and posteriors."""
    return float(_diagnosed("rhat", draws).max())


def _diagnosed(name: str, draws: Array) -> Array:
    import arviz
    from xarray import Dataset

    dataset = Dataset({"z": (("chain", "draw", "datapoint", "latent"), draws)})
    return np.asarray(getattr(arviz, name)(dataset)["z"])


if __name__ == "__main__":
    run_worker(main)
