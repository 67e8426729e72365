"""What a guide must be, so that its density may stand against the model's."""

from typing import Any

import torch
from pyro import distributions as dist
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints

from aevb.inference.programs.bijections import bijection_of

__all__ = [
    "NoDensityError",
    "counts_for_nothing",
    "is_auxiliary",
    "point_masses",
    "refuse_unfit_guide",
    "sites",
]

_BOUNDED = tuple(
    type(constraint)
    for constraint in (
        constraints.greater_than(0.0),
        constraints.greater_than_eq(0.0),
        constraints.less_than(0.0),
        constraints.interval(0.0, 1.0),
        constraints.half_open_interval(0.0, 1.0),
        constraints.simplex,
    )
)


class NoDensityError(ValueError):
    """A guide has no density, or none at values that are not its own draws."""


def sites(trace: poutine.Trace) -> list[tuple[str, Any]]:
    """The sample sites of a trace with their names, in order, without subsampling."""
    return [
        (name, site)
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and type(site["fn"]).__name__ != "_Subsample"
    ]


def refuse_unfit_guide(model_trace: poutine.Trace, guide_trace: poutine.Trace) -> None:
    """Refuse what would make an objective or a weight other than it seems.

    Args:
        model_trace: Trace of the model, replayed against the guide's.
        guide_trace: Trace of the guide.

    Raises:
        ValueError: If the guide observes data, draws what the model lacks, draws more randomness
            than the model has latents, masks other values than the model, or reaches beyond the
            support of the prior.
    """
    latents = {name: site for name, site in sites(model_trace) if not site["is_observed"]}
    for name, site in sites(guide_trace):
        if counts_for_nothing(site):
            continue
        if site["is_observed"] and not site["infer"].get("_deterministic"):
            raise ValueError(
                f"guide: observes {name!r}, which would cancel it in the model, as the guides of "
                "pyro.infer.autoguide that are messengers do: use AutoNormal or another autoguide"
            )
        if name in latents:
            _refuse_other_mask(name, latents[name], site)
            _refuse_outside(name, latents[name], site)
        elif not is_auxiliary(site) and not site["is_observed"]:
            raise ValueError(
                f"guide: draws {name!r}, which the model lacks, so that the objective is no "
                "bound: leave the site out"
            )
    drawn, wanted = _dimensions(latents, guide_trace)
    if drawn > wanted:
        raise ValueError(
            f"guide: draws {drawn} random numbers for {wanted} of the model's, and the density of "
            "the latents alone is not known: an auxiliary site is one of which the latents are "
            "functions"
        )


def point_masses(model_trace: poutine.Trace, guide_trace: poutine.Trace) -> list[str]:
    """Latents that the guide sets to one value, which has no density.

    Args:
        model_trace: Trace of the model, replayed against the guide's.
        guide_trace: Trace of the guide.
    """
    latents = {name: site for name, site in sites(model_trace) if not site["is_observed"]}
    points = [name for name, site in sites(guide_trace) if name in latents and _is_point(site)]
    drawn, wanted = _dimensions(latents, guide_trace)
    # an autoguide's points are images of auxiliary sites that are as random as they
    return points if drawn < wanted else []


def is_auxiliary(site: Any) -> bool:
    """Whether a guide's site is no latent of the model, but latents are made of it."""
    return bool((site["infer"] or {}).get("is_auxiliary"))


def counts_for_nothing(site: Any) -> bool:
    """Whether a site's log-probability is masked out as a whole, as that of input noise."""
    return site["mask"] is False or getattr(site["fn"], "_mask", None) is False


def _dimensions(latents: dict[str, Any], guide_trace: poutine.Trace) -> tuple[int, int]:
    """Random numbers that a guide draws, and those that it should for its latents."""
    drawn = wanted = 0
    for name, site in sites(guide_trace):
        if site["is_observed"] or counts_for_nothing(site):
            continue
        if name in latents:
            size = _free_size(latents[name]["fn"], site["value"])
            wanted += size
            drawn += 0 if _is_point(site) else size
        elif is_auxiliary(site) and not _is_point(site):
            drawn += site["value"].numel()
    return drawn, wanted


def _free_size(prior: Any, value: Tensor) -> int:
    """Numbers that a value holds on the real line; a simplex has one less than it shows."""
    if prior.support.is_discrete:
        return value.numel()
    try:
        with torch.no_grad():
            free: Tensor = bijection_of(prior).inv(value)
    except (ValueError, RuntimeError, NotImplementedError):
        return value.numel()
    return free.numel()


def _is_point(site: Any) -> bool:
    return isinstance(getattr(site["fn"], "base_dist", site["fn"]), dist.Delta)


def _refuse_other_mask(name: str, of_model: Any, of_guide: Any) -> None:
    masks = [_hidden(site) for site in (of_model, of_guide)]
    if masks[0] and not masks[1]:
        raise ValueError(
            f"site {name!r} is masked in the model and not in the guide, whose entropy would "
            "count for nothing given up: mask it in both, or leave missing values out of the data"
        )


def _hidden(site: Any) -> bool:
    """Whether some of a site's values are masked."""
    masks = site["mask"], getattr(site["fn"], "_mask", None)
    return any(mask is not None and not bool(torch.as_tensor(mask).all()) for mask in masks)


def _refuse_outside(name: str, of_model: Any, of_guide: Any) -> None:
    prior, posterior = of_model["fn"], of_guide["fn"]
    try:
        support = prior.support
        inside = support.check(of_guide["value"])
    except (NotImplementedError, RuntimeError):
        return
    wider = not _is_point(of_guide) and _is_real(posterior) and _is_bounded(prior)
    # NaN is nowhere, and has a site of its own to be named by
    if wider or not bool(inside.all() | torch.isnan(of_guide["value"]).any()):
        raise ValueError(
            f"guide: site {name!r} ({_family(posterior)}) reaches beyond the support of its prior "
            f"({_family(prior)}: {support}), where no density is defined: use a family on that "
            "support, or a transformation onto it"
        )


def _is_real(fn: Any) -> bool:
    """Whether a distribution covers the real line; of transformed ones torch says so too often."""
    while type(fn).__name__ in ("Independent", "ExpandedDistribution", "MaskedDistribution"):
        fn = fn.base_dist
    if isinstance(fn, torch.distributions.TransformedDistribution):
        return False
    try:
        support = fn.support
    except NotImplementedError:
        return False
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    kinds = (type(constraints.real), type(constraints.real_vector))
    return support is constraints.real or isinstance(support, kinds)


def _is_bounded(fn: Any) -> bool:
    """Whether a distribution ends somewhere on the real line, as far as torch says."""
    support = fn.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return isinstance(support, _BOUNDED)


def _family(fn: Any) -> str:
    while hasattr(fn, "base_dist") and type(fn).__name__ in (
        "Independent",
        "ExpandedDistribution",
    ):
        fn = fn.base_dist
    return type(fn).__name__.lstrip("_")
