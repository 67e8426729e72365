"""One estimator of log p(x) in a process of its own; prints one line of JSON.

python -m benchmarks.evidence.worker --estimator importance --size 5000 --trained FILE --threads 2
"""

import argparse
import importlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common.machine import installed_versions, peak_memory
from benchmarks.common.trained import LATENT_DIM, Trained, read

_PRODUCT_ROWS = 5_000
_MIB = 2**20


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--estimator", required=True, choices=["importance", "ais", "products"])
    parser.add_argument("--size", type=int, default=0, help="samples, or temperatures")
    parser.add_argument("--trained", type=Path, required=True)
    parser.add_argument("--datapoints", type=int, default=100)
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--memory-budget", type=int, default=128, help="MiB")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    trained = read(options.trained)
    if options.estimator == "products":
        from benchmarks.common.products import measure_products  # threads are settled by now

        result = measure_products((_PRODUCT_ROWS, *trained.largest_product), "cpu", 1.0)
    else:
        result = measure(trained, options)
    print(json.dumps(result | {"versions": installed_versions()}), flush=True)


def measure(trained: Trained, options: argparse.Namespace) -> dict[str, Any]:
    """Two calls: the first traces and compiles, as does what the second traces anew."""
    estimate = (_importance if options.estimator == "importance" else _ais)(trained, options)
    memory_before = peak_memory()
    times = []
    for _ in range(2):
        start = time.perf_counter()
        evidence, evaluations, passes = estimate()
        times.append(time.perf_counter() - start)
    return {
        "seconds": times[0],
        "later_seconds": times[1],
        "evaluations": evaluations,
        "multiply_adds": evaluations * passes * trained.multiply_adds,
        "log_evidence": float(evidence.log_evidence.mean()),
        "standard_error": float(evidence.standard_error.mean()),
        "memory_before_mib": memory_before,
        "memory_mib": peak_memory(),
        "brief": f"{times[0]:.1f} s, then {times[1]:.1f} s, {evaluations / times[1]:.3g}/s",
    }


Estimate = Callable[[], tuple[Any, int, int]]


def _importance(trained: Trained, options: argparse.Namespace) -> Estimate:
    """The evidence, decoder evaluations, and passes through the decoder in each."""
    from aevb import inference

    importlib.import_module("arviz")  # seconds, and no part of the first call
    vae, x = _vae_and_images(trained, options.datapoints)

    def estimate() -> tuple[Any, int, int]:
        evidence = inference.importance_evidence(
            vae.model,
            vae.guide,
            x,
            num_samples=options.size,
            memory_budget=options.memory_budget * _MIB,
        )
        return evidence, options.size * len(x), 1

    return estimate


def _ais(trained: Trained, options: argparse.Namespace) -> Estimate:
    """The same; each evaluation has a gradient for the latents, a second pass."""
    from aevb import inference
    from aevb.inference.mcmc.path_gradients import PathGradient

    vae, x = _vae_and_images(trained, options.datapoints)
    count = 0

    class Counted(PathGradient):
        def __call__(self, u: Any, temperature: Any = None) -> Any:
            nonlocal count
            count += u.shape[0] * u.shape[1]
            return super().__call__(u, temperature)

    # the pilot's evaluations are counted too, whatever its size
    importlib.import_module("aevb.inference.evidence.annealing").__dict__["PathGradient"] = Counted

    def estimate() -> tuple[Any, int, int]:
        nonlocal count
        count = 0
        evidence = inference.ais_evidence(
            vae.model, x, num_chains=options.chains, num_temperatures=options.size
        )
        return evidence, count, 2

    return estimate


def _vae_and_images(trained: Trained, datapoints: int) -> tuple[Any, Any]:
    import torch

    from aevb import models

    vae = models.VAE(trained.shape, LATENT_DIM, [trained.largest_product[0]])
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            parameter.copy_(torch.from_numpy(trained.weights[name]))
    x = torch.from_numpy(trained.images[:datapoints])
    if len(x) < datapoints:
        raise ValueError(f"datapoints: there are {len(x)} test images")
    return vae, x.reshape(-1, *trained.shape)


if __name__ == "__main__":
    main()
