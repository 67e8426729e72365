"""Pyro's SVI, with the interpreter's loss or the jitted one."""

import pyro
import torch
from pyro.infer import SVI, JitTrace_ELBO, Trace_ELBO
from torch import Tensor

from benchmarks.steps.competitors import Run
from benchmarks.steps.competitors.on_torch import Loaded, load, loop
from benchmarks.steps.pyro_programs import programs
from benchmarks.steps.workloads import LEARNING_RATE, Workload

__all__ = ["build", "load"]


def build(workload: Workload, variant: str, loaded: Loaded) -> Run:
    """``variant`` is ``"Trace_ELBO"`` or ``"JitTrace_ELBO"``."""
    pyro.enable_validation(False)  # no other competitor validates either
    torch.manual_seed(0)
    model, guide = programs(workload, loaded.device)
    jitted = variant == "JitTrace_ELBO"
    loss = JitTrace_ELBO(ignore_jit_warnings=True) if jitted else Trace_ELBO()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": LEARNING_RATE}), loss)

    def step(*inputs: Tensor) -> float:
        if loaded.rows is None:
            return svi.step(*inputs)
        data, rows = inputs
        return svi.step(data.index_select(0, rows))

    return loop(step, loaded)
