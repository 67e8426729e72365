"""What annealing found: estimates of log p(x), and bounds from both sides."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from aevb.inference.evidence.estimate import (
    Shown,
    counted,
    error_of_mean,
    mean_figures,
    number,
    verdict,
)

__all__ = ["AISEvidence", "BDMCEvidence", "TwoSided"]

# Mean gap of bidirectional Monte Carlo, in nats, above which its bounds certify nothing.
_GAP_LIMIT = 1.0


@dataclass(frozen=True, repr=False)
class AISEvidence(Shown):
    r"""Estimates of log p(x) by annealing, one for each datapoint.

    Attributes:
        log_evidence: Log of the mean weight, ``(batch,)``, in nats; in expectation a lower bound.
        standard_error: By the delta method; too small where ``ess`` is.
        ess: Effective number of the chains' weights, of ``num_chains``.
        acceptance_rate: Mean over chains and temperatures, ``(batch,)``.
        log_weights: ``(chains, batch)``, float64, in nats.
        num_chains: Chains of each datapoint.
        num_temperatures: Steps from the start to the posterior.
        schedule: Name of the function by which they lie.
        start: Where the chains came from, ``"prior"`` or ``"guide"``.
        seed: Of everything random.

    Example:
        >>> from aevb import inference, models
        >>> fa, x = models.FactorAnalysis((5,), 2), torch.zeros(3, 5)
        >>> found = inference.ais_evidence(fa.model, x, num_chains=4, num_temperatures=50)
        >>> found.log_weights.shape, found.start, found.summary()["num_datapoints"]
        (torch.Size([4, 3]), 'prior', 3)
    """

    log_evidence: Tensor
    standard_error: Tensor
    ess: Tensor
    acceptance_rate: Tensor
    log_weights: Tensor
    num_chains: int
    num_temperatures: int
    schedule: str
    start: str
    seed: int

    diagnostics: ClassVar[tuple[str, ...]] = ("ess", "acceptance_rate")

    @property
    def low_ess(self) -> Tensor:
        """Where few chains carry the estimate, ``(batch,)``."""
        return self.ess < max(5.0, 0.2 * self.num_chains) - 1e-6  # for rounding

    @property
    def is_trusted(self) -> Tensor:
        """Where no few chains carry the estimate and proposals are accepted, ``(batch,)``."""
        return ~self.low_ess & (self.acceptance_rate > 0.3)

    def summary(self) -> dict[str, Any]:
        """As of :class:`~aevb.inference.Evidence`.

        With ``num_chains``, ``num_temperatures``, ``schedule``, ``start``, ``seed``,
        ``ess_median``, ``low_ess`` (number of datapoints) and ``acceptance_rate``.
        """
        return mean_figures(self) | self.settings() | self._verdict()

    def settings(self) -> dict[str, Any]:
        """What a summary tells of the chains."""
        return {
            "num_chains": self.num_chains,
            "num_temperatures": self.num_temperatures,
            "schedule": self.schedule,
            "start": self.start,
            "seed": self.seed,
            "ess_median": number(self.ess.median()),
            "low_ess": int(self.low_ess.sum()),
            "acceptance_rate": number(self.acceptance_rate.mean()),
        }

    def _verdict(self) -> dict[str, str]:
        few, all_points = int(self.low_ess.sum()), counted(len(self.ess), "datapoint")
        why = f"few chains carry the estimate at {few} of {all_points}"
        refused = int((~self.low_ess & ~self.is_trusted).sum())
        if refused:
            why += f", and few proposals are accepted at {refused} others"
        return verdict(self.is_trusted, why)


@dataclass(frozen=True, repr=False)
class TwoSided(Shown):
    """Log p(x) bounded by annealing in both directions.

    Attributes:
        forward: From the start to the posterior: in expectation a lower bound.
        reverse: From draws of the posterior back; its weights are those of 1/p(x).
    """

    forward: AISEvidence
    reverse: AISEvidence

    @property
    def lower(self) -> Tensor:
        """In expectation no more than log p(x), ``(batch,)``, in nats."""
        return self.forward.log_evidence

    @property
    def upper(self) -> Tensor:
        """In expectation no less, as far as the reverse started at the posterior, ``(batch,)``."""
        return -self.reverse.log_evidence

    diagnostics: ClassVar[tuple[str, ...]] = ("lower", "upper", "gap")

    @property
    def gap(self) -> Tensor:
        """Upper less lower bound, ``(batch,)``: in expectation no less than either's error."""
        return self.upper - self.lower

    @property
    def log_evidence(self) -> Tensor:
        """The lower bound, ``(batch,)``."""
        return self.lower

    @property
    def standard_error(self) -> Tensor:
        """Of the lower bound, ``(batch,)``."""
        return self.forward.standard_error

    def figures(self) -> dict[str, Any]:
        """What a summary tells of bounds and chains."""
        return {
            "lower": number(self.lower.mean()),
            "upper": number(self.upper.mean()),
            "gap": number(self.gap.mean()),
            "gap_standard_error": error_of_mean(self.gap),
            "gap_largest": number(self.gap.max()),
            "num_datapoints": len(self.gap),
            **self.forward.settings(),
        }


@dataclass(frozen=True, repr=False)
class BDMCEvidence(TwoSided):
    """Bounds on log p(x) from both sides, of data that the model itself made.

    Attributes:
        forward: The annealing behind ``lower``.
        reverse: The annealing behind ``upper``; its weights are those of the reverse. Its chains
            start from one exact draw and are not independent: it has no standard error, and its
            ``ess`` certifies nothing.
        data: Simulated observations by site.

    As an :class:`~aevb.inference.Evidence` of the simulated data it is the forward annealing.

    Example:
        >>> from aevb import inference, models
        >>> fa, x = models.FactorAnalysis((5,), 2), torch.zeros(3, 5)
        >>> found = inference.bdmc_evidence(fa.model, x, num_chains=4, num_temperatures=50)
        >>> found.data["x"].shape, found.lower.shape, found.upper.shape
        (torch.Size([3, 5]), torch.Size([3]), torch.Size([3]))
    """

    data: dict[str, Tensor]

    @property
    def is_trusted(self) -> Tensor:
        """Where the forward chains may be, ``(batch,)``."""
        return self.forward.is_trusted

    def summary(self) -> dict[str, Any]:
        """As of :class:`~aevb.inference.Evidence`, with bounds in place of estimates.

        These are ``lower``, ``upper``, ``gap``, ``gap_standard_error`` and ``gap_largest``, beside
        what annealing tells. Trusted are bounds whose forward chains are, and whose mean gap is at
        most one nat, give or take two of its standard errors; others are ``"wide bounds"``.
        """
        figures = self.figures()
        gap, error = figures["gap"], figures["gap_standard_error"]
        judged = self.forward._verdict()
        if judged["verdict"] == "trusted" and (
            gap is None or gap > _GAP_LIMIT + 2 * (error or 0.0)
        ):
            wide = "not finite" if gap is None else f"{gap:.2f} nats"
            why = f"the mean gap between the bounds is {wide}"
            judged = verdict(torch.tensor(False), why, "wide bounds")
        return figures | judged
