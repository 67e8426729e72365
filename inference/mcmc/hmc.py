"""Hamiltonian Monte Carlo over every chain and every datapoint at once."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from aevb.inference.mcmc.adaptation import (
    ChEES,
    DualAveraging,
    RunningVariance,
    halton,
    warmup_windows,
)
from aevb.inference.mcmc.diagnostics import bulk_ess, rank_rhat, tail_ess, unmixed
from aevb.inference.mcmc.integrators import Point, kinetic_energy, leapfrog, metropolis
from aevb.inference.mcmc.path_gradients import STARTS, PathGradient
from aevb.inference.process import randomness
from aevb.inference.process.devices import device_of
from aevb.inference.programs.log_density import LogDensity

__all__ = ["Draws", "SamplerState", "draw_momentum", "first_step_size", "hmc"]

# An error of energy, in nats, that no useful step makes.
DIVERGENCE = 1000.0
# Share of trajectories beyond which the bound on their steps is said to be what ends them.
CUT_SHORT = 0.5
# What a chain that is stuck counts for when steps adapt.
_LEAST_RATE = 0.01


@dataclass
class SamplerState:
    """All that a sampler needs to go on to the last bit.

    Attributes:
        u: Positions, ``(chains, batch, dim)``.
        inverse_mass: ``(batch, dim)``.
        steps: Step sizes and what adapts them.
        lengths: Trajectory lengths and what adapts them.
        iteration: Iterations so far, warm-up included.
        random: State of torch's generators.
    """

    u: Tensor
    inverse_mass: Tensor
    steps: DualAveraging
    lengths: ChEES
    iteration: int
    random: dict[str, Any]


@dataclass(frozen=True)
class Draws:
    """What Hamiltonian Monte Carlo drew.

    Attributes:
        samples: Draws of each latent site, ``(chains, draws, *plates, *event)``.
        unconstrained: The same as real vectors, ``(chains, draws, batch, dim)``.
        stats: ``acceptance_rate``, ``energy_error`` (nats), ``energy``, ``lp``, ``diverging``,
            ``step_size`` and ``n_steps``, each ``(chains, draws, batch)``, or
            ``(chains, draws)`` for a joint posterior.
        step_size: ``(batch,)``.
        trajectory_length: Longest, in units of time with unit masses, ``(batch,)``.
        inverse_mass: Diagonal, ``(batch, dim)``.
        is_local: Whether there is one posterior for each datapoint.
        num_warmup: Iterations before the draws.
        seed: Of everything random.
        state: To go on from.
    """

    samples: dict[str, Tensor]
    unconstrained: Tensor
    stats: dict[str, Tensor]
    step_size: Tensor
    trajectory_length: Tensor
    inverse_mass: Tensor
    is_local: bool
    num_warmup: int
    seed: int
    state: SamplerState

    @property
    def divergences(self) -> Tensor:
        """Divergent transitions of each posterior, ``(batch,)``, or ``()``."""
        return self.stats["diverging"].sum((0, 1))

    @cached_property
    def rhat(self) -> Tensor:
        """R̂ of ranks, the largest over dimensions, ``(batch,)`` or ``()``; above 1.01 is bad.

        Computed when it is first asked for, in unconstrained coordinates; NaN with fewer than two
        chains or four draws, and where all draws are equal.
        """
        return self._over_dimensions(rank_rhat, Tensor.amax)

    @cached_property
    def ess_bulk(self) -> Tensor:
        """Effective draws for the middle of each posterior, the least over dimensions."""
        return self._over_dimensions(bulk_ess, Tensor.amin)

    @cached_property
    def ess_tail(self) -> Tensor:
        """Effective draws for the 5 and 95 % quantiles, the least over dimensions."""
        return self._over_dimensions(tail_ess, Tensor.amin)

    @property
    def suspicious(self) -> Tensor:
        """Posteriors with a chain that never moved, or one divergence in a hundred draws."""
        moved = (self.unconstrained != self.unconstrained[:, :1]).any(-1).any(1).all(0)
        diverging = self.divergences.reshape(-1) > 0.01 * self.unconstrained[:, :, 0, 0].numel()
        stuck = ~moved if self.unconstrained.shape[1] > 1 else torch.zeros_like(moved)
        return stuck | diverging

    def _over_dimensions(
        self, statistic: Callable[[Tensor], Tensor], worst: Callable[..., Tensor]
    ) -> Tensor:
        """NaN in one dimension is NaN in the worst."""
        found = worst(statistic(self.unconstrained), -1)
        return found if self.is_local else found[0]

    def __repr__(self) -> str:
        """One line."""
        chains, num, batch, dim = self.unconstrained.shape
        posteriors = f"{batch} posteriors" if self.is_local else "a joint posterior"
        return (
            f"Draws({chains} chains × {num} draws of {posteriors} of {dim} dimensions, acceptance "
            f"{float(self.stats['acceptance_rate'].mean()):.2f}, "
            f"{int(self.divergences.sum())} divergences, seed={self.seed})"
        )


def hmc(
    model: Callable[..., Any],
    *args: Any,
    num_chains: int = 16,
    num_samples: int = 500,
    num_warmup: int = 500,
    seed: int = 0,
    guide: Callable[..., Any] | None = None,
    start: str = "prior",
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
        start: ``"prior"``, which is over-dispersed as R̂ wants it, or ``"guide"``.
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
    _check(num_chains, num_samples, num_warmup, start, guide, target_acceptance, thinning)
    device = device_of(model, guide, args=args)
    with torch.no_grad(), randomness.stream(seed, "hmc", device):
        density = LogDensity(model, *args, guide=guide)
        work = (num_warmup + num_samples * thinning) * 5
        evaluate = PathGradient(density, None, chain_batch_size, work)
        sampler = _Sampler(evaluate, target_acceptance, max_num_steps)
        if state is None:
            sampler.begin(num_chains, start)
        else:
            sampler.resume(state)
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
    _warn(draws, max_num_steps)
    return draws


class _Sampler:
    def __init__(self, evaluate: PathGradient, target: float, max_num_steps: int) -> None:
        self.evaluate = evaluate
        self.density = evaluate.density
        self.target = target
        self.max_num_steps = max_num_steps
        self.adapting = False

    def begin(self, num_chains: int, start: str) -> None:
        """First positions, masses, step sizes and lengths."""
        density = self.density
        self.inverse_mass = torch.ones(
            density.batch, density.dim, dtype=density.dtype, device=density.device
        )
        if density.has_guide:
            proposals = density.guide_draws(max(100, num_chains))
            self.inverse_mass = proposals.double().var(0).to(density.dtype).clamp(min=1e-10)
        u = density.prior_draws(num_chains) if start == "prior" else proposals[:num_chains]
        self.point = self.evaluate(u)
        self._refuse_bad_start()
        self.iteration = 0
        log_step = first_step_size(self.evaluate, self.point, self.inverse_mass).log()
        self.steps = DualAveraging(log_step, self.target)
        self.lengths = ChEES(torch.zeros_like(log_step))

    def resume(self, state: SamplerState) -> None:
        """Go on from a state.

        Raises:
            ValueError: If it belongs to other posteriors.
        """
        density = self.density
        if state.u.shape[1:] != (density.batch, density.dim):
            raise ValueError(
                f"state: is of {state.u.shape[1]} posteriors of {state.u.shape[2]} dimensions; "
                f"the model has {density.batch} of {density.dim}"
            )
        self.point = self.evaluate(state.u)
        self.inverse_mass = state.inverse_mass
        self.steps = DualAveraging(state.steps.average.clone(), self.target)
        self.lengths = ChEES(state.lengths.average.clone())
        self.iteration = state.iteration
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
        moments = RunningVariance(self.density.batch, self.density.dim)
        self.adapting = True
        for number in range(num_warmup):
            self.iterate()
            if ends and first <= number < ends[-1]:
                moments.update(self.point.u)
            if number + 1 in ends:
                self.inverse_mass = moments.regularized().to(self.density.dtype)
                moments = RunningVariance(self.density.batch, self.density.dim)
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
        momentum = draw_momentum(self.point.u, inverse_mass)
        proposal = leapfrog(
            self.evaluate, self.point, momentum, step_size, inverse_mass, num_steps
        )
        uniform = torch.rand_like(self.point.log_density)
        moved = metropolis(self.point, proposal, momentum, inverse_mass, uniform)
        if self.adapting:
            # the harmonic mean, so that a chain that is stuck shortens the steps of all
            rate = moved["acceptance_rate"].clamp(min=_LEAST_RATE)
            self.steps.update(len(rate) / (1 / rate).sum(0))
            whiten = inverse_mass.sqrt()
            self.lengths.update(
                self.point.u / whiten,
                proposal.end.u / whiten,
                proposal.momentum * whiten,
                moved["acceptance_rate"],
                jitter,
            )
        self.point = moved["point"]
        shape = self.point.log_density.shape
        return {
            "acceptance_rate": moved["acceptance_rate"],
            "energy_error": moved["energy_error"],
            "energy": moved["energy"],
            "lp": self.point.log_density,
            "diverging": moved["energy_error"] > DIVERGENCE,
            "step_size": step_size.expand(shape),
            "n_steps": num_steps.long().expand(shape),
        }

    def _refuse_bad_start(self) -> None:
        finite = torch.isfinite(self.point.log_density)
        if not bool(finite.any()):
            self.density.refuse_nan(self.point.u)
            raise ValueError("model: no chain starts where the density is finite")


def draw_momentum(u: Tensor, inverse_mass: Tensor) -> Tensor:
    """Normal momenta of the given masses, like ``u``."""
    return torch.randn_like(u) / inverse_mass.sqrt()


def first_step_size(
    evaluate: Callable[[Tensor], Point], point: Point, inverse_mass: Tensor
) -> Tensor:
    """Steps so long that one of them is accepted with about 0.8, ``(batch,)``, float64.

    References:
        The No-U-Turn Sampler (Hoffman & Gelman, 2014), algorithm 4
    """
    batch = point.u.shape[1]
    step = torch.ones(batch, dtype=torch.float64, device=point.u.device)
    one = torch.ones(batch, device=point.u.device)
    momentum = draw_momentum(point.u, inverse_mass)
    start = kinetic_energy(momentum, inverse_mass) - point.log_density
    going = torch.ones_like(step, dtype=torch.bool)
    grows = None
    for _ in range(40):
        end = leapfrog(evaluate, point, momentum, step, inverse_mass, one)
        error = kinetic_energy(end.momentum, inverse_mass) - end.end.log_density - start
        rate = torch.exp(-torch.where(torch.isfinite(error), error, torch.inf).clamp(min=0))
        good = rate.mean(0) > 0.8
        grows = good if grows is None else grows
        going = going & (good == grows) & (step < 1e3) & (step > 1e-7)
        if not bool(going.any()):
            break
        step = torch.where(going, step * torch.where(grows, 2.0, 0.5), step)
    return step


def _check(
    num_chains: int,
    num_samples: int,
    num_warmup: int,
    start: str,
    guide: Any,
    target: float,
    thinning: int,
) -> None:
    for name, value, least in (
        ("num_chains", num_chains, 1),
        ("num_samples", num_samples, 1),
        ("num_warmup", num_warmup, 0),
        ("thinning", thinning, 1),
    ):
        if value < least:
            raise ValueError(f"{name}: must be at least {least}; got {value}")
    if start not in STARTS:
        raise ValueError(f"start: expected one of {', '.join(STARTS)}; got {start!r}")
    if start == "guide" and guide is None:
        raise ValueError("start: 'guide' needs a guide")
    if not 0 < target < 1:
        raise ValueError(f"target_acceptance: must lie between 0 and 1; got {target}")


def _warn(draws: Draws, max_num_steps: int) -> None:
    bad = torch.nonzero(draws.suspicious).flatten()
    if len(bad):
        _warn_of(
            f"chains of {_named(draws, bad)} are stuck or diverge; do not believe these draws "
            f"({int(draws.divergences.sum())} divergences)"
        )
    apart, rhat = unmixed(draws.unconstrained)
    if len(apart):
        _warn_of(
            f"chains of {_named(draws, apart)} have not mixed: R̂ is up to {float(rhat.max()):.3f};"
            " draw more, start nearer or reparameterize"
        )
    cut = (draws.stats["n_steps"] >= max_num_steps).double().mean((0, 1)).reshape(-1)
    places = torch.nonzero(cut > CUT_SHORT).flatten()
    if len(places):
        _warn_of(
            f"trajectories of {_named(draws, places)} reach max_num_steps={max_num_steps}, up to "
            f"{float(cut.max()):.0%} of them; raise it or reparameterize"
        )


def _named(draws: Draws, places: Tensor) -> str:
    """Posteriors by number, the first ten of them."""
    shown = ", ".join(map(str, places[:10].tolist())) + (", ..." if len(places) > 10 else "")
    return f"datapoints {shown}" if draws.is_local else "the posterior"


def _warn_of(what: str) -> None:
    warnings.warn(f"HMC: {what}", stacklevel=4)
