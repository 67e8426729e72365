"""Hamiltonian Monte Carlo over every chain and every datapoint at once."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aevb.data.seeds import fresh_if_none
from aevb.inference.mcmc.difficulties import Funnel, funnel_of
from aevb.inference.mcmc.draws import Draws, SamplerState, warn_of
from aevb.inference.mcmc.functions import FunctionDensity
from aevb.inference.mcmc.metrics import Dense, Diagonal, Metric
from aevb.inference.mcmc.path_gradients import PathGradient
from aevb.inference.mcmc.preconditioning import choose_kind
from aevb.inference.mcmc.sampler import Sampler, begun
from aevb.inference.process import randomness
from aevb.inference.process.limits import refuse_below
from aevb.inference.process.progress import progress_bar, with_progress
from aevb.inference.programs.log_density import LogDensity

__all__ = ["hmc"]

Start = Callable[[LogDensity, int], Tensor] | Tensor
# A guide's draws of which its covariance is made.
_GUIDE_DRAWS = 400


@with_progress
def hmc(
    model: Callable[..., Any] | None = None,
    *args: Any,
    num_chains: int | None = None,
    num_samples: int = 500,
    num_warmup: int = 500,
    seed: int | None = 0,
    guide: Callable[..., Any] | None = None,
    start: Start = LogDensity.prior_draws,
    covariance: Tensor | None = None,
    mass: str = "auto",
    log_density: Callable[[Tensor], Tensor] | None = None,
    target_acceptance: float = 0.8,
    max_num_steps: int = 100,
    thinning: int = 1,
    chain_batch_size: int | None = None,
    state: SamplerState | None = None,
    progress: bool | None = None,
) -> Draws:
    """Sample every posterior of a model by Hamiltonian Monte Carlo.

    Where all sites lie in the rightmost ``pyro.plate("data", ...)`` each datapoint has chains of
    its own, with step size, masses and trajectory length adapted to it alone, and what happens to
    one leaves the others' draws as they are, bit for bit. Otherwise there is one joint posterior.

    A chain that warm-up finds in a mode of less than e⁻¹⁰ of another's weight goes on from where
    another chain is; modes that count keep theirs, and R̂ tells of them.

    References:
        MCMC using Hamiltonian dynamics (Neal, 2011), https://arxiv.org/abs/1206.1901; step sizes
        as in The No-U-Turn Sampler (Hoffman & Gelman, 2014); lengths as in An Adaptive-MCMC Scheme
        for Setting Trajectory Lengths (Hoffman, Radul & Sountsov, 2021), on the widest direction

    Args:
        model: Pyro program of the joint distribution.
        args: Its arguments; they are moved to where its parameters are.
        num_chains: Independent chains of each posterior; 16, or as many as ``start`` has.
        num_samples: Draws that each chain keeps.
        num_warmup: Iterations before them, in which everything adapts.
        seed: Same seed, same draws; None draws one afresh,
            which the result records; torch's global random state is left as it was.
        guide: Pyro program whose draws set the first masses, and may be where chains start.
        start: Where chains start, ``(chains, batch, dim)``, in unconstrained coordinates; or a
            function of the density and ``num_chains`` that returns it: ``LogDensity.prior_draws``,
            which is over-dispersed as R̂ wants it, ``LogDensity.guide_draws``, or another.
        covariance: Of each posterior, ``(batch, dim, dim)``, about, in the same coordinates: the
            first inverse masses. Warm-up refines them from 20 iterations on.
        mass: ``"dense"``, a matrix for each posterior; ``"low-rank"``, a diagonal and 32
            directions; ``"diagonal"``; or ``"auto"``: dense up to 128 dimensions, then low-rank.
        log_density: To be sampled in place of a model: a function of ``(chains, batch, dim)``
            that returns ``(chains, batch)``, in nats, up to a constant of each posterior. With a
            ``start`` of ``(chains, dim)`` there is one joint posterior, and the function takes
            that and returns ``(chains,)``. The draws are ``samples["u"]``.
        target_acceptance: What step sizes aim at, as the mean over chains.
        max_num_steps: Of one trajectory.
        thinning: Iterations for each draw that is kept.
        chain_batch_size: Chains evaluated at once, to bound the memory.
        state: ``draws.state`` to go on from, in place of a start.
        progress: Show progress bars; by default in notebooks alone.

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
    del progress  # see with_progress
    seed = fresh_if_none(seed)
    if num_chains is None:
        num_chains = len(start) if isinstance(start, Tensor) else 16
    refuse_below(
        1, num_chains=num_chains, num_samples=num_samples, thinning=thinning,
        chain_batch_size=chain_batch_size,
    )  # fmt: skip
    refuse_below(0, num_warmup=num_warmup)
    if not 0 < target_acceptance < 1:
        raise ValueError(f"target_acceptance: must lie in (0, 1); got {target_acceptance}")
    density = _density(model, args, guide, log_density, start)
    kind = choose_kind(mass, density.batch, density.dim)
    iterations = num_warmup + num_samples * thinning
    with (
        torch.no_grad(),
        randomness.stream(seed, "hmc", density.device),
        progress_bar(iterations, "iteration", description="HMC") as bar,
    ):
        work = iterations * 4  # steps of a trajectory, about
        evaluate = PathGradient(density, chain_batch_size, work)
        if state is None:
            metric = _first_metric(density, covariance, kind)
            u = _positions(density, start, num_chains)
            state = begun(evaluate, u, metric, target_acceptance)
        sampler = Sampler(evaluate, state, target_acceptance, max_num_steps, kind)
        sampler.warm_up(num_warmup, bar.update)
        kept, stats = [], []
        for number in range(num_samples * thinning):
            stat = sampler.iterate()
            bar.update()
            if (number + 1) % thinning == 0:
                kept.append(sampler.point.u)
                stats.append(stat)
        unconstrained = torch.stack(kept, 1)
        merged = {name: torch.stack([stat[name] for stat in stats], 1) for name in stats[0]}
        if not density.is_local:
            merged = {name: value.squeeze(-1) for name, value in merged.items()}
        draws = Draws(
            density.constrain(unconstrained), unconstrained, merged, sampler.step_size,
            sampler.length, sampler.metric, density.is_local, num_warmup, seed,
            sampler.state(),
        )  # fmt: skip

    def funnel(place: int) -> Funnel | None:
        if isinstance(density, FunctionDensity):
            return None
        with torch.no_grad(), randomness.stream(seed, "funnel", density.device):
            return funnel_of(density, draws.unconstrained, place)

    warn_of(draws, max_num_steps, funnel)
    return draws


def _density(
    model: Callable[..., Any] | None,
    args: tuple[Any, ...],
    guide: Callable[..., Any] | None,
    function: Callable[[Tensor], Tensor] | None,
    start: Start,
) -> LogDensity | FunctionDensity:
    if (model is None) == (function is None):
        raise ValueError("hmc: expected a model or a log_density, and not both")
    if not callable(start) and not isinstance(start, Tensor):
        raise ValueError(
            f"start: expected a function as LogDensity.prior_draws, or positions; got {start!r}"
        )
    if model is not None:
        return LogDensity(model, *args, guide=guide)
    if function is None or not isinstance(start, Tensor):
        raise ValueError("start: a log_density needs positions, (chains, batch, dim)")
    if guide is not None or args:
        raise ValueError("log_density: takes neither a guide nor other arguments")
    return FunctionDensity(function, start)


def _first_metric(
    density: LogDensity | FunctionDensity, covariance: Tensor | None, kind: str
) -> Metric:
    """From the covariance or the guide if there is one; else unit masses."""
    shape = density.batch, density.dim, density.dim
    if covariance is not None:
        if covariance.shape != shape:
            raise ValueError(f"covariance: expected {shape}; got {tuple(covariance.shape)}")
        covariance = covariance.to(density.device, torch.float64)
        if kind == "diagonal":
            scale = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
            return Diagonal(scale.to(density.dtype))
        return Dense(Dense.of(covariance).factor.to(density.dtype))
    if isinstance(density, FunctionDensity) or not density.has_guide:
        return Diagonal(torch.ones(shape[:2], dtype=density.dtype, device=density.device))
    draws = density.guide_draws(_GUIDE_DRAWS).double()
    deviation = draws - draws.mean(0)
    variance = deviation.square().mean(0).clamp(min=1e-10)
    if kind != "dense" or density.dim > _GUIDE_DRAWS // 10:
        return Diagonal(variance.sqrt().to(density.dtype))
    matrix = torch.einsum("sbi,sbj->bij", deviation, deviation) / len(draws)
    matrix = 0.95 * matrix + 0.05 * torch.diag_embed(variance)
    return Dense(Dense.of(matrix).factor.to(density.dtype))


def _positions(density: LogDensity | FunctionDensity, start: Start, num_chains: int) -> Tensor:
    shape = num_chains, density.batch, density.dim
    if isinstance(start, Tensor):
        is_flat = isinstance(density, FunctionDensity) and not density.is_local
        u = start.unsqueeze(1) if is_flat else start
    elif isinstance(density, FunctionDensity):
        raise ValueError("start: a log_density needs positions, (chains, batch, dim)")
    else:
        u = start(density, num_chains)
    if u.shape != shape:
        raise ValueError(f"start: expected positions {shape}; got {tuple(u.shape)}")
    return u.detach().to(density.device, density.dtype)
