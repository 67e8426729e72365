"""Vectorized runs of a Pyro program pair: draws of the guide and their log-weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from aevb.inference.layouts import (
    Layout,
    batch_shape,
    in_plate,
    refuse_nan,
    sites,
    sum_log_prob,
)

__all__ = [
    "Cost",
    "cost_of_one_draw",
    "draw",
    "log_joint",
    "model_trace",
    "same_when_cut",
]


def draw(
    guide: Callable[..., Any], layout: Layout, num_samples: int, *args: Any
) -> tuple[dict[str, Tensor], Tensor]:
    """Draws of the guide and their log q.

    Args:
        guide: Posterior.
        layout: From :func:`read_layout`.
        num_samples: S, drawn at once in an outer plate.
        args: Arguments of the guide.

    Returns:
        The value of each latent site, ``(S, *plates, *event)``, and log q, ``(S, B)``, or
        ``(S, 1)`` for a joint posterior, float64, in nats.
    """
    with torch.no_grad():
        trace = poutine.trace(in_plate(guide, layout, num_samples)).get_trace(*args)
    refuse_nan(trace)
    latents = {}
    for name, site in sites(trace):
        batch = batch_shape(site, layout, num_samples)
        event = site["fn"].event_shape
        latents[name] = site["value"].expand(batch + event)
    return latents, sum_log_prob(sites(trace), layout, num_samples)


def log_joint(
    model: Callable[..., Any], layout: Layout, latents: dict[str, Tensor], *args: Any
) -> Tensor:
    """Log p(x, z) of given latents.

    Args:
        model: Joint distribution.
        layout: From :func:`read_layout`.
        latents: As :func:`draw` returns them.
        args: Arguments of the model.

    Returns:
        ``(S, B)``, or ``(S, 1)`` for a joint posterior, float64, in nats.
    """
    num_samples = len(next(iter(latents.values())))
    return sum_log_prob(sites(model_trace(model, layout, latents, *args)), layout, num_samples)


def model_trace(
    model: Callable[..., Any], layout: Layout, latents: dict[str, Tensor], *args: Any
) -> poutine.Trace:
    """The model run at given latents; arguments as for :func:`log_joint`."""
    num_samples = len(next(iter(latents.values())))
    conditioned = poutine.condition(model, data=latents)
    with torch.no_grad():
        return poutine.trace(in_plate(conditioned, layout, num_samples)).get_trace(*args)


def same_when_cut(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    layout: Layout,
    args: tuple[Any, ...],
    blocks: Sequence[tuple[slice, tuple[Any, ...]]],
) -> bool:
    """Whether every block of datapoints alone has the log-weights that it has among all.

    It has not if a program holds a value for each datapoint, the size of the data, or something
    that it makes of them all, such as a mean or a maximum.

    Args:
        model: Joint distribution.
        guide: Posterior.
        layout: From :func:`read_layout`.
        args: Arguments for all datapoints.
        blocks: Which datapoints, and the arguments for these alone.
    """
    latents, log_q = draw(guide, layout, 1, *args)
    log_p = log_joint(model, layout, latents, *args)
    for part, cut_args in blocks:
        where = (slice(None),) * layout.nesting + (part,)  # behind the draws and the outer plates
        some = {name: value[where] for name, value in latents.items()}
        alone = Layout(layout.nesting, len(range(*part.indices(layout.num_datapoints or 0))))
        try:
            conditioned = poutine.condition(guide, data=some)
            with torch.no_grad():
                trace = poutine.trace(in_plate(conditioned, layout, 1)).get_trace(*cut_args)
            pairs = (
                (sum_log_prob(sites(trace), alone, 1), log_q),
                (log_joint(model, alone, some, *cut_args), log_p),
            )
        except (ValueError, RuntimeError, IndexError):
            return False
        if not all(torch.allclose(a, b[:, part], rtol=1e-4, atol=1e-4) for a, b in pairs):
            return False
    return True


@dataclass(frozen=True)
class Cost:
    """What the model does with one draw of the latents.

    Attributes:
        num_bytes: Sum over all tensors that its operations return: a bound on the peak memory,
            whatever is freed in between.
        num_flops: Multiplications and additions of its matrix products and convolutions.
    """

    num_bytes: int
    num_flops: int


def cost_of_one_draw(
    model: Callable[..., Any], layout: Layout, latents: dict[str, Tensor], *args: Any
) -> Cost:
    """Run the model at one draw and count.

    Args:
        model: Joint distribution.
        layout: From :func:`read_layout`.
        latents: As :func:`draw` returns them.
        args: Arguments of the model.
    """
    first = {name: value[:1] for name, value in latents.items()}
    with FlopCounterMode(display=False) as flops, _BytesReturned() as returned:
        log_joint(model, layout, first, *args)
    return Cost(max(1, returned.total), flops.get_total_flops())


class _BytesReturned(TorchDispatchMode):
    """Adds up the sizes of all tensors that operations return."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor) and value._base is None:
                self.total += value.numel() * value.element_size()
        return result
