"""The ELBO with discrete latents summed out, as a Pyro loss."""

from collections.abc import Iterator
from typing import Any

import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.arguments import Arguments
from aevb.inference.programs.assignments import refuse_other_factors
from aevb.inference.programs.enumeration import is_enumerable, summing_out
from aevb.inference.programs.guide_checks import sites
from aevb.inference.programs.protocol import ProgramPair, evaluation_mode

__all__ = ["EnumerationEstimator", "refuse_mixed_precision", "refuse_other_sums", "sums_out"]


class EnumerationEstimator(TraceEnum_ELBO):
    """Pyro's ``TraceEnum_ELBO``, which also sums out what is not marked and the guide leaves out.

    Pyro draws such a site from its prior, whose bound is none on the evidence.
    """

    def _get_traces(
        self, model: Any, guide: Any, args: Any, kwargs: Any
    ) -> Iterator[tuple[poutine.Trace, poutine.Trace]]:
        drawn = _Names()
        yield from super()._get_traces(summing_out(model, drawn.names), drawn(guide), args, kwargs)


def sums_out(estimator: Any, site: Any) -> bool:
    """Whether a loss sums out a latent of the model that the guide does not draw."""
    if isinstance(estimator, EnumerationEstimator):
        return is_enumerable(site)
    marked = (site["infer"] or {}).get("enumerate") == "parallel"
    return isinstance(estimator, TraceEnum_ELBO) and marked


def refuse_other_sums(
    program: ProgramPair, arguments: Arguments, estimator: Any, device: torch.device
) -> None:
    """Refuse a program of which a loss would sum other factors than its own.

    Args:
        program: Model and guide.
        arguments: Of both.
        estimator: Pyro's, which knows how deep plates are.
        device: Of the arguments.

    Raises:
        ValueError: As :func:`~aevb.inference.programs.assignments.refuse_other_factors`.
    """
    args, kwargs = arguments.args, dict(arguments.kwargs)
    several = estimator.vectorize_particles and estimator.num_particles > 1
    outer = estimator._vectorized_num_particles if several else lambda p: p

    def traced(program: Any) -> poutine.Trace:
        return poutine.trace(program).get_trace(*args, **kwargs)

    def run(values: dict[str, Tensor]) -> list[poutine.Trace]:
        model, guide = (
            outer(poutine.condition(p, data={**chosen, **values}))
            for p in (program.model, program.guide)
        )
        drawn = traced(guide)
        return [traced(poutine.replay(model, trace=drawn)), drawn]

    def at_once() -> list[poutine.Trace]:
        # one subsample for all runs, without which their sites hold other data
        model, guide = (poutine.condition(p, data=chosen) for p in (program.model, program.guide))
        return list(next(estimator._get_traces(model, guide, args, kwargs)))

    # in evaluation mode: batch statistics are of all values together, and dropout of none twice
    with torch.no_grad(), argument_checks(False), evaluation_mode(program):
        chosen: dict[str, Tensor] = {}
        traces = run({})
        for trace in traces:
            found: dict[str, Any] = dict(trace.nodes)
            chosen |= {n: s["value"] for n, s in found.items() if site_is_subsample(s)}
        drawn = dict(sites(traces[1]))
        summed = {
            name for name, site in sites(traces[0]) if name not in drawn and is_enumerable(site)
        } | {name for name, site in drawn.items() if (site["infer"] or {}).get("enumerate")}
        refuse_other_factors(at_once, run, summed, device)


def refuse_mixed_precision(
    program: ProgramPair, arguments: Arguments, estimator: Any, error: RuntimeError
) -> None:
    """Say which sites have log-probabilities of another precision, which no sum mixes.

    Raises:
        ValueError: If there are such sites.
    """
    with torch.no_grad(), argument_checks(False):
        args, kwargs = arguments.args, dict(arguments.kwargs)
        traces = next(estimator._get_traces(program.model, program.guide, args, kwargs))
    kinds: dict[torch.dtype, list[str]] = {}
    for name, site in sites(traces[0]):
        if not site["infer"].get("_deterministic"):
            kinds.setdefault(site["unscaled_log_prob"].dtype, []).append(name)
    if len(kinds) > 1:
        found = " and ".join(f"{str(kind)[6:]} at {names}" for kind, names in kinds.items())
        raise ValueError(
            f"model: log-probabilities are {found}, which cannot be summed out together: give "
            "data of the model's precision, as x.float(), or make its tensors as the data are, "
            "torch.tensor(0.3).to(x)"
        ) from error


class _Names(Messenger):
    """Remembers the sites of a program."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def _pyro_post_sample(self, msg: Any) -> None:
        self.names.add(msg["name"])
