"""Importance-sampled log evidence, with an honest account of its error, per datapoint."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from aevb.data.seeds import fresh_if_none, stream_seed
from aevb.inference.evidence.estimate import (
    Shown,
    counted,
    error_of_mean,
    mean_figures,
    number,
    verdict,
)
from aevb.inference.evidence.proposals import fit_proposal
from aevb.inference.evidence.psis import khat_limit, pareto_khat, pooled_khat
from aevb.inference.evidence.weights import LogJoint, datapoint_blocks, log_weights
from aevb.inference.process import randomness
from aevb.inference.process.limits import refuse_below
from aevb.inference.process.progress import progress_bar, with_progress
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.joint import Joint

__all__ = ["ImportanceEvidence", "estimates_from_log_weights", "importance_evidence"]


@dataclass(frozen=True, repr=False)
class ImportanceEvidence(Shown):
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

    Example:
        >>> from aevb import inference, models
        >>> fa, x = models.FactorAnalysis((5,), 2), torch.zeros(3, 5)
        >>> found = inference.importance_evidence(fa.model, fa.guide, x, num_samples=50)
        >>> found.log_evidence.shape, found.proposal, found.num_samples
        (torch.Size([3]), 'guide', 50)
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

    diagnostics: ClassVar[tuple[str, ...]] = (
        "ess", "khat", "khat_pooled", "elbo", "elbo_standard_error",
    )  # fmt: skip

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
        ``untrusted`` (number of datapoints), ``khat_median`` and ``ess_median``; with fewer than
        25 samples k̂ is not defined, and nothing is trusted.
        """
        untrusted, limit = int((~self.is_trusted).sum()), khat_limit(self.num_samples)
        where = f"{untrusted} of {counted(len(self.khat), 'datapoint')}"
        why = (
            "k̂ is not defined below 25 samples"
            if bool(torch.isnan(self.khat).any())
            else f"k̂ is, or may be, above {limit:.2f} at {where}"
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


@with_progress
def importance_evidence(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    num_samples: int = 1000,
    seed: int | None = 0,
    proposal: Literal["guide", "refined"] = "guide",
    memory_budget: int = 128 * 2**20,
    progress: bool | None = None,
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
        seed: Of the draws; None draws one afresh, which the result records. The result does not
            depend on ``memory_budget``, and torch's global random state is left as it was.
        proposal: ``"guide"``; or ``"refined"``, a Student t with a covariance of its own that is
            fitted to each datapoint, beside a tenth of the guide's draws. It costs about 6,000
            evaluations of the model for each datapoint, and most weights are trusted then.
        memory_budget: Bytes that one evaluation of the model may use.
        progress: Show progress bars; by default in notebooks alone.

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
    del progress  # see with_progress
    seed = fresh_if_none(seed)
    refuse_below(1, num_samples=num_samples)
    if proposal not in ("guide", "refined"):
        raise ValueError(f"proposal: expected 'guide' or 'refined'; got {proposal!r}")
    joint = Joint(model, *args, guide=guide)
    with (
        torch.no_grad(),
        randomness.stream(seed, "importance", joint.device),
        argument_checks(False),
        progress_bar(None, "block", description="importance sampling") as bar,
    ):
        parts = [part for _, part in datapoint_blocks(joint, num_samples)]
        bar.total = len(parts)
        evaluate = LogJoint(num_samples * len(parts), memory_budget)
        estimates = []
        for number, part in enumerate(parts):
            draw = part.draw
            if proposal == "refined":
                torch.manual_seed(stream_seed(seed, f"proposal/{number}"))
                draw = fit_proposal(part, memory_budget).draw
            weights = log_weights(part, draw, num_samples, seed, number, evaluate)
            estimates.append(estimates_from_log_weights(weights))
            bar.update()
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
