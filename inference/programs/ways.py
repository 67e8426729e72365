"""How several draws of a program can be evaluated at once: found out by trying."""

from typing import TYPE_CHECKING, Any

import torch
from pyro import poutine
from torch import Tensor
from torch.utils._pytree import tree_leaves

from aevb.inference.graphs.tracing import NotTraceableError, trace_graph
from aevb.inference.process import randomness
from aevb.inference.process.switches import SingularAsNaN, argument_checks
from aevb.inference.programs.guide_checks import is_point
from aevb.inference.programs.layouts import latents_of, natural, sites

if TYPE_CHECKING:
    from aevb.inference.programs.joint import Joint

__all__ = ["agree", "by_site", "find_guide_way", "find_way", "refuse_absent_sites"]

# Draws of the prior, and of the guide, at which the ways are compared with the program itself.
_TRIED = 2
# Log-probabilities of a site at one draw and at several agree to rounding, relative to their mean
# size: sums of float32 terms in any order. What fails it is evaluated otherwise, and not wrong.
_AGREEMENT = {torch.float32: 1e-5, torch.float64: 1e-9}
# Of a guide that cannot score values that it has not just drawn, as a flow without an inverse.
_CANNOT_SCORE = (KeyError, NotImplementedError)

Latents = dict[str, Tensor]


def find_way(joint: "Joint") -> tuple[str, dict[str, int]]:
    """``"plate"``, ``"vmap"`` or ``"loop"``, by comparison with single draws, site by site.

    Returns:
        The way, and the number of dimensions of each latent in a run of its own.

    Raises:
        ValueError: If the density is another at each call, sites come and go, or Python decides
            by the value of a latent.
    """
    model = joint.model
    with torch.no_grad(), argument_checks(False), SingularAsNaN():
        traces = _traces(joint)
        draws = [
            {
                name: site["value"]
                for name, site in sites(trace)
                if not site["is_observed"] and name not in joint.layout.summed_out
            }
            for trace in traces
        ]
        refuse_absent_sites(traces)
        for draw in (draws[0], draws[-1]):  # of the guide, where there is one, and of the prior
            joint.refuse_other_factors(draw)
        ranks = {name: value.ndim for name, value in draws[0].items()}
        if not ranks:
            return "plate", ranks
        joint._ranks = ranks
        alone = [joint.alone(model, draw, by_site) for draw in draws]
        with randomness.stream(0, "again", joint.device):
            again = joint.alone(model, draws[0], by_site)
        tolerance = _tolerance(joint, draws)
        if not agree(again, alone[0], tolerance):
            raise ValueError(
                "model: its log-density is another at each call, so that it draws random numbers "
                "that are no sample site: make them one (if it is dropout, call .eval())"
            )
        truth = [torch.stack(column) for column in zip(*alone, strict=True)]
        rows = [latents_of(trace, joint.layout, 1) for trace in traces]
        latents = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        works = {}
        for way in ("vmap", "plate"):
            try:
                works[way] = agree(joint.sums(model, way, latents, by_site), truth, tolerance)
            except Exception:  # whatever a program does to more dimensions than it expects
                works[way] = False
                if way == "vmap":  # which also fails where Python looks at a value
                    _refuse_decisions(joint, draws[0])
    found = [way for way in ("plate", "vmap") if works[way]]
    return (found[0] if found else "loop"), ranks


def find_guide_way(joint: "Joint") -> str:
    """``"plate"``, or ``"loop"`` for guides of which that cannot be shown."""
    guide = joint.given_guide()
    with torch.no_grad(), argument_checks(False), SingularAsNaN():
        # of an autoguide, points are made of another site's value
        ranks = {
            name: site["value"].ndim
            for name, site in sites(poutine.trace(guide).get_trace(*joint.args))
            if not is_point(site)
        }
        try:
            latents, _ = joint.drawn_in_plate(guide, _TRIED)
            found = joint.sums(guide, "plate", latents, _scored)
            rows = natural(latents, ranks)
            draws = [{name: row[i] for name, row in rows.items()} for i in range(_TRIED)]
            alone = [joint.alone(guide, draw, _scored) for draw in draws]
        except Exception:  # whatever a program does to more dimensions than it expects
            return "loop"
        tolerance = _tolerance(joint, latents)
        if not agree(joint.alone(guide, draws[0], _scored), alone[0], tolerance):
            return "loop"  # noise of its own, as on an encoder's input in training mode
        truth = [torch.stack(column) for column in zip(*alone, strict=True)]
        return "plate" if agree(found, truth, tolerance) else "loop"


def by_site(trace: poutine.Trace) -> list[list[tuple[str, Any]]]:
    """Every site by itself, so that a large one does not hide what happens to a small one."""
    return [[pair] for pair in sites(trace)]


def agree(values: list[Tensor], truth: list[Tensor], tolerance: float) -> bool:
    """Whether log-probabilities ``(S, B)`` of sites are equal, relative to their mean size."""
    return len(values) == len(truth) and all(
        a.shape == b.shape
        and torch.allclose(a, b, rtol=0.0, atol=tolerance * (1e-3 + _size(b)), equal_nan=True)
        for a, b in zip(values, truth, strict=True)
    )


def _size(values: Tensor) -> float:
    finite = values[torch.isfinite(values)]
    return float(finite.abs().mean()) if len(finite) else 0.0


def _tolerance(joint: "Joint", draws: Any) -> float:
    """That of the coarsest numbers among data and draws."""
    tensors = [leaf for leaf in tree_leaves((joint.args, draws)) if isinstance(leaf, Tensor)]
    kinds = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    return max((_AGREEMENT.get(kind, 1e-2) for kind in kinds), default=1e-5)


def _scored(trace: poutine.Trace) -> list[list[tuple[str, Any]]]:
    """Every site by itself that can score its value."""
    groups = []
    for name, site in sites(trace):
        try:
            site["fn"].log_prob(site["value"])
        except _CANNOT_SCORE:
            continue
        groups.append([(name, site)])
    return groups


def _traces(joint: "Joint") -> list[poutine.Trace]:
    """Runs of the model alone: at draws of the guide, if there is one, and of the prior."""
    model, args = joint.model, joint.args
    found = []
    if joint.guide is not None:
        for _ in range(_TRIED):
            drawn = poutine.trace(joint.guide).get_trace(*args)
            found.append(poutine.trace(poutine.replay(model, trace=drawn)).get_trace(*args))
    try:
        found += [poutine.trace(model).get_trace(*args) for _ in range(_TRIED)]
    except NotImplementedError:  # of an improper prior
        if not found:
            raise
    return found


def refuse_absent_sites(traces: list[poutine.Trace]) -> None:
    """Refuse sites that come and go from run to run of a model, by name."""
    names = [{name for name, _ in sites(trace)} for trace in traces]
    absent = sorted(
        {name for found in names for name in found if not all(name in n for n in names)}
    )
    if absent:
        raise ValueError(
            f"model: the sites {absent} appear at some draws only; a density of latents that come "
            "and go is not evaluated: draw them always, and choose by torch.where"
        )


def _refuse_decisions(joint: "Joint", latents: Latents) -> None:
    """Let Python decide nothing by the value of a latent, on which the density then jumps."""

    def one(*values: Tensor) -> list[Tensor]:
        return joint.alone(joint.model, dict(zip(latents, values, strict=True)), by_site)

    try:
        trace_graph(one, [value.clone() for value in latents.values()])
    except NotTraceableError as error:
        raise ValueError(
            "model: several draws cannot be evaluated at once, neither under an outer plate nor "
            f"by torch.func.vmap ({error}): write what depends on latents in operations on "
            "tensors, as torch.where in place of if"
        ) from None
