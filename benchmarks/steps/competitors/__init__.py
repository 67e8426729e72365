"""Who takes part: names, what each needs installed, and where its steps are made.

A competitor's module has two functions: ``load(workload, device)``, which puts the data where the
steps read them, and ``build(workload, variant, loaded)``, which gives ``run(first, count)``: it
makes the steps ``first … first + count - 1``, is finished with all of them when it returns, and
returns their mean loss in nats.
"""

from collections.abc import Callable

from benchmarks.common.runs import Competitor
from benchmarks.steps.workloads import Workload

__all__ = ["COMPETITORS", "Run", "takes_part"]

Run = Callable[[int, int], float]


COMPETITORS = {
    "pyro": Competitor("Pyro `SVI`", "pyro_svi", "Trace_ELBO", "pyro"),
    "pyro-jit": Competitor("Pyro `JitTrace_ELBO`", "pyro_svi", "JitTrace_ELBO", "pyro"),
    "torch": Competitor("PyTorch by hand", "handwritten", "fused Adam", "torch"),
    "numpyro": Competitor("NumPyro jitted `update`", "numpyro_svi", "update", "numpyro"),
    "numpyro-loop": Competitor("NumPyro `fori_loop`", "numpyro_svi", "loop", "numpyro"),
    "aevb-eager": Competitor("aevb eager", "aevb_steps", "eager", "aevb"),
    "aevb-traced": Competitor("aevb traced", "aevb_steps", "traced", "aevb"),
    "aevb-compiled": Competitor("aevb compiled", "aevb_steps", "compiled", "aevb"),
}


def takes_part(name: str, workload: Workload) -> bool:
    """Whether a competitor has a row in the workload's table.

    Hardly anyone writes the models without networks by hand in PyTorch, or jits them in Pyro.
    """
    return bool(workload.networks) or name not in ("torch", "pyro-jit")
