"""Importance-sampled log evidence, with an honest account of its error, per datapoint."""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from aevb.data.seeds import stream_seed
from aevb.inference.evidence.estimate import (
    counted,
    error_of_mean,
    mean_figures,
    number,
    shown,
    verdict,
)
from aevb.inference.evidence.proposals import fit_proposal
from aevb.inference.evidence.psis import khat_limit, pareto_khat, pooled_khat
from aevb.inference.graphs.agreement import check_function
from aevb.inference.graphs.compile import graph_function
from aevb.inference.graphs.tracing import NotTraceableError
from aevb.inference.process import randomness
from aevb.inference.process.limits import refuse_below
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.joint import Joint, together

__all__ = ["ImportanceEvidence", "estimates_from_log_weights", "importance_evidence"]

# Draws are made in blocks of a fixed size, each from a seed of its own, so that the memory budget
# changes how the model is evaluated and never which draws it is evaluated at.
_SAMPLES_PER_BLOCK = 100
_DATAPOINTS_PER_BLOCK = 250
# A graph sends large products to a faster library and skips Pyro; tracing costs a second. Once
# compiled it also fuses what surrounds the products; that takes ten seconds, or one if cached.
_WORTH_A_GRAPH = {"compiled": 2e12, "traced": 2e10}  # floating-point operations
# Of programs that take all data or nothing.
_REFUSALS = (ValueError, RuntimeError, IndexError)
_WEIGHTS_PER_BLOCK = 2_000_000  # float64 log-weights held at once for k̂: 16 MB


@dataclass(frozen=True)
class ImportanceEvidence:
    r"""Estimates of log p(x), one per datapoint (or a single one for a joint posterior).

    Attributes:
        log_evidence: :math:`\log \tfrac1S \sum_s w_s`, ``(B,)``, in nats; in expectation a lower
            bound on log p(x).
        standard_error: Of ``log_evidence``, by the delta method; meaningless where the estimate is
            not to be trusted.
        ess: Effective sample size :math:`(\sum w)^2 / \sum w^2`.
        khat: Pareto k̂ of the weights of each datapoint alone.
        khat_pooled: Its upper limit in view of all datapoints, by which it is trusted or not: see
            :func:`~aevb.inference.pooled_khat`.
        elbo: Mean of the same log-weights.
        elbo_standard_error: Of ``elbo``.
        num_samples: S.
        seed: Of the draws.
        proposal: ``"guide"``, or ``"refined"``.
    """

    log_evidence: Tensor
    standard_error: Tensor
    ess: Tensor
    khat: Tensor
    khat_pooled: Tensor
    elbo: Tensor
    elbo_standard_error: Tensor
    num_samples: int
    seed: int
    proposal: str

    @property
    def is_trusted(self) -> Tensor:
        """Where two standard errors cover log p(x) nine times in ten, ``(B,)``.

        As far as the draws tell: a mode that none of them came near is not seen. Elsewhere the
        estimate is a lower bound.
        """
        return self.khat_pooled <= khat_limit(self.num_samples)

    def summary(self) -> dict[str, Any]:
        """As of :class:`~aevb.inference.Evidence`.

        With ``elbo``, ``elbo_standard_error``, ``num_samples``, ``seed``, ``proposal``,
        ``untrusted`` (number of datapoints), ``khat_median`` and ``ess_median``; with fewer than 25
        samples k̂ is not defined, and nothing is trusted.
        """
        untrusted, count = int((~self.is_trusted).sum()), len(self.khat)
        limit = khat_limit(self.num_samples)
        why = (
            "k̂ is not defined below 25 samples"
            if bool(torch.isnan(self.khat).any())
            else f"k̂ is or may be above {limit:.2f} at {untrusted} of {counted(count, 'datapoint')}"
        )
        return mean_figures(self) | {
            "elbo": number(self.elbo.mean()),
            "elbo_standard_error": error_of_mean(self.elbo),
            "num_samples": self.num_samples,
            "seed": self.seed,
            "proposal": self.proposal,
            "untrusted": untrusted,
            "khat_median": number(self.khat.median()),
            "ess_median": number(self.ess.median()),
            **verdict(self.is_trusted, why),
        }

    __repr__ = shown


def importance_evidence(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    num_samples: int = 1000,
    seed: int = 0,
    proposal: Literal["guide", "refined"] = "guide",
    memory_budget: int = 128 * 2**20,
) -> ImportanceEvidence:
    r"""Estimate log p(x) of each datapoint with the guide, or what it is refined to, as proposal.

    .. math::
        \log \hat p(x) = \log \frac1S \sum_{s=1}^S w_s, \qquad
        w_s = \frac{p(x, z_s)}{q(z_s | x)}, \quad z_s \sim q(z | x)

    Where every site lies in the rightmost ``pyro.plate("data", ...)`` there is one estimate for
    each datapoint; otherwise the posterior is joint and there is one for the whole data.

    References:
        Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016),
        https://arxiv.org/abs/1509.00519

    Args:
        model: Pyro program of the joint distribution.
        guide: Pyro program of the proposal.
        args: Arguments of both; tensors as long as the data plate are cut into blocks with it,
            and all are moved to where the programs' parameters are.
        num_samples: S, draws for each datapoint.
        seed: Of the draws; the result does not depend on ``memory_budget``, and torch's global
            random state is left as it was.
        proposal: ``"guide"``; or ``"refined"``, a Student t with a covariance of its own that is
            fitted to each datapoint, beside a tenth of the guide's draws. It costs about 4,000
            evaluations of the model for each datapoint, and most weights are trusted then.
        memory_budget: Bytes that one evaluation of the model may use.

    Raises:
        ValueError: If ``num_samples`` is not positive, a site is scaled or subsampled, a
            log-probability is NaN, or the model cannot be evaluated at several draws at once; or
            if a refined proposal is asked for above 500 dimensions.

    Example:
        >>> import torch
        >>> from aevb.models import FactorAnalysis
        >>> fa, x = FactorAnalysis((5,), 2).double(), torch.zeros(3, 5).double()
        >>> evidence = importance_evidence(fa.model, fa.guide, x, num_samples=10)
        >>> bool((evidence.log_evidence - fa.log_evidence(x)).abs().max() < 1e-10)
        True
    """
    refuse_below(1, num_samples=num_samples)
    if proposal not in ("guide", "refined"):
        raise ValueError(f"proposal: expected 'guide' or 'refined'; got {proposal!r}")
    joint = Joint(model, *args, guide=guide)
    with (
        torch.no_grad(),
        randomness.stream(seed, "importance", joint.device),
        argument_checks(False),
    ):
        size = min(_DATAPOINTS_PER_BLOCK, _WEIGHTS_PER_BLOCK // num_samples)
        parts = list(_datapoint_blocks(joint, max(1, size)))
        evaluate = _LogJoint(num_samples * len(parts), memory_budget)
        estimates = []
        for number, part in enumerate(parts):
            draw = part.draw
            if proposal == "refined":
                torch.manual_seed(stream_seed(seed, f"proposal/{number}"))
                draw = fit_proposal(part, memory_budget).draw
            weights = _log_weights(part, draw, num_samples, seed, number, evaluate)
            estimates.append(estimates_from_log_weights(weights))
    merged = {name: torch.cat([part[name] for part in estimates]) for name in estimates[0]}
    pooled = torch.from_numpy(pooled_khat(merged["khat"].numpy(), num_samples))
    return ImportanceEvidence(
        **merged, khat_pooled=pooled, num_samples=num_samples, seed=seed, proposal=proposal
    )


def estimates_from_log_weights(log_weights: Tensor) -> dict[str, Tensor]:
    """The estimates of :class:`ImportanceEvidence` from the weights themselves.

    Args:
        log_weights: ``(S, B)``, in nats.

    Returns:
        Each estimate by its attribute's name, ``(B,)``, float64, on the CPU.

    Example:
        >>> estimates = estimates_from_log_weights(torch.tensor([[0.0], [1.0]]).log())
        >>> estimates["log_evidence"].exp(), estimates["ess"]
        (tensor([0.5000], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """
    weights = log_weights.double()
    count = len(weights)
    log_sum = torch.logsumexp(weights, 0)
    share = torch.exp(weights - log_sum)
    # var(mean of w) / mean(w)², with the unbiased variance of the weights; written as deviations,
    # because 1/ESS − 1/S cancels where the weights are nearly equal
    relative_variance = (share - 1 / count).square().sum(0) * count / max(count - 1, 1)
    unknown = torch.full_like(log_sum, math.nan)
    spread = weights.std(0) / math.sqrt(count) if count > 1 else unknown
    estimates = {
        "log_evidence": log_sum - math.log(count),
        "standard_error": relative_variance.sqrt() if count > 1 else unknown,
        "ess": 1 / share.square().sum(0),
        "khat": torch.from_numpy(pareto_khat(weights)),
        "elbo": weights.mean(0),
        "elbo_standard_error": spread,
    }
    return {name: value.cpu() for name, value in estimates.items()}


def _datapoint_blocks(joint: Joint, size: int) -> Iterator[Joint]:
    """The programs at blocks of datapoints, cut along the data plate, if that changes nothing."""
    total = joint.layout.num_datapoints
    if total is None or total <= size:
        yield joint
        return
    places = [slice(start, min(start + size, total)) for start in range(0, total, size)]

    def at(place: slice) -> Joint:
        args = (
            a[place] if isinstance(a, Tensor) and a.ndim and len(a) == total else a
            for a in joint.args
        )
        return joint.at(*args, num_datapoints=place.stop - place.start)

    with suppress(*_REFUSALS):
        joint.adopt(at(places[0]))
    if _same_when_cut(joint, places, at):
        yield from map(at, places)
    else:
        yield joint


def _same_when_cut(joint: Joint, places: list[slice], at: Callable[[slice], Joint]) -> bool:
    """Whether every block alone has the log-weights that it has among all.

    It has not if a program holds a value for each datapoint, the size of the data, or something
    that it makes of them all, such as a mean or a maximum.
    """
    guide = joint.given_guide()
    latents, log_q = joint.draw(1)
    log_p = joint.log_joint(latents)
    for place in places:
        where = (slice(None),) * joint.layout.nesting + (place,)  # behind draws, outer plates
        some = {name: value[where] for name, value in latents.items()}
        try:
            alone = at(place)
            (q,) = alone.sums(guide, joint.guide_way, some, together)
            pairs = ((q, log_q), (alone.log_joint(some), log_p))
        except _REFUSALS:
            return False
        if not all(torch.allclose(a, b[:, place], rtol=1e-4, atol=1e-4) for a, b in pairs):
            return False
    return True


def _log_weights(
    joint: Joint,
    draw: Callable[[int], tuple[dict[str, Tensor], Tensor]],
    num_samples: int,
    seed: int,
    block: int,
    evaluate: "_LogJoint",
) -> Tensor:
    """Log-weights of one block of datapoints, ``(S, B)``."""
    # filled in place: small results kept between large temporaries would cut the heap to pieces,
    # and the peak would grow with S
    weights = torch.empty(
        num_samples, joint.layout.num_datapoints or 1, dtype=torch.float64, device=joint.device
    )
    for start in range(0, num_samples, _SAMPLES_PER_BLOCK):
        count = min(_SAMPLES_PER_BLOCK, num_samples - start)
        torch.manual_seed(stream_seed(seed, f"importance/{block}/{start}"))
        latents, log_q = draw(count)
        if not latents:
            raise ValueError("model: has no latent sites, so there is nothing to integrate over")
        if start == 0:
            evaluate.begin(joint, latents)
        for first in range(0, count, evaluate.at_once):
            chunk = slice(first, first + evaluate.at_once)
            log_p = evaluate({name: z[chunk] for name, z in latents.items()})
            torch.sub(log_p, log_q[chunk], out=weights[start + first : start + first + len(log_p)])
    return weights


class _LogJoint:
    """log p(x, z), block of datapoints by block, as a graph where that repays making one.

    Attributes:
        at_once: Draws whose evaluation stays within the memory budget.
    """

    def __init__(self, num_draws: int, budget: int) -> None:
        self._budget = budget
        self._num_draws = num_draws  # over all blocks
        self._graph: Callable[..., Tensor] | None = None
        self._shapes: list[torch.Size] = []  # of the graph's inputs
        self._unchecked = False

    def begin(self, joint: Joint, latents: dict[str, Tensor]) -> None:
        """Go on to a block of datapoints, and draws of a whole block of draws."""
        self._joint = joint
        self._leaves, self._form = tree_flatten(joint.args)
        self._names = list(latents)
        fitting = joint.num_fitting(latents, self._budget)
        count = len(next(iter(latents.values())))
        # all of one size, since other sizes have no graph
        self.at_once = max(n for n in range(1, count + 1) if count % n == 0 and n <= fitting)
        # decided by what there is to do and not by the clock, so that results repeat
        flops = joint.cost(latents).num_flops * self._num_draws
        self._level = next((name for name, least in _WORTH_A_GRAPH.items() if flops > least), "")
        self._unchecked = True

    def __call__(self, latents: dict[str, Tensor]) -> Tensor:
        """``(S, B)``, float64, in nats."""
        inputs = [latents[name] for name in self._names]
        inputs += [leaf for leaf in self._leaves if isinstance(leaf, Tensor)]
        result = self._function_for(inputs)(*inputs)
        if bool(torch.isnan(result).any()):
            self._joint.refuse_nan(latents)
        return result

    def _function_for(self, inputs: list[Tensor]) -> Callable[..., Tensor]:
        # the shape is part of a graph
        if not self._level or len(inputs[0]) != self.at_once:
            return self._eager
        shapes = [value.shape for value in inputs]
        try:
            if self._graph is None or shapes != self._shapes:
                self._graph = graph_function(self._eager, *inputs, level=self._level)
                self._shapes = shapes
            elif self._unchecked:  # a program may look at the data, which are others now
                check_function(self._eager, self._graph, inputs)
        except NotTraceableError:
            self._level, self._graph = "", None
            return self._eager
        self._unchecked = False
        return self._graph

    def _eager(self, *inputs: Tensor) -> Tensor:
        values = iter(inputs)
        latents = {name: next(values) for name in self._names}
        leaves = [next(values) if isinstance(a, Tensor) else a for a in self._leaves]
        size = self._joint.layout.num_datapoints
        args = tree_unflatten(leaves, self._form)
        return self._joint.at(*args, num_datapoints=size).log_joint(latents)
