"""The ELBO with discrete latents summed out, as a Pyro loss."""

from collections.abc import Iterator
from typing import Any

from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from pyro.poutine.messenger import Messenger

from aevb.inference.programs.enumeration import is_enumerable, summing_out

__all__ = ["EnumerationEstimator", "sums_out"]


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


class _Names(Messenger):
    """Remembers the sites of a program."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def _pyro_post_sample(self, msg: Any) -> None:
        self.names.add(msg["name"])
