"""Posterior predictive checks: would the model have shown us data like these?"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from scipy.stats import binom
from torch import Tensor

from aevb.evaluation.limits import BYTES_AT_ONCE, check_at_least
from aevb.inference.process import randomness
from aevb.inference.process.devices import device_of
from aevb.inference.process.progress import tracked
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.joint import Joint
from aevb.inference.programs.layouts import float64_log_prob, sites
from aevb.inference.programs.simulate import unobserved

__all__ = ["DISCREPANCIES", "STATISTICS", "PredictiveCheck", "observed_data", "predictive_check"]

Statistic = Callable[[Tensor], Tensor]
Discrepancy = Callable[[Tensor, Any], Tensor]


def _values(x: Tensor) -> Tensor:
    return x.reshape(*x.shape[:2], -1).double()


STATISTICS: Mapping[str, Statistic] = {
    "mean": lambda x: _values(x).mean(-1),
    "standard_deviation": lambda x: _values(x).std(-1, correction=0),
}
DISCREPANCIES: Mapping[str, Discrepancy] = {
    "log_likelihood": lambda x, likelihood: float64_log_prob(likelihood, x)
}


@dataclass(frozen=True)
class PredictiveCheck:
    """Posterior predictive p-values, by name of the statistic.

    Far from 0 and from 1 says that the data look like the model's; exact models give values that
    are closer to one half than uniform ones, because the posterior has seen the same data.

    Attributes:
        p_values: For each datapoint, ``(N,)``, float64.
        overall: For the mean of the statistic over all datapoints.
        observed: Posterior mean of the statistic of the data themselves, ``(N,)``.
        replicated: Mean of the statistic over replicated data, ``(N,)``.
        num_draws: Replications of each datapoint.
        seed: Of the draws.

    Example:
        >>> half = {"mean": torch.full((3,), 0.5)}
        >>> PredictiveCheck(half, {"mean": 0.5}, half, half, num_draws=10, seed=0)
        PredictiveCheck(mean p=0.50, 3 datapoints, 10 draws, seed=0)
    """

    p_values: dict[str, Tensor]
    overall: dict[str, float]
    observed: dict[str, Tensor]
    replicated: dict[str, Tensor]
    num_draws: int
    seed: int

    @property
    def standard_error(self) -> dict[str, Tensor]:
        """Of Monte Carlo, for ``p_values``."""
        return {name: (p * (1 - p) / self.num_draws).sqrt() for name, p in self.p_values.items()}

    def extreme(self, level: float = 0.01) -> dict[str, int]:
        """How many datapoints have a p-value within ``level / 2`` of 0 or 1."""
        return {
            name: int(((p < level / 2) | (p > 1 - level / 2)).sum())
            for name, p in self.p_values.items()
        }

    def bound_on_extreme(self, level: float = 0.01) -> float:
        """About how large a share of datapoints may be extreme if the model is right, at most.

        Twice the share of uniform p-values that are: posterior predictive ones lie closer to one
        half on average, but not everywhere (Posterior Predictive p-Values, Meng, 1994,
        https://doi.org/10.1214/aos/1176325622). With few draws that share is above the level.
        """
        in_a_tail = math.ceil(self.num_draws * level / 2)
        return min(1.0, 2 * 2 * in_a_tail / (self.num_draws + 1))

    def surprise(self, level: float = 0.01) -> dict[str, float]:
        """Chance of what was found, at most, if the model and its posterior are right.

        Of so many extreme datapoints, binomial with :meth:`bound_on_extreme`, or of so extreme a
        mean over all of them, twice its uniform chance; the smaller of both, times their number
        over all statistics (Bonferroni).
        """
        bound = self.bound_on_extreme(level)
        chances = {}
        for name, count in self.extreme(level).items():
            of_count = float(binom.sf(count - 1, len(self.p_values[name]), bound))
            overall = self.overall[name]
            # of draws that were so far out none may be seen, although their chance is not zero
            tail = max(min(overall, 1 - overall), 1 / (self.num_draws + 1))
            chances[name] = min(1.0, 2 * len(self.p_values) * min(of_count, 2 * 2 * tail))
        return chances

    def summary(self, level: float = 0.01) -> dict[str, Any]:
        """Means over datapoints, p-values and extreme datapoints, JSON-able."""
        extreme, surprise = self.extreme(level), self.surprise(level)
        return {
            "level": level,
            "num_datapoints": len(next(iter(self.p_values.values()))),
            "num_replications": self.num_draws,
            "expected_extreme_share_at_most": self.bound_on_extreme(level),
            "statistics": {
                name: {
                    "observed": float(self.observed[name].mean()),
                    "replicated": float(self.replicated[name].mean()),
                    "p_value_of_mean": self.overall[name],
                    "num_extreme": extreme[name],
                    "chance_at_most": surprise[name],
                }
                for name in self.p_values
            },
        }

    def __repr__(self) -> str:
        """One line."""
        shown = ", ".join(f"{name} p={p:.2f}" for name, p in self.overall.items())
        count = len(next(iter(self.p_values.values())))
        return (
            f"PredictiveCheck({shown}, {count} datapoints, {self.num_draws} draws, "
            f"seed={self.seed})"
        )


def predictive_check(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    statistics: Mapping[str, Statistic] = STATISTICS,
    discrepancies: Mapping[str, Discrepancy] = DISCREPANCIES,
    num_draws: int = 1000,
    seed: int = 0,
) -> PredictiveCheck:
    r"""Compare statistics of the data with those of data replicated from their posteriors.

    .. math::
        z_s \sim q(z \mid x), \qquad x_s \sim p(x \mid z_s), \qquad
        p = \frac1S \sum_s 1[T(x_s, z_s) > T(x, z_s)] + \tfrac12 1[T(x_s, z_s) = T(x, z_s)]

    Halves of ties keep p-values of discrete data even. A statistic depends on the data alone; a
    discrepancy on the latents as well, through the likelihood. Under a joint posterior the whole
    data are one datapoint, N = 1, and discrepancies are summed over its plates.

    References:
        Posterior predictive assessment of model fitness via realized discrepancies (Gelman, Meng &
        Stern, 1996), https://www3.stat.sinica.edu.tw/statistica/oldpdf/A6n41.pdf

    Args:
        model: Pyro program of the joint distribution.
        guide: Pyro program of the posterior.
        args: Arguments of both. The data x, ``(N, *shape)``, are what one site observes: the only
            observed one, or the one that observes the first argument.
        statistics: Functions from data ``(S, N, *shape)`` to ``(S, N)``, by name; called with the
            data themselves as ``(1, N, *shape)``.
        discrepancies: Functions from data ``(S, N, *shape)`` and the likelihood at S draws to
            ``(S, N)``, by name.
        num_draws: S.
        seed: Of the draws; torch's global random state is left as it was.

    Raises:
        ValueError: If ``num_draws`` is not positive, there is nothing to compare or a name stands
            twice, a statistic returns another shape, or it is not clear which site is meant.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> fa, x = FactorAnalysis((5,), 2), torch.zeros(3, 5)
        >>> largest = {"largest": lambda x: x.amax(-1)}
        >>> check = predictive_check(fa.model, fa.guide, x, statistics=largest, num_draws=100)
        >>> sorted(check.overall), check.p_values["largest"].shape
        (['largest', 'log_likelihood'], torch.Size([3]))
    """
    check_at_least(1, num_draws=num_draws)
    _check(statistics, discrepancies)
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
    free = unobserved(model)
    device = device_of(model, guide, args=args)
    with torch.no_grad(), randomness.stream(seed, "replications", device), argument_checks(False):
        joint = Joint(model, *args, guide=guide)
        site, x = _observed(model, *joint.args)
        is_local = joint.layout.num_datapoints is not None
        points = x if is_local else x.unsqueeze(0)
        latents, _ = joint.draw(num_draws)
        parts = tracked(
            joint.chunks(latents, BYTES_AT_ONCE, free), num_draws, "replication",
            "predictive checks", lambda part: len(next(iter(part.values()))),
        )  # fmt: skip
        for part in parts:
            size = len(next(iter(part.values())))
            node: Any = joint.run(free, part).nodes[site]
            copies = node["value"].reshape(size, *points.shape)
            for name, statistic in statistics.items():
                copy = _shaped(name, statistic(copies), (size, len(points)))
                own = _shaped(name, statistic(points.unsqueeze(0)), (1, len(points)))
                pairs.setdefault(name, []).append((copy, own.expand_as(copy)))
            for name, discrepancy in discrepancies.items():
                values = [discrepancy(value, node["fn"]) for value in (node["value"], x)]
                if not is_local:
                    values = [value.reshape(size, -1).sum(1, keepdim=True) for value in values]
                copy, own = (_shaped(name, value, (size, len(points))) for value in values)
                pairs.setdefault(name, []).append((copy, own))
    check = PredictiveCheck({}, {}, {}, {}, num_draws, seed)
    for name, blocks in pairs.items():
        copy, own = (torch.cat(side).cpu() for side in zip(*blocks, strict=True))
        check.p_values[name] = _share_above(copy, own)
        check.overall[name] = float(_share_above(copy.mean(-1), own.mean(-1)))
        check.observed[name], check.replicated[name] = own.mean(0), copy.mean(0)
    return check


def _share_above(copies: Tensor, own: Tensor) -> Tensor:
    """Share of draws in which the copy's value is above the data's, ties being halves."""
    return ((copies > own).double() + 0.5 * (copies == own)).mean(0)


def _shaped(name: str, values: Tensor, shape: tuple[int, int]) -> Tensor:
    if values.numel() != shape[0] * shape[1] or values.shape[-1:] != shape[1:]:
        raise ValueError(
            f"statistics: {name!r} must return one value for each draw and datapoint, {shape}; "
            f"got {tuple(values.shape)}"
        )
    return values.double().reshape(shape)


def observed_data(model: Callable[..., Any], *args: Any) -> tuple[str, Tensor]:
    """The site that observes the data, and what it observes.

    Args:
        model: Pyro program.
        args: Its arguments.

    Returns:
        The only observed site, or else the one that observes the first argument.

    Raises:
        ValueError: If neither is one site.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> name, x = observed_data(FactorAnalysis((5,), 2).model, torch.zeros(3, 5))
        >>> name, x.shape
        ('x', torch.Size([3, 5]))
    """
    device = device_of(model, args=args)
    with torch.no_grad(), randomness.stream(0, "observed", device), argument_checks(False):
        return _observed(model, *args)


def _observed(model: Callable[..., Any], *args: Any) -> tuple[str, Tensor]:
    """As :func:`observed_data`; the program draws its latents, which nobody looks at."""
    trace = poutine.trace(model).get_trace(*args)
    found = {
        name: site["value"]
        for name, site in sites(trace)
        if site["is_observed"] and not site["infer"].get("_deterministic")
    }
    if len(found) > 1:
        first = next((a for a in args if isinstance(a, Tensor)), None)
        found = {
            name: value
            for name, value in found.items()
            if first is not None and torch.equal(value, first)
        }
    if len(found) != 1:
        raise ValueError(
            f"args: the data must be observed at one site of the model; it is {list(found)}"
        )
    return next(iter(found.items()))


def _check(statistics: Mapping[str, Any], discrepancies: Mapping[str, Any]) -> None:
    if not statistics and not discrepancies:
        raise ValueError("statistics: there is nothing to compare")
    twice = sorted(set(statistics) & set(discrepancies))
    if twice:
        raise ValueError(f"discrepancies: {twice} are names of statistics as well")
