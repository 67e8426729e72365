"""Hamiltonian Monte Carlo over every chain and every datapoint at once."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aevb.inference.mcmc import kernel
from aevb.inference.mcmc.adaptation import (
    ChEES,
    DualAveraging,
    first_step_size,
    halton,
    regularized_variance,
    warmup_windows,
)
from aevb.inference.mcmc.draws import Draws, SamplerState, warn_of
from aevb.inference.mcmc.path_gradients import PathGradient
from aevb.inference.process import randomness
from aevb.inference.process.limits import refuse_below
from aevb.inference.programs.log_density import LogDensity

__all__ = ["hmc"]

# What a chain that is stuck counts for when steps adapt.
_LEAST_RATE = 0.01

Start = Callable[[LogDensity, int], Tensor]


def hmc(
    model: Callable[..., Any],
    *args: Any,
    num_chains: int = 16,
    num_samples: int = 500,
    num_warmup: int = 500,
    seed: int = 0,
    guide: Callable[..., Any] | None = None,
    start: Start = LogDensity.prior_draws,
    target_acceptance: float = 0.8,
    max_num_steps: int = 100,
    thinning: int = 1,
    chain_batch_size: int | None = None,
    state: SamplerState | None = None,
) -> Draws:
    """Sample every posterior of a model by Hamiltonian Monte Carlo.

    Where all sites lie in the rightmost ``pyro.plate("data", ...)`` each datapoint has chains of
    its own, with step size, masses and trajectory length adapted to it alone, and what happens to
    one leaves the others' draws as they are, bit for bit. Otherwise there is one joint posterior.

    References:
        MCMC using Hamiltonian dynamics (Neal, 2011), https://arxiv.org/abs/1206.1901; step sizes
        as in The No-U-Turn Sampler (Hoffman & Gelman, 2014); lengths as in An Adaptive-MCMC Scheme
        for Setting Trajectory Lengths (Hoffman, Radul & Sountsov, 2021)

    Args:
        model: Pyro program of the joint distribution.
        args: Its arguments; they are moved to where its parameters are.
        num_chains: Independent chains of each posterior.
        num_samples: Draws that each chain keeps.
        num_warmup: Iterations before them, in which everything adapts.
        seed: Same seed, same draws; torch's global random state is left as it was.
        guide: Pyro program whose draws set the first masses, and may be where chains start.
        start: Function of the density and ``num_chains`` that returns where chains start,
            ``(chains, batch, dim)``: ``LogDensity.prior_draws``, which is over-dispersed as R̂
            wants it, ``LogDensity.guide_draws``, or another.
        target_acceptance: What step sizes aim at, as the harmonic mean over chains; the ordinary
            mean comes out higher.
        max_num_steps: Of one trajectory.
        thinning: Iterations for each draw that is kept.
        chain_batch_size: Chains evaluated at once, to bound the memory.
        state: ``draws.state`` to go on from, in place of a start.

    Raises:
        ValueError: If a number is out of range, the model has discrete latents, cannot be
            evaluated at several draws at once, or no chain starts where the density is finite.

    Warns:
        UserWarning: If a posterior has a chain that never moved, or often diverges; if chains
            have not mixed, which is where R̂ is above 1.01, or above what so few independent draws
            may have by chance; if ``max_num_steps`` ends more than half of the trajectories.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> fa = FactorAnalysis((5,), 2)
        >>> draws = hmc(fa.model, torch.zeros(3, 5), num_chains=4, num_samples=50)
        >>> draws.samples["z"].shape
        torch.Size([4, 50, 3, 2])
    """
    refuse_below(
        1, num_chains=num_chains, num_samples=num_samples, thinning=thinning,
        chain_batch_size=chain_batch_size,
    )  # fmt: skip
    refuse_below(0, num_warmup=num_warmup)
    if not 0 < target_acceptance < 1:
        raise ValueError(f"target_acceptance: must lie in (0, 1); got {target_acceptance}")
    if not callable(start):
        raise ValueError(f"start: expected a function as LogDensity.prior_draws; got {start!r}")
    density = LogDensity(model, *args, guide=guide)
    with torch.no_grad(), randomness.stream(seed, "hmc", density.device):
        work = (num_warmup + num_samples * thinning) * 5
        evaluate = PathGradient(density, chain_batch_size, work)
        if state is None:
            state = _begun(evaluate, num_chains, start, target_acceptance)
        sampler = _Sampler(evaluate, state, target_acceptance, max_num_steps)
        sampler.warm_up(num_warmup)
        kept, stats = [], []
        for number in range(num_samples * thinning):
            stat = sampler.iterate()
            if (number + 1) % thinning == 0:
                kept.append(sampler.point.u)
                stats.append(stat)
        unconstrained = torch.stack(kept, 1)
        merged = {name: torch.stack([stat[name] for stat in stats], 1) for name in stats[0]}
        if not density.is_local:
            merged = {name: value.squeeze(-1) for name, value in merged.items()}
        draws = Draws(
            density.constrain(unconstrained), unconstrained, merged, sampler.step_size,
            sampler.length, sampler.inverse_mass, density.is_local, num_warmup, seed,
            sampler.state(),
        )  # fmt: skip
    warn_of(draws, max_num_steps)
    return draws


class _Sampler:
    def __init__(
        self, evaluate: PathGradient, state: SamplerState, target: float, max_num_steps: int
    ) -> None:
        self.evaluate, self.density = evaluate, evaluate.density
        batch, dim = self.density.batch, self.density.dim
        if state.u.shape[1:] != (batch, dim):
            raise ValueError(
                f"state: is of {state.u.shape[1]} posteriors of {state.u.shape[2]} dimensions; "
                f"the model has {batch} of {dim}"
            )
        self.point = kernel.init(state.u, evaluate)
        self.inverse_mass, self.iteration = state.inverse_mass, state.iteration
        self.steps = DualAveraging(state.steps.average.clone(), target)
        self.lengths = ChEES(state.lengths.average.clone())
        self.max_num_steps = max_num_steps
        self.adapting = False
        randomness.restore_torch(state.random, self.density.device)

    def state(self) -> SamplerState:
        """To go on from."""
        return SamplerState(
            self.point.u, self.inverse_mass, self.steps, self.lengths, self.iteration,
            randomness.capture_torch(self.density.device),
        )  # fmt: skip

    @property
    def step_size(self) -> Tensor:
        """Of the next trajectory, ``(batch,)``."""
        return (self.steps.log_step if self.adapting else self.steps.average).exp()

    @property
    def length(self) -> Tensor:
        """Longest trajectory, ``(batch,)``."""
        return (self.lengths.log_length if self.adapting else self.lengths.average).exp()

    def warm_up(self, num_warmup: int) -> None:
        """Adapt step sizes and lengths at each iteration, masses at the ends of windows."""
        ends = warmup_windows(num_warmup)
        first = int(0.15 * num_warmup)
        window: list[Tensor] = []
        self.adapting = True
        for number in range(num_warmup):
            self.iterate()
            if ends and first <= number < ends[-1]:
                window.append(self.point.u)
            if number + 1 in ends:
                self.inverse_mass = regularized_variance(torch.cat(window)).to(self.density.dtype)
                window = []
                self.steps.log_step = self.steps.average
                self.steps.restart()
                self.lengths = ChEES(self.lengths.log_length)
        self.adapting = False

    def iterate(self) -> dict[str, Tensor]:
        """One trajectory of every chain; returns what is recorded of it."""
        jitter = halton(self.iteration)
        self.iteration += 1
        step_size, inverse_mass = self.step_size, self.inverse_mass
        num_steps = torch.ceil(jitter * self.length / step_size).clamp(1, self.max_num_steps)
        before = self.point
        self.point, info = kernel.step(before, self.evaluate, step_size, inverse_mass, num_steps)
        if self.adapting:
            # the harmonic mean, so that a chain that is stuck shortens the steps of all
            rate = info.acceptance_rate.clamp(min=_LEAST_RATE)
            self.steps.update(len(rate) / (1 / rate).sum(0))
            whiten = inverse_mass.sqrt()
            self.lengths.update(
                before.u / whiten,
                info.proposal.end.u / whiten,
                info.proposal.momentum * whiten,
                info.acceptance_rate,
                jitter,
            )
        shape = before.log_density.shape
        return {
            "acceptance_rate": info.acceptance_rate,
            "energy_error": info.energy_error,
            "energy": info.energy,
            "lp": self.point.log_density,
            "diverging": info.diverging,
            "step_size": step_size.expand(shape),
            "n_steps": num_steps.long().expand(shape),
        }


def _begun(evaluate: PathGradient, num_chains: int, start: Start, target: float) -> SamplerState:
    """First positions, masses, step sizes and lengths."""
    density = evaluate.density
    shape = (num_chains, density.batch, density.dim)
    inverse_mass = torch.ones(shape[1:], dtype=density.dtype, device=density.device)
    if density.has_guide:
        proposals = density.guide_draws(max(100, num_chains))
        inverse_mass = proposals.double().var(0).to(density.dtype).clamp(min=1e-10)
    u = start(density, num_chains)
    if u.shape != shape:
        raise ValueError(f"start: expected positions {shape}; got {tuple(u.shape)}")
    point = kernel.init(u, evaluate)
    if not bool(torch.isfinite(point.log_density).any()):
        density.refuse_nan(u)
        raise ValueError("model: no chain starts where the density is finite")
    log_step = first_step_size(evaluate, point, inverse_mass).log()
    return SamplerState(
        u, inverse_mass, DualAveraging(log_step, target), ChEES(torch.zeros_like(log_step)), 0,
        randomness.capture_torch(density.device),
    )  # fmt: skip
