"""What objectives ask of a program, with the alternatives where it does not have it.

Each raises ValueError, saying which site it is and which objectives would do.
"""

import math
from contextlib import suppress
from typing import Any

import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from pyro.poutine.util import site_is_subsample
from pyro.util import check_site_shape
from torch import Tensor
from torch.distributions import kl_divergence

from aevb.inference.process.devices import device_of
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.arguments import Arguments
from aevb.inference.programs.bijections import family
from aevb.inference.programs.guide_checks import (
    counts_for_nothing,
    is_auxiliary,
    is_point,
    refuse_unfit_guide,
    sites,
)
from aevb.inference.programs.layouts import Layout, in_plate, latents_of, sum_log_prob
from aevb.inference.programs.protocol import ProgramPair
from aevb.inference.programs.ways import agree
from aevb.inference.svi.enumeration import (
    EnumerationEstimator,
    refuse_mixed_precision,
    refuse_other_sums,
    sums_out,
)
from aevb.inference.svi.site_sums import latent_names

__all__ = [
    "check_closed_form",
    "check_density",
    "check_enumeration",
    "check_guided",
    "check_local",
    "check_mean_field",
    "check_particles",
    "check_pathwise",
    "check_scores",
    "check_whole",
]

_ENUMERATING = (TraceEnum_ELBO, EnumerationEstimator)
# Draws at which an outer plate is compared with single runs.
_TRIED = 2
# Relative rounding of their float32 terms.
_AGREEMENT = 1e-5


def _latents(guide_trace: poutine.Trace) -> list[tuple[str, Any]]:
    return [(name, guide_trace.nodes[name]) for name in latent_names(guide_trace)]


def check_guided(model_trace: poutine.Trace, guide_trace: poutine.Trace, estimator: Any) -> None:
    """Every latent of the model is drawn by the guide, or summed out; and no other is.

    Pyro draws the rest from the prior at each step, whose bound is none on the evidence.
    """
    guided = dict(sites(guide_trace))
    for name, site in sites(model_trace):
        if site["is_observed"] or name in guided or counts_for_nothing(site):
            continue
        if sums_out(estimator, site):
            continue
        kind = family(site["fn"])
        if getattr(site["fn"], "has_enumerate_support", False):
            raise ValueError(
                f"guide: has no site for the model's discrete latent {name!r} ({kind}), which is "
                "not summed out: use objective=EnumeratedELBO() in fit, which sums it out, or "
                "write the mixture as MixtureSameFamily"
            )
        raise ValueError(
            f"guide: has no site for the model's latent {name!r} ({kind}): let the guide draw it"
        )
    # of the losses, these two count what a guide holds besides its latents
    refuse_unfit_guide(
        model_trace, guide_trace, factors=type(estimator) in (Trace_ELBO, *_ENUMERATING)
    )


def check_particles(
    program: ProgramPair, arguments: Arguments, estimator: Any, nesting: int
) -> None:
    """Several draws in an outer plate have the log-probabilities that each has alone."""
    if not (estimator.vectorize_particles and estimator.num_particles > 1):
        return
    args, kwargs = arguments.args, dict(arguments.kwargs)
    layout = Layout(nesting, None)

    def traced(program: Any) -> poutine.Trace:
        return poutine.trace(program).get_trace(*args, **kwargs)

    with torch.no_grad(), argument_checks(False):
        first = traced(program.guide)
        nodes = traced(poutine.replay(program.model, trace=first)).nodes
        # one subsample for all runs, without which their sites hold other data
        chosen: Any = {n: site["value"] for n, site in nodes.items() if site_is_subsample(site)}
        model, guide = (poutine.condition(p, chosen) for p in (program.model, program.guide))
        drawn = [traced(guide) for _ in range(_TRIED)]
        alone = [traced(poutine.replay(model, trace=trace)) for trace in drawn]
        with suppress(NotImplementedError):  # of a prior that cannot be drawn from
            alone += [traced(model) for _ in range(_TRIED)]
        latents = {
            name: torch.cat([latents_of(trace, layout, 1)[name] for trace in alone])
            for name in latents_of(alone[0], layout, 1)
        }
        truth = [_sums(trace, None, nesting) for trace in alone]
        try:
            outer = traced(in_plate(poutine.condition(model, data=latents), layout, len(alone)))
            found = _sums(outer, len(alone), nesting)
            several = traced(in_plate(guide, layout, _TRIED))
            _sums(several, _TRIED, nesting)
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
            raise _no_particles(estimator, reason) from None
    stacked = [torch.stack(column) for column in zip(*truth, strict=True)]
    if not agree(found, stacked, _AGREEMENT):
        raise _no_particles(estimator, "sites have other log-probabilities there")


def _sums(trace: poutine.Trace, num: int | None, nesting: int) -> list[Tensor]:
    """Of each site, without the scale of a subsample."""
    layout = Layout(nesting, None)
    return [sum_log_prob([pair], layout, num) for pair in sites(trace)]


def _no_particles(estimator: Any, reason: str) -> ValueError:
    name = "EnumeratedELBO" if isinstance(estimator, TraceEnum_ELBO) else "ELBO"
    return ValueError(
        f"objective: {estimator.num_particles} draws at once need a program that broadcasts under "
        f"an outer plate, and this one does not ({reason}): index from the right, or use "
        f"{name}(num_particles=..., vectorize_particles=False)"
    )


def check_enumeration(
    program: ProgramPair,
    arguments: Arguments,
    estimator: Any,
    traces: tuple[poutine.Trace, poutine.Trace] | None,
) -> None:
    """Every site has its plates, on the left of which there is room for enumerated values.

    Without them such values would meet undeclared dimensions, and other numbers be summed. Pyro
    looks for it only while its validation is on, which it is in no step.

    Args:
        program: Model and guide.
        arguments: Of both.
        estimator: Pyro's, which knows how deep plates are.
        traces: Without enumeration, of which this was found out; None if it was given.
    """
    for trace in traces or ():
        for _, site in sites(trace):
            check_site_shape(site, math.inf)  # type: ignore[arg-type]
    args, kwargs = arguments.args, dict(arguments.kwargs)
    refuse_other_sums(program, arguments, estimator, device_of(program, args=args))
    with torch.no_grad(), argument_checks(True):
        try:
            estimator.loss(program.model, program.guide, *args, **kwargs)
        except RuntimeError as error:
            refuse_mixed_precision(program, arguments, estimator, error)
            raise


def check_closed_form(name: str, model_trace: poutine.Trace, guide_trace: poutine.Trace) -> None:
    """The divergence of every latent has a closed form, and these add up to the whole."""
    name = f"{name}(analytic_kl=True)"
    check_mean_field(name, model_trace, guide_trace)
    for site_name, site in _latents(guide_trace):
        if site_name in model_trace:
            p: Any = model_trace.nodes[site_name]["fn"]
            q = site["fn"]
            try:
                with argument_checks(False), torch.no_grad():
                    kl_divergence(q, p)
            except NotImplementedError:
                raise ValueError(
                    f"{name}: the divergence of {family(q)} from {family(p)} at site "
                    f"{site_name!r} has no closed form: use ELBO(), IWAE() or "
                    "StickingTheLanding(), which estimate it"
                ) from None


def check_mean_field(name: str, model_trace: poutine.Trace, guide_trace: poutine.Trace) -> None:
    """Divergences of single latents add up to that of all.

    They do if no latent of the guide depends on one that depends on it in the model, for which
    the same order in both is enough.
    """
    latents = [site_name for site_name, _ in _latents(guide_trace)]
    if any(is_auxiliary(site) for _, site in _latents(guide_trace)):
        raise ValueError(
            f"{name}: the guide's latents are functions of sites of its own, as an autoguide's "
            "are, and have no divergence by themselves: use ELBO()"
        )
    in_model = [site_name for site_name, _ in sites(model_trace) if site_name in latents]
    if len(latents) > 1 and in_model != latents:
        raise ValueError(
            f"{name}: the guide draws {latents} in another order than the model, {in_model}, so "
            "that their divergences do not add up: use ELBO(), IWAE() or StickingTheLanding()"
        )


def check_local(name: str, model_trace: poutine.Trace, guide_trace: poutine.Trace) -> None:
    """Every latent belongs to one datapoint."""
    for site_name, site in _latents(guide_trace):
        frames = site["cond_indep_stack"]
        if not any(frame.name == "data" and frame.dim == -1 for frame in frames):
            raise ValueError(
                f"{name}: the latent {site_name!r} belongs to all datapoints, and what it may use "
                "for free is not defined: use ELBO() or BetaELBO()"
            )


def check_pathwise(name: str, model_trace: poutine.Trace, guide_trace: poutine.Trace) -> None:
    """Every latent can be reparameterized."""
    for site_name, site in _latents(guide_trace):
        if not getattr(site["fn"], "has_rsample", False):
            raise ValueError(
                f"{name}: draws of {family(site['fn'])} at site {site_name!r} cannot be "
                "reparameterized: use ELBO(), which has a score-function estimator"
            )


def check_density(name: str, model_trace: poutine.Trace, guide_trace: poutine.Trace) -> None:
    """No latent is a point mass, which has no density to weigh draws by."""
    latents = _latents(guide_trace)
    if any(is_auxiliary(site) for _, site in latents):
        return  # an autoguide: its point masses are functions of sites that have densities
    for site_name, site in latents:
        if is_point(site):
            raise ValueError(
                f"{name}: a point mass at site {site_name!r} has no density to weigh draws by: "
                "use ELBO(), which trains an ordinary autoencoder"
            )


def check_scores(name: str, model_trace: poutine.Trace, guide_trace: poutine.Trace) -> None:
    """The guide has a density at values that are no draws of its own, or whose history is lost."""
    check_density(name, model_trace, guide_trace)
    for site_name, site in _latents(guide_trace):
        try:
            with torch.no_grad():
                site["fn"].log_prob(site["value"].clone())
        except (KeyError, NotImplementedError):
            raise ValueError(
                f"{name}: {family(site['fn'])} at site {site_name!r} can score only its own "
                f"draws, and {name} scores values anew: use ELBO() or IWAE()"
            ) from None


def check_whole(name: str, model_trace: poutine.Trace, guide_trace: poutine.Trace) -> None:
    """The logarithm of a weight that is scaled up from a subsample is no bound."""
    scales = {
        site_name: site["scale"]
        for trace in (model_trace, guide_trace)
        for site_name, site in sites(trace)
    }
    if len({float(scale) for scale in scales.values()}) > 1:
        scaled = [site_name for site_name, scale in scales.items() if float(scale) != 1]
        raise ValueError(
            f"{name}: sites {scaled} are scaled, as by a subsampled plate beside global latents, "
            "and the average of such weights bounds nothing: use ELBO()"
        )
