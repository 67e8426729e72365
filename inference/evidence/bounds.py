"""Log evidence of real data from both sides."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aevb.data.seeds import fresh_if_none, stream_seed
from aevb.inference.evidence.ais import annealed, annealing_of
from aevb.inference.evidence.annealed import TwoSided
from aevb.inference.evidence.annealing import Schedule, sigmoid_schedule
from aevb.inference.evidence.estimate import (
    counted,
    error_of_mean,
    verdict,
)
from aevb.inference.evidence.posterior import Posterior
from aevb.inference.evidence.repair import posterior
from aevb.inference.process import randomness
from aevb.inference.process.limits import refuse_below
from aevb.inference.programs.protocol import ProgramPair

__all__ = ["BoundedEvidence", "bounded_evidence"]

_STANDARD_ERRORS = 2.0
_CONDITIONAL = "trusted from below, conditional from above"


@dataclass(frozen=True, repr=False)
class BoundedEvidence(TwoSided):
    """Bounds on log p(x) of real data, of which the upper one holds on a condition.

    Attributes:
        forward: Annealing from the start to the posterior: in expectation a lower bound.
        reverse: Annealing back, from draws of the posterior; its weights are those of 1/p(x), so
            that the bound that they give is an upper one, as far as the draws are the posterior's.
        posterior: Those draws, with what speaks for them.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> fa, x = FactorAnalysis((5,), 2).double(), torch.zeros(3, 5).double()
        >>> bounded_evidence(fa, x, num_temperatures=20).interval.shape
        torch.Size([3, 2])
    """

    posterior: Posterior

    @property
    def interval(self) -> Tensor:
        """Two standard errors below the lower and above the upper bound, ``(batch, 2)``."""
        below = self.lower - _STANDARD_ERRORS * self.forward.standard_error
        above = self.upper + _STANDARD_ERRORS * self.reverse.standard_error
        return torch.stack([below, above], -1)

    @property
    def is_trusted(self) -> Tensor:
        """Where both annealings may be, and the posterior's draws passed, ``(batch,)``."""
        both = self.forward.is_trusted & self.reverse.is_trusted
        return both & self.posterior.is_passed

    def summary(self) -> dict[str, Any]:
        """As of :class:`~aevb.inference.Evidence`, with bounds in place of estimates.

        With ``condition``, on which the upper bound holds.
        """
        passed, count = int(self.posterior.is_passed.sum()), len(self.lower)
        untrusted = int((~self.is_trusted).sum())
        where = f"{untrusted} of {counted(count, 'datapoint')}"
        condition = (
            "the upper bound holds where the draws that it starts from are the posterior's: they "
            f"passed their test at {passed} of {count}, which sees no mode that none came near"
        )
        judged = verdict(self.is_trusted, f"one of the sides is not to be believed at {where}")
        if judged["verdict"] == "trusted":
            judged = {"verdict": _CONDITIONAL, "why": condition}
        return {
            **self.figures(),
            "standard_error": error_of_mean(self.lower),
            "condition": condition,
            **judged,
        }


def bounded_evidence(
    program: ProgramPair,
    *args: Any,
    draws: Posterior | None = None,
    num_chains: int = 16,
    num_temperatures: int = 300,
    seed: int | None = 0,
    schedule: Schedule = sigmoid_schedule,
    num_leapfrog_steps: int = 10,
    target_acceptance: float = 0.65,
    chain_batch_size: int | None = None,
) -> BoundedEvidence:
    """Bound log p(x) of each datapoint from below and, given draws of its posterior, from above.

    Chains that anneal from the guide to the posterior give the lower bound. Chains that start at
    draws of the posterior and anneal back to the guide give an upper one. On simulated data one
    exact draw is known (:func:`~aevb.inference.bdmc_evidence`); on real data the draws are those
    of :func:`~aevb.inference.posterior`, and the upper bound is no better than they are.

    References:
        Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse, Ghahramani &
        Adams, 2015), https://arxiv.org/abs/1511.02543

    Args:
        program: Model and guide.
        args: Arguments of both.
        draws: Of the posterior at the same arguments; made if left out.
        num_chains: In either direction.
        num_temperatures: As for :func:`~aevb.inference.ais_evidence`, as are the others.
        seed: Of everything random; None draws one afresh.
        schedule: How the temperatures lie.
        num_leapfrog_steps: Of each trajectory.
        target_acceptance: What the pilot's step sizes aim at.
        chain_batch_size: Chains evaluated at once.

    Raises:
        ValueError: As :func:`~aevb.inference.ais_evidence` and
            :func:`~aevb.inference.posterior`; if ``draws`` are of another number of datapoints or
            of other latents.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> fa, x = FactorAnalysis((5,), 2).double(), torch.zeros(3, 5).double()
        >>> bounds = bounded_evidence(fa, x, num_temperatures=20)
        >>> bool((bounds.gap.abs() < 1e-6).all())  # whose guide is exact
        True
    """
    seed = fresh_if_none(seed)
    refuse_below(1, num_chains=num_chains)
    if draws is None:
        draws = posterior(program, *args, seed=stream_seed(seed, "posterior"))
    annealing = annealing_of(
        program.model, program.guide, args, num_chains, num_temperatures, schedule,
        num_leapfrog_steps, target_acceptance, chain_batch_size, seed=seed,
    )  # fmt: skip
    found, expected = (
        draws.unconstrained.shape[1:],
        (annealing.density.batch, annealing.density.dim),
    )
    if tuple(found) != expected:
        raise ValueError(
            f"draws: of {found[0]} datapoints with {found[1]} latent numbers; the arguments have "
            f"{expected[0]} with {expected[1]}. Use those of `posterior` at the same arguments"
        )
    starts = _starts(draws, num_chains, seed, annealing.density.device)
    device = annealing.density.device
    with torch.no_grad(), randomness.stream(seed, "bounds", device):
        forward = annealed(annealing, *annealing.forward(), seed)
        weights, acceptance = annealing.reverse(starts.to(annealing.density.dtype))
        reverse = annealed(annealing, -weights, acceptance, seed)
    return BoundedEvidence(forward, reverse, draws)


def _starts(draws: Posterior, num: int, seed: int, device: torch.device) -> Tensor:
    """Draws that count alike, ``(num, batch, dim)``."""
    index = draws.systematic(num, seed)
    wide = index.unsqueeze(-1).expand(-1, -1, draws.unconstrained.shape[-1])
    return draws.unconstrained.gather(0, wide).to(device)
