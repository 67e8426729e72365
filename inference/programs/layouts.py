"""How the sites of a Pyro program lie in plates, and their log-probabilities by datapoint."""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import transform_to

from aevb.inference.programs.bijections import bounds_of, family
from aevb.inference.programs.enumeration import is_enumerable
from aevb.inference.programs.guide_checks import (
    NoDensityError,
    point_masses,
    refuse_unfit_guide,
    sites,
)

__all__ = [
    "DrawsOfIntegers",
    "Layout",
    "NoDensityError",
    "batch_shape",
    "by_datapoint",
    "factors",
    "float64_log_prob",
    "in_plate",
    "latents_of",
    "natural",
    "plate_nesting",
    "read_layout",
    "read_model_layout",
    "refuse_nan",
    "sites",
    "sum_log_prob",
    "value_of",
]

# What torch says of a function that it has for floating-point numbers only.
_OF_INTEGERS = re.compile(r"not implemented for '(Long|Int|Short|Char|Byte|Bool)'")


@dataclass(frozen=True)
class Layout:
    """How the sites of a program pair lie in plates.

    Attributes:
        nesting: Plates of the deepest site; the plate of draws goes to its left.
        num_datapoints: Size of the rightmost ``"data"`` plate if every site lies in it, so that
            each datapoint has a posterior of its own; None for one joint posterior.
        summed_out: The model's discrete latents that no guide draws.
    """

    nesting: int
    num_datapoints: int | None
    summed_out: frozenset[str] = frozenset()


def read_layout(model: Callable[..., Any], guide: Callable[..., Any], *args: Any) -> Layout:
    """Run both programs once and see where their sites lie.

    Raises:
        ValueError: If a site is scaled or subsampled, is latent in one program only, is a point
            mass, or observes data outside its support.
    """
    with torch.no_grad(), _no_datapoints_named():
        guide_trace = poutine.trace(guide).get_trace(*args)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
    latent = {name for name, _ in sites(guide_trace)}
    refuse_unfit_guide(model_trace, guide_trace)
    points = point_masses(model_trace, guide_trace)
    if points:
        raise NoDensityError(
            f"guide: sites {points} are single points, and weights need a density: anneal from "
            "the prior instead (guide=None; --estimator ais --start prior)"
        )
    _refuse_outside_support(model_trace)
    summed = _summed_out(model_trace) - latent
    unguided = [
        name
        for name, site in sites(model_trace)
        if not site["is_observed"] and name not in latent | summed
    ]
    if unguided:
        raise ValueError(f"guide: has no site for the model's latents {unguided}")
    return _layout([*sites(guide_trace), *sites(model_trace)], summed)


def read_model_layout(model: Callable[..., Any], *args: Any) -> tuple[Layout, poutine.Trace]:
    """Run a model alone and see where its sites lie.

    Returns:
        The layout, and a trace whose latents are drawn from the prior.

    Raises:
        ValueError: If a site is scaled or subsampled, or observes data outside its support.
    """
    with torch.no_grad(), DrawsOfIntegers(), _no_datapoints_named():
        trace = poutine.trace(model).get_trace(*args)
    _refuse_outside_support(trace)
    return _layout(sites(trace), _summed_out(trace)), trace


@contextmanager
def _no_datapoints_named() -> Iterator[None]:
    """Pyro's plates refuse the size 0 by dividing by it."""
    try:
        yield
    except ZeroDivisionError as error:
        raise ValueError("the arguments hold no datapoints: a plate has the size 0") from error


def _summed_out(model_trace: poutine.Trace) -> frozenset[str]:
    return frozenset(name for name, site in sites(model_trace) if is_enumerable(site))


def _layout(all_sites: Iterable[tuple[str, Any]], summed_out: frozenset[str]) -> Layout:
    stacks: list[tuple[Any, ...]] = []
    for name, site in all_sites:
        if not isinstance(site["scale"], int | float) or site["scale"] != 1:
            raise ValueError(
                f"site {name!r} is scaled by {site['scale']}: the evidence of subsampled or "
                "tempered programs is not defined; call them with all data and no scale"
            )
        if not site["infer"].get("_deterministic"):
            stacks.append(tuple(f for f in site["cond_indep_stack"] if f.vectorized))
    nesting = max((-frame.dim for stack in stacks for frame in stack), default=0)
    data = [[f.size for f in s if f.name == "data" and f.dim == -1] for s in stacks]
    return Layout(nesting, data[0][0] if data and all(data) else None, summed_out)


class DrawsOfIntegers(Messenger):
    """Names the site where torch cannot draw because parameters are integers, as data may be."""

    def __init__(self) -> None:
        super().__init__()
        self.last: Any = None

    def _pyro_sample(self, msg: Any) -> None:
        self.last = msg

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        super().__exit__(kind, error, traceback)
        if isinstance(error, NotImplementedError) and _OF_INTEGERS.search(str(error)):
            site = "a site"  # hidden from here, as by an autoguide that looks at its model
            if self.last is not None:
                site = f"site {self.last['name']!r} ({family(self.last['fn'])})"
            raise ValueError(
                f"{site} has integer parameters, of which torch draws nothing, as "
                "torch.zeros_like(x) of integer data is: make them floating-point, "
                "torch.zeros_like(x, dtype=torch.get_default_dtype())"
            ) from error


def plate_nesting(trace: poutine.Trace) -> int:
    """How many dimensions on the left of the events the plates of a program take up."""
    found = [site for site in trace.nodes.values() if site["type"] == "sample"]
    frames = [frame for site in found for frame in site["cond_indep_stack"]]
    return max((-frame.dim for frame in frames if frame.dim is not None), default=0)


def refuse_nan(trace: poutine.Trace) -> None:
    """Refuse the first site whose log-probability is NaN, by name."""
    for name, site in sites(trace):
        if bool(torch.isnan(float64_log_prob(site["fn"], site["value"])).any()):
            raise ValueError(f"site {name!r} has log-probability NaN")


def _refuse_outside_support(trace: poutine.Trace) -> None:
    for name, site in sites(trace):
        try:
            support = site["fn"].support
        except NotImplementedError:
            continue
        if not site["is_observed"] or support is None:
            continue
        inside = support.check(site["value"])
        for mask in (site["mask"], getattr(site["fn"], "_mask", None)):
            if mask is not None:
                inside = inside | ~torch.as_tensor(mask, device=inside.device)
        if not bool(inside.all()):
            raise ValueError(
                f"site {name!r} observes values outside the support of {family(site['fn'])}: "
                f"{support}"
            )


def value_of(trace: poutine.Trace, name: str) -> Tensor:
    """The value of a site."""
    value: Any = trace.nodes[name]["value"]
    return value


def in_plate(program: Callable[..., Any], layout: Layout, size: int) -> Callable[..., Any]:
    """The program under an outermost plate of ``size`` independent runs."""

    def vectorized(*args: Any) -> Any:
        with pyro.plate("_draws", size, dim=-layout.nesting - 1):
            return program(*args)

    return vectorized


def batch_shape(site: Any, layout: Layout, num_samples: int | None) -> torch.Size:
    """The plates of a site with the draws in front, whatever its distribution left out."""
    shape = [] if num_samples is None else [num_samples]
    shape += [1] * layout.nesting
    for frame in site["cond_indep_stack"]:
        if frame.vectorized:
            shape[frame.dim] = frame.size
    return torch.Size(shape)


def latents_of(trace: poutine.Trace, layout: Layout, num: int) -> dict[str, Tensor]:
    """What a trace drew and is not summed out, ``(num, *plates, *event)``."""
    return {
        name: site["value"].expand(batch_shape(site, layout, num) + site["fn"].event_shape)
        for name, site in sites(trace)
        if not site["is_observed"] and name not in layout.summed_out
    }


def natural(latents: dict[str, Tensor], ranks: dict[str, int]) -> dict[str, Tensor]:
    """Draws with as many dimensions each as in a run of its own, of those that are in one."""
    return {
        name: value.reshape(len(value), *value.shape[value.ndim - ranks[name] :])
        for name, value in latents.items()
        if name in ranks
    }


def by_datapoint(value: Tensor, layout: Layout) -> Tensor:
    """Draws of a site, ``(S, *plates, *event)``, as vectors ``(S, B, size)``.

    For a joint posterior B is 1 and the vector holds the whole site.
    """
    if layout.num_datapoints is not None:
        value = value.movedim(layout.nesting, 1)
        return value.reshape(*value.shape[:2], -1)
    return value.reshape(len(value), 1, -1)


def sum_log_prob(
    chosen: Iterable[tuple[str, Any]], layout: Layout, num_samples: int | None
) -> Tensor:
    """Sum over sites and over all plates but those of draws and datapoints.

    Args:
        chosen: Some of a trace's :func:`sites`.
        layout: Of the program.
        num_samples: S, size of the plate of draws; None of a program that was run without one.

    Returns:
        ``(S, B)``, or ``(S, 1)`` for a joint posterior, float64, in nats; without S if there is
        no plate of draws.
    """
    total: Tensor | None = None
    draws = () if num_samples is None else (num_samples,)
    for name, site in chosen:
        if site["infer"].get("_deterministic"):
            continue  # named for the user, and counted for nothing
        log_prob = float64_log_prob(site["fn"], _unmasked_value(site))
        if site["mask"] is not None:
            log_prob = torch.where(torch.as_tensor(site["mask"]), log_prob, 0.0)
        wanted = batch_shape(site, layout, num_samples)
        try:
            log_prob = log_prob.expand(wanted)
        except RuntimeError:
            if num_samples is None:
                raise ValueError(
                    f"site {name!r} has the batch shape {tuple(log_prob.shape)} in plates of "
                    f"{tuple(wanted)}: declare what is one value by .to_event(...), or put it in "
                    "a pyro.plate"
                ) from None
            raise ValueError(
                f"site {name!r} does not broadcast under an outer plate of draws: its "
                f"log-probability is {tuple(log_prob.shape)} in place of {tuple(wanted)}; index "
                "from the right, and leave room for plates on the left"
            ) from None
        before = 0 if num_samples is None else 1
        behind = 0 if layout.num_datapoints is None else 1
        middle = list(range(before, log_prob.ndim - behind))
        log_prob = log_prob.sum(middle) if middle else log_prob
        log_prob = log_prob.reshape(*draws, -1)
        total = log_prob if total is None else total + log_prob
    if total is None:
        return torch.zeros(*draws, layout.num_datapoints or 1, dtype=torch.float64)
    return total


def _unmasked_value(site: Any) -> Tensor:
    """The value of a site, with a possible one where data are masked: NaN has NaN gradients."""
    value: Tensor = site["value"]
    if site["mask"] is None or not site["is_observed"]:
        return value
    fn = site["fn"]
    try:
        possible = _feasible_like(fn, value)
    except NotImplementedError:
        return value
    mask = torch.as_tensor(site["mask"], device=value.device)
    return torch.where(mask.reshape(mask.shape + (1,) * len(fn.event_shape)), value, possible)


def _feasible_like(fn: Any, value: Tensor) -> Tensor:
    """Some value inside the support of a distribution, of the shape of another."""
    if fn.support.is_discrete:
        return torch.full_like(value, float(getattr(bounds_of(fn), "lower_bound", 0)))
    transform = transform_to(fn.support)
    shape = transform.inverse_shape(value.shape)
    return transform(torch.zeros(shape, dtype=value.dtype, device=value.device))


def factors(fn: Any) -> tuple[Any, int]:
    """A product of independent distributions: its factors, and over how many dimensions it is."""
    dims = 0
    while isinstance(fn, torch.distributions.Independent):
        dims += fn.reinterpreted_batch_ndims
        fn = fn.base_dist
    return fn, dims


def float64_log_prob(fn: Any, value: Tensor) -> Tensor:
    """log-probability whose sum over event dimensions is accumulated in float64."""
    fn, dims = factors(fn)
    log_prob = fn.log_prob(value)
    if dims == 0 or math.prod(log_prob.shape[-dims:]) == 1:
        return log_prob.double().reshape(log_prob.shape[: log_prob.ndim - dims])
    result: Tensor = log_prob.sum(tuple(range(-dims, 0)), dtype=torch.float64)
    return result
