"""One estimator of log p(x) in a process of its own."""

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.common.machine import peak_memory
from benchmarks.common.trained import LATENT_DIM, Trained, read, test_images
from benchmarks.common.worker import run_worker

_MIB = 2**20


def measure(settings: SimpleNamespace) -> dict[str, Any]:
    """Two calls: the first traces and compiles, as does what the second traces anew."""
    trained = read(Path(settings.trained))
    vae, x = _vae_and_images(trained, settings.datapoints)
    estimator = _importance if settings.estimator == "importance" else _ais
    estimate = estimator(vae, x, settings)
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


def _importance(vae: Any, x: Any, settings: SimpleNamespace) -> Estimate:
    """The evidence, decoder evaluations, and passes through the decoder in each."""
    from aevb import inference

    importlib.import_module("arviz")  # seconds, and no part of the first call

    def estimate() -> tuple[Any, int, int]:
        evidence = inference.importance_evidence(
            vae.model,
            vae.guide,
            x,
            num_samples=settings.size,
            memory_budget=settings.budget * _MIB,
        )
        return evidence, settings.size * len(x), 1

    return estimate


def _ais(vae: Any, x: Any, settings: SimpleNamespace) -> Estimate:
    """The same; each evaluation has a gradient for the latents, a second pass."""
    from aevb import inference
    from aevb.inference.mcmc.path_gradients import PathGradient

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
            vae.model, x, num_chains=settings.chains, num_temperatures=settings.size
        )
        return evidence, count, 2

    return estimate


def _vae_and_images(trained: Trained, datapoints: int) -> tuple[Any, Any]:
    import torch

    from aevb import models

    vae = models.VAE(trained.shape, LATENT_DIM, [trained.decoder[2].shape[1]])
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            parameter.copy_(torch.from_numpy(trained.weights[name]))
    x = torch.from_numpy(test_images(trained, datapoints))
    return vae, x.reshape(-1, *trained.shape)


if __name__ == "__main__":
    run_worker(measure)
