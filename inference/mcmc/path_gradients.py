"""Densities with gradients, in chunks of chains, as graphs where that repays the tracing."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aevb.inference.graphs.compile import graph_function
from aevb.inference.graphs.tracing import NotTraceableError
from aevb.inference.mcmc.functions import FunctionDensity
from aevb.inference.mcmc.integrators import Point
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.cost import cost_of
from aevb.inference.programs.log_density import LogDensity

__all__ = ["PathGradient"]

# Decided by what there is to do and not by the clock, so that results repeat. Pyro's handlers take
# milliseconds an evaluation and tracing a second; inductor's ten seconds repay a minute of work.
_EVALUATIONS_WORTH_A_GRAPH = 300
_FLOPS_WORTH_COMPILING = 5e12


class PathGradient:
    r"""Log-density and gradient of a posterior, or of the path to it from where one can draw.

    .. math:: f_\beta(u) = (1 - \beta) \log q_0(u) + \beta \log p(x, u)

    Args:
        density: Of the posterior; :math:`q_0` is its guide, or the prior if it has none.
        chain_batch_size: Chains evaluated at once, which bounds the memory; None for all.
        num_evaluations: How often it will be called, about.
    """

    def __init__(
        self,
        density: LogDensity | FunctionDensity,
        chain_batch_size: int | None = None,
        num_evaluations: int = 0,
    ) -> None:
        self.density = density
        self._at_once = chain_batch_size
        self._num_evaluations = num_evaluations
        self._graphs: dict[Any, Callable[..., Any]] = {}

    def __call__(self, u: Tensor, temperature: Tensor | None = None) -> Point:
        """Evaluate.

        Args:
            u: ``(chains, batch, dim)``.
            temperature: β, ``(batch,)``, float64; None for the posterior alone.
        """
        u = u.contiguous()  # a graph holds for one memory layout
        given = () if temperature is None else (temperature,)
        size = len(u) if self._at_once is None else min(self._at_once, len(u))
        parts = [self._function_for(part, *given)(part, *given) for part in u.split(size)]
        return Point(u, *(torch.cat(part) for part in zip(*parts, strict=True)))

    def _function_for(self, *inputs: Tensor) -> Callable[..., Any]:
        if self._num_evaluations < _EVALUATIONS_WORTH_A_GRAPH:
            return self._eager
        key = tuple(value.shape for value in inputs)
        if key not in self._graphs:
            self._graphs[key] = self._graph(*inputs)
        return self._graphs[key]

    def _graph(self, *inputs: Tensor) -> Callable[..., Any]:
        work = cost_of(lambda: self._eager(*inputs)).num_flops * self._num_evaluations
        levels = ["compiled", "traced"] if work > _FLOPS_WORTH_COMPILING else ["traced"]
        for level in levels:
            try:
                return graph_function(self._eager, *inputs, level=level)
            except NotTraceableError:
                break
            except Exception:
                continue
        return self._eager

    def _eager(
        self, u: Tensor, temperature: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad(), argument_checks(False):
            u = u.detach().requires_grad_()
            if temperature is None:
                density = self.density.joint(u)
                tilt = torch.zeros_like(density)
            elif isinstance(self.density, FunctionDensity):
                raise ValueError("temperature: a function has no other end to anneal from")
            else:
                base, tilt = self.density.path(u)
                # at temperature 0 the other end does not matter, not even where it is impossible
                density = base + torch.where(temperature > 0, temperature * tilt, 0.0)
            (gradient,) = torch.autograd.grad(density.sum(), u)
        return density.detach(), gradient, tilt.detach()
