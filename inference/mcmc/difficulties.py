"""Which site makes a posterior hard, by the shape that its draws have: a funnel."""

from typing import Any

import torch
from torch import Tensor

from aevb.inference.programs.layouts import factors
from aevb.inference.programs.log_density import LogDensity

__all__ = ["Funnel", "funnel_of"]

_MOST_DRAWS = 200
# By so much the scale must vary from its 5 to its 95 % quantile, and the values with it.
_LEAST_RANGE = 3.0
_LEAST_CORRELATION = 0.5

# A site's name, and the factor by which its scale varies.
Funnel = tuple[str, float]


def funnel_of(density: LogDensity, draws: Tensor, place: int = 0) -> Funnel | None:
    """The latent site that is as wide as its own scale is, where that varies most.

    Where data say little of a group, the values of a site follow a prior whose scale is a latent
    too, and steps that suit wide ones are too long for narrow ones. Where the data decide, the
    values are as wide whatever the scale is, and nothing is found.

    References:
        Hamiltonian Monte Carlo for Hierarchical Models (Betancourt & Girolami, 2015),
        https://arxiv.org/abs/1312.0906

    Args:
        density: Of the posteriors.
        draws: Unconstrained, ``(chains, draws, batch, dim)``.
        place: Of the posterior in question.
    """
    flat = draws.flatten(0, 1)
    flat = flat[:: max(1, len(flat) // _MOST_DRAWS)]
    widths: dict[str, list[tuple[float, float]]] = {}
    for trace in density.traces(flat):
        for name, site in trace.nodes.items():
            if site["type"] != "sample" or name not in density.latent_names:
                continue
            fn, _ = factors(site["fn"])
            if hasattr(fn, "loc") and isinstance(getattr(fn, "scale", None), Tensor):
                found = _logs(site, fn, place if density.is_local else None)
                widths.setdefault(name, []).append(found)
    funnels = [(name, _factor(torch.tensor(pairs))) for name, pairs in widths.items()]
    name, factor = max(funnels, key=lambda pair: pair[1], default=("", 0.0))
    return (name, factor) if factor else None


def _logs(site: Any, fn: Any, place: int | None) -> tuple[float, float]:
    """Means of the logs of distances from the location, and of scales, of one posterior."""
    value, outer = site["value"], site["fn"]
    parts = [(value - fn.loc).abs(), fn.scale.expand_as(value)]
    if place is not None:
        data_dim = value.ndim - len(outer.event_shape) - 1
        parts = [part.select(data_dim, place) for part in parts]
    distance, scale = (float(part.double().log().mean()) for part in parts)
    return distance, scale


def _factor(logs: Tensor) -> float:
    """By which scales vary, if distances do with them; else 0."""
    if not bool(torch.isfinite(logs).all()):
        return 0.0
    low, high = torch.quantile(logs[:, 1].double(), torch.tensor([0.05, 0.95]).double())
    factor = float((high - low).exp())
    if factor < _LEAST_RANGE:
        return 0.0
    from scipy.stats import spearmanr  # a second, which nothing else here takes

    correlation = float(spearmanr(logs[:, 0], logs[:, 1]).statistic)
    return factor if correlation > _LEAST_CORRELATION else 0.0
