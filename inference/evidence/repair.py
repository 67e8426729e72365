"""The posterior of each datapoint by the cheapest means that pass their test."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aevb.data.seeds import fresh_if_none, stream_seed
from aevb.inference.evidence.importance import estimates_from_log_weights
from aevb.inference.evidence.posterior import SOURCES, Posterior
from aevb.inference.evidence.proposals import FittedProposal, fit_proposal
from aevb.inference.evidence.psis import khat_limit, pooled_khat
from aevb.inference.evidence.weights import LogJoint, datapoint_blocks, log_weights
from aevb.inference.mcmc.diagnostics import ESS_LIMIT, RHAT_LIMIT
from aevb.inference.mcmc.hmc import hmc
from aevb.inference.process import randomness
from aevb.inference.process.limits import refuse_below
from aevb.inference.process.progress import tracked, with_progress
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.joint import Joint
from aevb.inference.programs.log_density import LogDensity
from aevb.inference.programs.protocol import ProgramPair

__all__ = ["posterior"]

# A mean under the guide is off by at most √(S/ESS − 1) of its standard deviations: a tenth.
_AS_GOOD = 0.99
# Thinning of the chains' successive attempts.
_ATTEMPTS = (1, 4, 16)


@with_progress
def posterior(
    program: ProgramPair,
    *args: Any,
    num_samples: int = 4000,
    min_ess: float = ESS_LIMIT,
    num_chains: int = 16,
    num_warmup: int = 300,
    seed: int | None = 0,
    memory_budget: int = 128 * 2**20,
    progress: bool | None = None,
) -> Posterior:
    """Draw from the posterior of each datapoint by the cheapest means that pass their test.

    In turn, and each for those datapoints alone at which what came before has failed: the guide's
    draws as they are; the guide's draws with importance weights; draws of a proposal fitted to the
    datapoint with theirs; Hamiltonian Monte Carlo from there. Weights pass where the pooled k̂
    trusts them and enough draws are effective; chains where R̂ is at most 1.01 and enough are.

    References:
        Pareto Smoothed Importance Sampling (Vehtari et al., 2024),
        https://arxiv.org/abs/1507.02646; Rank-normalization, folding, and localization: an
        improved R̂ (Vehtari et al., 2021), https://arxiv.org/abs/1903.08008

    Args:
        program: Model and guide.
        args: Arguments of both.
        num_samples: S, draws of each posterior.
        min_ess: Effective draws that it takes to pass.
        num_chains: Chains of each posterior that needs them.
        num_warmup: Their iterations before the first draw.
        seed: Of everything random; None draws one afresh.
        memory_budget: Bytes that one evaluation of the model may use.
        progress: Show progress bars; by default in notebooks alone.

    Raises:
        ValueError: As :func:`~aevb.inference.importance_evidence` and
            :func:`~aevb.inference.hmc`.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> fa, x = FactorAnalysis((5,), 2).double(), torch.zeros(3, 5).double()
        >>> posterior(fa, x)  # whose guide is exact
        Posterior(3 of 3 posteriors passed: 3 guide; 4,000 draws each, seed=0)
    """
    del progress  # see with_progress
    seed = fresh_if_none(seed)
    refuse_below(1, num_samples=num_samples, num_chains=num_chains)
    refuse_below(0, num_warmup=num_warmup)
    joint = Joint(program.model, *args, guide=program.guide)
    work = _Repair(joint, num_samples, min_ess, seed, memory_budget)
    with (
        torch.no_grad(),
        randomness.stream(seed, "posterior", joint.device),
        argument_checks(False),
    ):
        work.weigh(0, lambda part: part)
        if work.failing:
            work.weigh(2, lambda part: fit_proposal(part, memory_budget))
    for thinning in _ATTEMPTS:
        if work.failing:
            work.chains(num_chains, num_warmup, thinning)
    return work.result()


class _Repair:
    """What is known of each posterior so far."""

    def __init__(
        self, joint: Joint, num_samples: int, min_ess: float, seed: int, budget: int
    ) -> None:
        self.joint, self.num_samples, self.min_ess = joint, num_samples, min_ess
        self.seed, self.budget = seed, budget
        self.density = LogDensity(joint.model, *joint.args, guide=joint.guide)
        self.density.adopt(joint)
        batch, dim = self.density.batch, self.density.dim
        nan = torch.full((batch,), math.nan, dtype=torch.float64)
        self.unconstrained = torch.zeros(num_samples, batch, dim, dtype=self.density.dtype)
        self.log_weights = torch.zeros(num_samples, batch, dtype=torch.float64)
        self.source = torch.zeros(batch, dtype=torch.long)
        self.passed = torch.zeros(batch, dtype=torch.bool)
        self.spent = torch.zeros(batch, dtype=torch.long)
        self.figures = {
            name: nan.clone()
            for name in ("ess", "khat_pooled", "rhat", "log_evidence", "standard_error")
        }
        self.fitted: dict[int, tuple[FittedProposal, int]] = {}  # of those without a posterior

    @property
    def failing(self) -> bool:
        return not bool(self.passed.all())

    def weigh(self, source: int, proposal_of: Callable[[Joint], Joint | FittedProposal]) -> None:
        """Take weighted draws where nothing has passed."""
        chosen = torch.nonzero(~self.passed).flatten()
        blocks = list(datapoint_blocks(self.joint, self.num_samples, chosen))
        evaluate = LogJoint(self.num_samples * len(blocks), self.budget)
        what = "weights of proposals fitted" if source else "weights of the guide"
        parts = tracked(blocks, len(chosen), "posterior", what, lambda block: len(block[0]))
        for block, (places, part) in enumerate(parts):
            torch.manual_seed(stream_seed(self.seed, f"posterior/{source}/{block}"))
            proposal = proposal_of(part)
            density = LogDensity(part.model, *part.args, guide=part.guide)
            kept: list[Tensor] = []

            def draw(
                count: int,
                proposal: Joint | FittedProposal = proposal,
                density: LogDensity = density,
                kept: list[Tensor] = kept,
            ) -> tuple[dict[str, Tensor], Tensor]:
                latents, log_q = proposal.draw(count)
                kept.append(density.unconstrain(latents, count).cpu())
                return latents, log_q

            # of their own, since the guide's draws are what chose these datapoints
            seed = stream_seed(self.seed, f"weights/{source}")
            weights = log_weights(part, draw, self.num_samples, seed, block, evaluate).cpu()
            own = ~self.passed[places]  # programs that cannot be cut have all
            here = places[own]
            self.unconstrained[:, here] = torch.cat(kept)[:, own]
            self.log_weights[:, here] = weights[:, own]
            self.spent[here] += self.num_samples
            if isinstance(proposal, FittedProposal):
                self.spent[here] += proposal.num_evaluations
                self.fitted |= {int(i): (proposal, j) for j, i in enumerate(places)}
        self._judge(chosen, source)

    def _judge(self, chosen: Tensor, source: int) -> None:
        estimates = estimates_from_log_weights(self.log_weights[:, chosen])
        khat, ess = estimates["khat"], estimates["ess"]
        pooled = torch.from_numpy(pooled_khat(khat.numpy(), self.num_samples))
        for name, values in (*estimates.items(), ("khat_pooled", pooled)):
            if name in self.figures:
                self.figures[name][chosen] = values
        self.passed[chosen] = (pooled <= khat_limit(self.num_samples)) & (ess >= self.min_ess)
        weighted = ess < _AS_GOOD * self.num_samples
        self.source[chosen] = source + weighted.long() if source == 0 else source
        total = torch.logsumexp(self.log_weights[:, chosen], 0)
        normalized = (self.log_weights[:, chosen] - total).nan_to_num(-math.log(self.num_samples))
        if source == 0:
            normalized = torch.where(weighted, normalized, -math.log(self.num_samples))
        self.log_weights[:, chosen] = normalized

    def chains(self, num_chains: int, num_warmup: int, thinning: int) -> None:
        """Chains from weighted draws of the fit, where nothing has passed."""
        chosen = torch.nonzero(~self.passed).flatten()
        each = math.ceil(self.num_samples / num_chains)
        for block, (places, part) in enumerate(datapoint_blocks(self.joint, 1, chosen)):
            fits = [self.fitted[int(place)] for place in places]
            covariance = torch.stack([fit.covariance[place] for fit, place in fits])
            with randomness.stream(self.seed, f"chains {thinning} {block}", torch.device("cpu")):
                shares = self.log_weights[:, places].exp().T
                start = torch.multinomial(shares, num_chains, replacement=True).T
            index = start.unsqueeze(-1).expand(-1, -1, self.density.dim)
            u = self.unconstrained[:, places].gather(0, index)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # the result says what failed
                draws = hmc(
                    part.model, *part.args, num_chains=num_chains, num_samples=each,
                    num_warmup=num_warmup, thinning=thinning,
                    seed=stream_seed(self.seed, f"hmc {thinning} {block}"),
                    start=u.to(self.joint.device),
                    covariance=covariance.to(self.joint.device, self.density.dtype),
                )  # fmt: skip
            rhat, ess = draws.rhat.reshape(-1).cpu(), draws.ess_bulk.reshape(-1).cpu()
            own = ~self.passed[places]
            here = places[own]
            flat = draws.unconstrained.flatten(0, 1)[: self.num_samples].cpu()
            self.unconstrained[:, here] = flat[:, own]
            self.log_weights[:, here] = -math.log(self.num_samples)
            self.source[here] = SOURCES.index("hmc")
            self.figures["rhat"][here], self.figures["ess"][here] = rhat[own], ess[own]
            self.figures["khat_pooled"][here] = math.nan
            steps = draws.stats["n_steps"].double().mean() * num_chains
            self.spent[here] += int(3 * steps * (num_warmup + each * thinning))
            sound = (rhat <= RHAT_LIMIT) & (ess >= self.min_ess) & ~draws.suspicious.cpu()
            self.passed[here] = sound[own]

    def result(self) -> Posterior:
        """Of all posteriors."""
        with torch.no_grad():
            samples = self.density.constrain(self.unconstrained.to(self.joint.device))
        return Posterior(
            {name: value.cpu() for name, value in samples.items()}, self.unconstrained,
            self.log_weights, self.source, self.passed, **self.figures,
            num_evaluations=self.spent, seed=self.seed, data_dims=self.density.data_dims,
        )  # fmt: skip
