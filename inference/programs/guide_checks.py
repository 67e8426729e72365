"""What a guide must be, so that its density may stand against the model's."""

from typing import Any

import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import constraints

from aevb.inference.programs.bijections import bijection_of, bounds_of, family, unwrapped

__all__ = [
    "NoDensityError",
    "counts_for_nothing",
    "is_auxiliary",
    "is_factor",
    "is_point",
    "point_masses",
    "refuse_unfit_guide",
    "sites",
]

# Ends on the real line, as far as torch says.
_BOUNDED = (
    constraints.greater_than,
    constraints.greater_than_eq,
    constraints.less_than,
    constraints.interval,
    constraints.half_open_interval,
    type(constraints.simplex),
)


class NoDensityError(ValueError):
    """A guide has no density, or none at values that are not its own draws.

    Example:
        >>> import torch
        >>> from aevb import inference, models
        >>> vae = models.VAE((4,), posterior=models.Delta())
        >>> inference.importance_evidence(vae.model, vae.guide, torch.zeros(2, 4))
        Traceback (most recent call last):
        aevb.inference.programs.guide_checks.NoDensityError: guide: ...
    """


def sites(trace: poutine.Trace) -> list[tuple[str, Any]]:
    """The sample sites of a trace with their names, in order, without subsampling."""
    return [
        (name, site)
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site_is_subsample(site)
    ]


def refuse_unfit_guide(
    model_trace: poutine.Trace, guide_trace: poutine.Trace, *, factors: bool = False
) -> None:
    """Refuse what would make an objective or a weight other than it seems.

    The model's trace is replayed against the guide's, here and below.

    Args:
        model_trace: Of the model.
        guide_trace: Of the guide.
        factors: Whether the guide may have a ``pyro.factor``, a term of the loss and of no
            density, as that of a classifier where labels are known.

    Raises:
        ValueError: If the guide observes data, draws what the model lacks, draws more randomness
            than the model has latents, masks other values than the model, or reaches beyond the
            support of the prior.
    """
    latents = {name: site for name, site in sites(model_trace) if not site["is_observed"]}
    for name, site in sites(guide_trace):
        if counts_for_nothing(site) or (factors and is_factor(site) and name not in model_trace):
            continue
        if is_factor(site):
            raise ValueError(
                f"guide: the factor {name!r} belongs to no density, and objectives and weights "
                "made of densities would drop it: train by ELBO() or EnumeratedELBO()"
            )
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
    """Latents that the guide sets to one value, which has no density."""
    latents = {name: site for name, site in sites(model_trace) if not site["is_observed"]}
    points = [name for name, site in sites(guide_trace) if name in latents and is_point(site)]
    drawn, wanted = _dimensions(latents, guide_trace)
    # an autoguide's points are images of auxiliary sites that are as random as they
    return points if drawn < wanted else []


def is_auxiliary(site: Any) -> bool:
    """Whether a guide's site is no latent of the model, but latents are made of it."""
    return bool((site["infer"] or {}).get("is_auxiliary"))


def is_factor(site: Any) -> bool:
    """Whether a site is a ``pyro.factor``."""
    return isinstance(site["fn"], dist.Unit)


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
            drawn += 0 if is_point(site) else size
        elif is_auxiliary(site) and not is_point(site):
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


def is_point(site: Any) -> bool:
    """Whether a site has one value and no density."""
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
    wider = (
        not is_point(of_guide) and _is_real(posterior) and isinstance(bounds_of(prior), _BOUNDED)
    )
    # NaN is nowhere, and has a site of its own to be named by
    if wider or not bool(inside.all() | torch.isnan(of_guide["value"]).any()):
        raise ValueError(
            f"guide: site {name!r} ({family(posterior)}) reaches beyond the support of its prior "
            f"({family(prior)}: {support}), where no density is defined: use a family on that "
            "support, or a transformation onto it"
        )


def _is_real(fn: Any) -> bool:
    """Whether a distribution covers the real line; of transformed ones torch says so too often."""
    if isinstance(unwrapped(fn), torch.distributions.TransformedDistribution):
        return False
    try:
        return bounds_of(unwrapped(fn)) is constraints.real
    except NotImplementedError:
        return False
