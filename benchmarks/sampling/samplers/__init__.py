"""Who samples: names, what each needs installed, and what one call of it draws.

A sampler's module has ``build(trained, settings, variant)``, which gives ``sample(images, chains,
seed)``: it draws ``(chains, draws, datapoints, latent)`` of the posteriors of ``(datapoints,
pixels)`` images, warm-up included, and is finished with them when it returns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.common.runs import Competitor

__all__ = ["SAMPLERS", "Sample", "Sampler", "Settings"]

Array = np.ndarray[Any, Any]
Sample = Callable[[Array, int, int], Array]


@dataclass(frozen=True)
class Settings:
    """The same for all.

    Attributes:
        num_warmup: Iterations of each chain before its draws.
        num_samples: Draws of each chain.
        trajectory_length: Of those who do not adapt it, in units of time with unit masses.
        target_acceptance: What step sizes aim at.
    """

    num_warmup: int
    num_samples: int
    trajectory_length: float
    target_acceptance: float = 0.8


@dataclass(frozen=True)
class Sampler(Competitor):
    """A row of the table.

    Attributes:
        all_datapoints: Whether one call takes all posteriors, or one.
        all_chains: Whether one call makes all chains, or one.
    """

    all_datapoints: bool
    all_chains: bool


SAMPLERS = {
    "aevb": Sampler("aevb `hmc`", "aevb_hmc", "", "aevb", True, True),
    "numpyro-vectorized": Sampler(
        "NumPyro, vectorized chains, jitted once, one posterior after another",
        "numpyro_hmc", "vectorized", "numpyro", False, True,
    ),
    "numpyro-vmap": Sampler(
        "NumPyro, `vmap` over posteriors and chains", "numpyro_hmc", "vmap", "numpyro", True, True
    ),
    "pyro": Sampler("Pyro, one by one", "pyro_hmc", "", "pyro", False, False),
    "pyro-jit": Sampler("Pyro jitted, one by one", "pyro_hmc", "jit", "pyro", False, False),
    "pyro-joint": Sampler("Pyro, joint potential", "pyro_hmc", "", "pyro", True, False),
}  # fmt: skip
