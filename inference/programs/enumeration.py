"""Discrete latents of a program, summed out by Pyro's enumeration."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.infer.traceenum_elbo import _compute_model_factors
from pyro.ops import packed
from pyro.ops.contract import contract_tensor_tree
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.overrides import TorchFunctionMode

from aevb.inference.process.patches import sums_of_operations
from aevb.inference.programs.guide_checks import sites

__all__ = ["enumerated", "is_enumerable", "packed_trace", "summed_out", "summing_out"]

Program = Callable[..., Any]


def is_enumerable(site: Any) -> bool:
    """Whether a site is a latent with finitely many values."""
    return not site["is_observed"] and bool(getattr(site["fn"], "has_enumerate_support", False))


def summing_out(model: Program, drawn: Collection[str]) -> Program:
    """A model with all discrete latents but those ``drawn`` elsewhere marked as enumerated."""

    def marks(site: Any) -> Any:
        if site["type"] != "sample" or not is_enumerable(site):
            return {}
        return {"enumerate": None if site["name"] in drawn else "parallel"}

    marked: Program = poutine.infer_config(model, config_fn=marks)
    return marked


def enumerated(model: Program, drawn: Collection[str], nesting: int) -> Program:
    """A model whose discrete latents have all their values at once, on the left of all plates.

    Args:
        model: Pyro program.
        drawn: Discrete latents that have one value.
        nesting: Plates of the deepest site; room for another is left.
    """
    marked = summing_out(model, drawn)

    def program(*args: Any, **kwargs: Any) -> Any:
        with _Enumeration(first_available_dim=-nesting - 2):
            return marked(*args, **kwargs)

    return program


class _Enumeration(EnumMessenger):
    """Pyro's own, which looks at shapes by way of ``.data``, and vmap has none."""

    def _pyro_post_sample(self, msg: Any) -> None:
        with _DetachedData():
            super()._pyro_post_sample(msg)


class _DetachedData(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if func == torch.Tensor.data.__get__:  # type: ignore[attr-defined]
            return args[0].detach()
        return func(*args, **(kwargs or {}))


def packed_trace(trace: poutine.Trace, log_prob: Callable[[Any], Tensor]) -> poutine.Trace:
    """A copy with the sites that have a density, scored, whose dimensions have names.

    Args:
        trace: Of an :func:`enumerated` program; left as it was.
        log_prob: Of a site without its mask, ``(*values, *plates)``.
    """
    work: Any = poutine.Trace()
    nodes: dict[str, Any] = dict(prune_subsample_sites(trace).nodes)
    for name, site in nodes.items():
        if site["type"] != "sample" or site["infer"].get("_deterministic"):
            continue
        whole = log_prob(site)
        mask = site["mask"]
        masked = whole if mask is None else torch.where(torch.as_tensor(mask), whole, 0.0)
        work.nodes[name] = {
            **site, "infer": dict(site["infer"]), "scale": 1.0, "mask": site["mask"],
            "unscaled_log_prob": whole, "log_prob": masked,
        }  # fmt: skip
    work.pack_tensors()
    packed_work: poutine.Trace = work
    return packed_work


def summed_out(trace: poutine.Trace, log_prob: Callable[[Any], Tensor]) -> poutine.Trace:
    r"""A trace in which sums over the values of enumerated sites stand for what depends on them.

    .. math:: \log \sum_k p(k \mid z) \, p(x \mid z, k)

    Written for Pyro 1.9.1 and 1.9.2, whose ``TraceEnum_ELBO`` eliminates variables in this way.

    References:
        Tensor Variable Elimination for Plated Factor Graphs (Obermeyer et al., 2019),
        https://arxiv.org/abs/1902.03210

    Args:
        trace: Of an :func:`enumerated` program; left as it was.
        log_prob: Of a site without its mask, ``(*values, *plates)``.

    Returns:
        The sites that depend on no enumerated one, and a factor for each sum in its own plates.

    Raises:
        ValueError: If a site is scaled, or plates are crossed so that no elimination is known.
    """
    if not any(site["infer"].get("_enumerate_dim") is not None for _, site in sites(trace)):
        return trace
    work = packed_trace(trace, log_prob)
    _, factors, _, dims, _ = _compute_model_factors(work, poutine.Trace())
    with sums_of_operations():
        sums = contract_tensor_tree(factors, dims, cache={})

    found: dict[str, Any] = {name: trace.nodes[name] for name in work.nodes}
    result: Any = poutine.Trace()
    for name, site in found.items():
        inside: Any = work.nodes[name]
        enumerates = site["infer"].get("_enumerate_dim") is not None
        if not enumerates and dims.isdisjoint(inside["packed"]["log_prob"]._pyro_dims):
            result.nodes[name] = site
    frames = {
        work.plate_to_symbol[frame.name]: frame
        for site in found.values()
        for frame in site["cond_indep_stack"]
        if frame.vectorized
    }
    terms = [(plates, term) for plates, terms in sums.items() for term in terms]
    for number, (plates, term) in enumerate(terms):
        value = packed.unpack(term, work.symbol_to_dim)
        result.nodes[f"_summed_out_{number}"] = {
            "type": "sample", "name": f"_summed_out_{number}", "fn": dist.Unit(value),
            "value": value.new_zeros(0), "is_observed": True, "mask": None, "scale": 1.0,
            "infer": {}, "args": (), "kwargs": {},
            "cond_indep_stack": tuple(frames[plate] for plate in plates),
        }  # fmt: skip
    merged: poutine.Trace = result
    return merged
