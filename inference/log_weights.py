"""Vectorized runs of a Pyro program pair: draws of the guide and their log-weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro import poutine
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

__all__ = [
    "Cost",
    "Layout",
    "NoDensityError",
    "cost_of_one_draw",
    "draw",
    "log_joint",
    "model_trace",
    "read_layout",
    "refuse_nan",
    "same_when_cut",
]


class NoDensityError(ValueError):
    """A guide puts all its mass on single points, so that there is no evidence to estimate."""


Callables = tuple[Callable[..., Any], Callable[..., Any]]


@dataclass(frozen=True)
class Layout:
    """How the sites of a program pair lie in plates.

    Attributes:
        nesting: Plates of the deepest site; the plate of draws goes to its left.
        num_datapoints: Size of the rightmost ``"data"`` plate if every site lies in it, so that
            each datapoint has a posterior of its own; None for one joint posterior.
    """

    nesting: int
    num_datapoints: int | None


def read_layout(model: Callable[..., Any], guide: Callable[..., Any], *args: Any) -> Layout:
    """Run both programs once and see where their sites lie.

    Args:
        model: Joint distribution.
        guide: Posterior.
        args: Arguments of both.

    Raises:
        ValueError: If a site is scaled or subsampled, is latent in one program only, is a point
            mass, or observes data outside its support.
    """
    with torch.no_grad():
        guide_trace = poutine.trace(guide).get_trace(*args)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
    latent = {name for name, _ in _sites(guide_trace)}
    _refuse_foreign_latents(guide_trace, model_trace)
    _refuse_outside_support(model_trace)
    unguided = [
        name
        for name, site in _sites(model_trace)
        if not site["is_observed"] and name not in latent
    ]
    if unguided:
        raise ValueError(f"guide: has no site for the model's latents {unguided}")
    frames: list[tuple[Any, ...]] = []
    for name, site in [*_sites(guide_trace), *_sites(model_trace)]:
        if not isinstance(site["scale"], int | float) or site["scale"] != 1:
            raise ValueError(
                f"site {name!r} is scaled by {site['scale']}: the evidence of subsampled or "
                "tempered programs is not defined; call them with all data and no scale"
            )
        frames.append(tuple(f for f in site["cond_indep_stack"] if f.vectorized))
    nesting = max((-frame.dim for stack in frames for frame in stack), default=0)
    sizes = {f.size if f.name == "data" and f.dim == -1 else None for s in frames for f in s}
    own = all(any(f.name == "data" and f.dim == -1 for f in stack) for stack in frames)
    counts = [size for size in sizes if size is not None]
    return Layout(nesting, counts[0] if own and counts else None)


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
        trace = poutine.trace(_in_plate(guide, layout, num_samples)).get_trace(*args)
    refuse_nan(trace)
    latents = {}
    for name, site in _sites(trace):
        batch = _batch_shape(site, layout, num_samples)
        event = site["fn"].event_shape
        latents[name] = site["value"].expand(batch + event)
    return latents, _log_prob(trace, layout, num_samples)


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
    return _log_prob(model_trace(model, layout, latents, *args), layout, num_samples)


def model_trace(
    model: Callable[..., Any], layout: Layout, latents: dict[str, Tensor], *args: Any
) -> poutine.Trace:
    """The model run at given latents; arguments as for :func:`log_joint`."""
    num_samples = len(next(iter(latents.values())))
    conditioned = poutine.condition(model, data=latents)
    with torch.no_grad():
        return poutine.trace(_in_plate(conditioned, layout, num_samples)).get_trace(*args)


def refuse_nan(trace: poutine.Trace) -> None:
    """Look for the first site whose log-probability is NaN.

    Raises:
        ValueError: Names it.
    """
    for name, site in _sites(trace):
        if bool(torch.isnan(_float64_log_prob(site["fn"], site["value"])).any()):
            raise ValueError(f"site {name!r} has log-probability NaN")


def _refuse_foreign_latents(guide: poutine.Trace, model: poutine.Trace) -> None:
    """The guide's sites must be a density over the model's latents."""
    known = {name for name, site in _sites(model) if not site["is_observed"]}
    auxiliary = {name for name, site in _sites(guide) if site["infer"].get("is_auxiliary")}
    foreign = {name for name, _ in _sites(guide)} - known - auxiliary
    if foreign:
        raise ValueError(f"guide: has sites {sorted(foreign)} that the model lacks")
    # an autoguide's Delta sites are images of an auxiliary latent, whose density they correct
    points = [
        name
        for name, site in _sites(guide)
        if isinstance(getattr(site["fn"], "base_dist", site["fn"]), dist.Delta)
    ]
    if points and not auxiliary:
        raise NoDensityError(
            f"guide: sites {points} are single points; importance sampling needs a density"
        )


def _refuse_outside_support(trace: poutine.Trace) -> None:
    for name, site in _sites(trace):
        try:
            support = site["fn"].support
        except NotImplementedError:
            continue
        if not site["is_observed"] or support is None:
            continue
        inside = support.check(site["value"])
        if site["mask"] is not None:
            inside = inside | ~torch.as_tensor(site["mask"], device=inside.device)
        if not bool(inside.all()):
            kind = type(getattr(site["fn"], "base_dist", site["fn"])).__name__
            raise ValueError(
                f"site {name!r} observes values outside the support of {kind}: {support}"
            )


def same_when_cut(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    layout: Layout,
    args: tuple[Any, ...],
    part: slice,
    cut_args: tuple[Any, ...],
) -> bool:
    """Whether some datapoints alone have the log-weights that they have among all.

    They have not if a program holds a value for each datapoint, or the size of the data.

    Args:
        model: Joint distribution.
        guide: Posterior.
        layout: From :func:`read_layout`.
        args: Arguments for all datapoints.
        part: Which datapoints.
        cut_args: Arguments for these alone.
    """
    latents, log_q = draw(guide, layout, 1, *args)
    where = (slice(None),) * layout.nesting + (part,)  # behind the draws and the outer plates
    some = {name: value[where] for name, value in latents.items()}
    try:
        conditioned = poutine.condition(guide, data=some)
        with torch.no_grad():
            trace = poutine.trace(_in_plate(conditioned, layout, 1)).get_trace(*cut_args)
        size = len(range(*part.indices(layout.num_datapoints or 0)))
        alone = Layout(layout.nesting, size)
        pairs = (
            (_log_prob(trace, alone, 1), log_q),
            (log_joint(model, alone, some, *cut_args), log_joint(model, layout, latents, *args)),
        )
    except (ValueError, RuntimeError, IndexError):
        return False
    return all(torch.allclose(cut, whole[:, part], rtol=1e-4, atol=1e-4) for cut, whole in pairs)


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


def _sites(trace: poutine.Trace) -> list[tuple[str, Any]]:
    return [
        (name, site)
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and type(site["fn"]).__name__ != "_Subsample"
    ]


def _in_plate(program: Callable[..., Any], layout: Layout, size: int) -> Callable[..., Any]:
    def vectorized(*args: Any) -> Any:
        with pyro.plate("_draws", size, dim=-layout.nesting - 1):
            return program(*args)

    return vectorized


def _batch_shape(site: Any, layout: Layout, num_samples: int) -> torch.Size:
    """The plates of a site with the draws in front, whatever its distribution left out."""
    shape = [num_samples] + [1] * layout.nesting
    for frame in site["cond_indep_stack"]:
        if frame.vectorized:
            shape[frame.dim] = frame.size
    return torch.Size(shape)


def _log_prob(trace: poutine.Trace, layout: Layout, num_samples: int) -> Tensor:
    """Sum over sites and over all plates but those of draws and datapoints."""
    total: Tensor | None = None
    for _, site in _sites(trace):
        log_prob = _float64_log_prob(site["fn"], site["value"])
        if site["mask"] is not None:
            log_prob = torch.where(torch.as_tensor(site["mask"]), log_prob, 0.0)
        log_prob = log_prob.expand(_batch_shape(site, layout, num_samples))
        keep = 2 if layout.num_datapoints is not None else 1
        middle = list(range(1, log_prob.ndim - keep + 1))
        log_prob = log_prob.sum(middle) if middle else log_prob
        log_prob = log_prob.reshape(num_samples, -1)
        total = log_prob if total is None else total + log_prob
    if total is None:
        return torch.zeros(num_samples, layout.num_datapoints or 1, dtype=torch.float64)
    return total


def _float64_log_prob(fn: Any, value: Tensor) -> Tensor:
    """log-probability whose sum over event dimensions is accumulated in float64."""
    dims = 0
    while isinstance(fn, dist.Independent | torch.distributions.Independent):
        dims += fn.reinterpreted_batch_ndims
        fn = fn.base_dist
    log_prob = fn.log_prob(value)
    if dims == 0 or math.prod(log_prob.shape[-dims:]) == 1:
        return log_prob.double().reshape(log_prob.shape[: log_prob.ndim - dims])
    result: Tensor = log_prob.sum(tuple(range(-dims, 0)), dtype=torch.float64)
    return result
