"""One sampler in a process of its own; prints one line of JSON.

    python -m benchmarks.sampling.worker --sampler pyro --trained FILE --threads 2

A call draws one posterior or all, one chain or all, as the sampler's row says; where it takes
many calls to draw everything, few are made and the time of the others is that of these.
"""

import argparse
import importlib
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.machine import installed_versions, peak_memory
from benchmarks.common.trained import read
from benchmarks.sampling.samplers import SAMPLERS, Array, Sample, Sampler, Settings

_SHOWN = 2  # posteriors whose moments are compared


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sampler", required=True, choices=list(SAMPLERS))
    parser.add_argument("--trained", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--datapoints", type=int, default=100)
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--num-warmup", type=int, default=500)
    parser.add_argument("--num-samples", type=int, default=500)
    parser.add_argument("--trajectory-length", type=float, default=2.5)
    parser.add_argument("--most-datapoints", type=int, default=5, help="of those drawn singly")
    parser.add_argument("--most-chains", type=int, default=2, help="of those drawn singly")
    options = parser.parse_args()
    # JAX has no setting for its threads, but makes one for each processor it may run on
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    sampler = SAMPLERS[options.sampler]
    module = importlib.import_module(f"benchmarks.sampling.samplers.{sampler.module}")
    settings = Settings(options.num_warmup, options.num_samples, options.trajectory_length)
    trained = read(options.trained)
    images = trained.images[: options.datapoints]
    if len(images) < options.datapoints:
        raise ValueError(f"datapoints: there are {len(images)} test images")
    memory_before = peak_memory()
    sample = module.build(trained, settings, sampler.variant)
    result = measure(sample, sampler, images, options)
    result |= {"memory_before_mib": memory_before, "versions": installed_versions()}
    print(json.dumps(result), flush=True)


def measure(
    sample: Sample, sampler: Sampler, images: Array, options: argparse.Namespace
) -> dict[str, Any]:
    """Make the calls; what they drew and took, as if all had been made."""
    datapoints = len(images) if sampler.all_datapoints else options.most_datapoints
    chains = options.chains if sampler.all_chains else options.most_chains
    width = len(images) if sampler.all_datapoints else 1
    deep = options.chains if sampler.all_chains else 1
    places = [(c, d) for d in range(0, datapoints, width) for c in range(0, chains, deep)]
    calls = len(places)
    if calls == 1:
        places *= 2  # a later call has nothing to compile
    draws = np.empty((chains, options.num_samples, datapoints, 0))
    times = []
    for number, (chain, datapoint) in enumerate(places):
        start = time.perf_counter()
        drawn = sample(images[datapoint : datapoint + width], deep, number)
        times.append(time.perf_counter() - start)
        if draws.shape[-1] == 0:
            draws = np.empty((*draws.shape[:3], drawn.shape[-1]))
        draws[chain : chain + deep, :, datapoint : datapoint + width] = drawn
    all_calls = len(images) // width * (options.chains // deep)
    later = float(np.mean(times[1:]))
    first_time = times[0] + (all_calls - 1) * later
    # chains are independent: their effective samples add up
    effective = sample_sizes(draws) * options.chains / chains
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
    main()
