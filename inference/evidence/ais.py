"""Annealed importance sampling, forward and in reverse, for every datapoint at once."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from aevb.inference.evidence.importance import estimates_from_log_weights
from aevb.inference.mcmc.hmc import draw_momentum, first_step_size
from aevb.inference.mcmc.integrators import Point, leapfrog, metropolis
from aevb.inference.mcmc.path_gradients import PathGradient
from aevb.inference.process import randomness
from aevb.inference.process.devices import device_of, moved
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.layouts import read_layout
from aevb.inference.programs.log_density import LogDensity
from aevb.inference.programs.simulate import simulate

__all__ = ["SCHEDULES", "AISEvidence", "BDMCEvidence", "ais_evidence", "bdmc_evidence"]

SCHEDULES = ("sigmoid", "linear", "adaptive")

# The pilot has so many chains, temperatures for each of the run's, and transitions at each.
_PILOT_CHAINS = 16
_PILOT_TEMPERATURES = 100
_PILOT_TRANSITIONS = 2
_SIGMOID_REACH = 4.0


@dataclass(frozen=True)
class AISEvidence:
    r"""Estimates of log p(x) by annealing, one for each datapoint.

    Attributes:
        log_evidence: Log of the mean weight, ``(batch,)``, in nats; in expectation a lower bound.
        standard_error: By the delta method; too small where ``ess`` is.
        ess: Effective number of the chains' weights, of ``num_chains``.
        acceptance_rate: Mean over chains and temperatures, ``(batch,)``.
        log_weights: ``(chains, batch)``, float64, in nats.
        num_chains: Chains of each datapoint.
        num_temperatures: Steps from the start to the posterior.
        schedule: How they lie.
        start: ``"prior"`` or ``"guide"``.
        seed: Of everything random.
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

    @property
    def low_ess(self) -> Tensor:
        """Where few chains carry the estimate, ``(batch,)``."""
        return self.ess < max(5.0, 0.2 * self.num_chains) - 1e-6  # for rounding

    @property
    def is_converged(self) -> Tensor:
        """Where no few chains carry the estimate and proposals are accepted, ``(batch,)``."""
        return ~self.low_ess & (self.acceptance_rate > 0.3)

    def __repr__(self) -> str:
        """One line, with means over datapoints."""
        return (
            f"AISEvidence(log_evidence={self.log_evidence.mean():.3f} mean of "
            f"{len(self.log_evidence)}, {self.num_chains} chains × {self.num_temperatures} "
            f"temperatures from the {self.start}, acceptance {self.acceptance_rate.mean():.2f}, "
            f"ESS {self.ess.mean():.1f}, seed={self.seed})"
        )


@dataclass(frozen=True)
class BDMCEvidence:
    """Bounds on log p(x) from both sides, of data that the model itself made.

    Attributes:
        lower: Estimates that are lower bounds in expectation, ``(batch,)``, in nats.
        upper: Likewise upper bounds.
        forward: The annealing behind ``lower``.
        reverse: The annealing behind ``upper``; its weights are those of the reverse. Its chains
            start from one exact draw and are not independent: it has no standard error, and its
            ``ess`` certifies nothing.
        data: Simulated observations by site.
    """

    lower: Tensor
    upper: Tensor
    forward: AISEvidence
    reverse: AISEvidence
    data: dict[str, Tensor]

    @property
    def gap(self) -> Tensor:
        """Upper less lower bound, ``(batch,)``: in expectation no less than either's error."""
        return self.upper - self.lower

    def __repr__(self) -> str:
        """One line, with means over datapoints."""
        return (
            f"BDMCEvidence({self.lower.mean():.3f} to {self.upper.mean():.3f}, mean of "
            f"{len(self.lower)} simulated datapoints, gap {self.gap.mean():.3f})"
        )


def ais_evidence(
    model: Callable[..., Any],
    *args: Any,
    num_chains: int = 16,
    num_temperatures: int = 1000,
    seed: int = 0,
    guide: Callable[..., Any] | None = None,
    schedule: str = "sigmoid",
    num_leapfrog_steps: int = 10,
    target_acceptance: float = 0.65,
    chain_batch_size: int | None = None,
) -> AISEvidence:
    r"""Estimate log p(x) of each datapoint by annealing from the prior or from the guide.

    .. math:: w = \prod_{t=1}^{T} \left( \frac{p(x, z_{t-1})}{q_0(z_{t-1})}
        \right)^{\beta_t - \beta_{t-1}}, \qquad z_0 \sim q_0

    with a trajectory of Hamiltonian Monte Carlo between weights, which leaves
    :math:`q_0^{1-\beta} p^\beta` as it is. Step sizes, for each datapoint and temperature, come
    from a pilot run with other random numbers, so that the estimate of p(x) has no bias.

    References:
        Annealed importance sampling (Neal, 2001), https://arxiv.org/abs/physics/9803008; On the
        Quantitative Analysis of Decoder-Based Generative Models (Wu, Burda, Salakhutdinov &
        Grosse, 2017), https://arxiv.org/abs/1611.04273

    Args:
        model: Pyro program of the joint distribution.
        args: Its arguments.
        num_chains: Independent weights of each datapoint.
        num_temperatures: T.
        seed: Same seed, same estimate; torch's global random state is left as it was.
        guide: Pyro program to start from; the prior if left out.
        schedule: ``"sigmoid"``, ``"linear"``, or ``"adaptive"``: temperatures of each datapoint
            lie where the pilot's weights vary, so that each step costs the same effective sample
            size.
        num_leapfrog_steps: Of each trajectory.
        target_acceptance: What the pilot's step sizes aim at.
        chain_batch_size: Chains evaluated at once, to bound the memory.

    Raises:
        ValueError: If a number is out of range, the model has discrete latents, or a
            log-probability is NaN.
        NoDensityError: If the guide is a point mass or cannot score given latents.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> fa, x = FactorAnalysis((5,), 2).double(), torch.zeros(3, 5).double()
        >>> evidence = ais_evidence(fa.model, x, guide=fa.guide, num_temperatures=10)
        >>> bool((evidence.log_evidence - fa.log_evidence(x)).abs().max() < 1e-8)
        True
    """
    _check(num_chains, num_temperatures, schedule, num_leapfrog_steps, target_acceptance)
    start = "prior" if guide is None else "guide"
    device = device_of(model, guide, args=args)
    with torch.no_grad(), randomness.stream(seed, "ais", device):
        _refuse_points(model, guide, args)
        density = LogDensity(model, *args, guide=guide)
        annealing = _Annealing(
            density, start, num_temperatures, num_leapfrog_steps, target_acceptance,
            chain_batch_size,
        )  # fmt: skip
        annealing.pilot(schedule)
        weights, acceptance = annealing.forward(annealing.first(num_chains))
    return _evidence(weights, acceptance, num_temperatures, schedule, start, seed)


def bdmc_evidence(
    model: Callable[..., Any],
    *args: Any,
    num_chains: int = 16,
    num_temperatures: int = 1000,
    seed: int = 0,
    guide: Callable[..., Any] | None = None,
    schedule: str = "sigmoid",
    num_leapfrog_steps: int = 10,
    target_acceptance: float = 0.65,
    chain_batch_size: int | None = None,
) -> BDMCEvidence:
    """Bound log p(x) of simulated data from both sides, to certify a setting of AIS.

    Data of the arguments' shape are drawn from the model with their latents, which are exact draws
    of the posterior; the reverse chains start from them and anneal to the start.

    References:
        Sandwiching the marginal likelihood using bidirectional Monte Carlo (Grosse, Ghahramani &
        Adams, 2015), https://arxiv.org/abs/1511.02543

    Args:
        model: Pyro program of the joint distribution.
        args: Its arguments; of observed ones only the shape matters.
        num_chains: As for :func:`ais_evidence`, as are the others.
        num_temperatures: T.
        seed: Of everything random.
        guide: Pyro program to start from; the prior if left out.
        schedule: How the temperatures lie.
        num_leapfrog_steps: Of each trajectory.
        target_acceptance: What the pilot's step sizes aim at.
        chain_batch_size: Chains evaluated at once.

    Raises:
        ValueError: As :func:`ais_evidence`; or if the model observes nothing.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> fa = FactorAnalysis((5,), 2).double()
        >>> bounds = bdmc_evidence(fa.model, torch.zeros(3, 5).double(), num_temperatures=50)
        >>> bounds.gap.shape
        torch.Size([3])
    """
    _check(num_chains, num_temperatures, schedule, num_leapfrog_steps, target_acceptance)
    start = "prior" if guide is None else "guide"
    device = device_of(model, guide, args=args)
    with torch.no_grad(), randomness.stream(seed, "bdmc", device):
        simulation = simulate(model, *moved(args, device))
        _refuse_points(simulation.model, guide, simulation.args)
        density = LogDensity(simulation.model, *simulation.args, guide=guide)
        annealing = _Annealing(
            density, start, num_temperatures, num_leapfrog_steps, target_acceptance,
            chain_batch_size,
        )  # fmt: skip
        annealing.pilot(schedule)
        forward = annealing.forward(annealing.first(num_chains))
        latents = {name: value.unsqueeze(0) for name, value in simulation.latents.items()}
        exact = density.unconstrain(latents, 1).expand(num_chains, -1, -1)
        reverse = annealing.reverse(exact)
    below = _evidence(*forward, num_temperatures, schedule, start, seed)
    above = _evidence(-reverse[0], reverse[1], num_temperatures, schedule, start, seed)
    # its chains all start from one exact draw, so that their spread says nothing of the error
    above = replace(above, standard_error=torch.full_like(above.standard_error, torch.nan))
    return BDMCEvidence(below.log_evidence, -above.log_evidence, below, above, simulation.data)


class _Annealing:
    """Temperatures, step sizes, and the chains that use them."""

    def __init__(
        self,
        density: LogDensity,
        start: str,
        num_temperatures: int,
        num_leapfrog_steps: int,
        target: float,
        chain_batch_size: int | None,
    ) -> None:
        self.density, self.start = density, start
        self.num_temperatures = num_temperatures
        self.num_steps = torch.full((density.batch,), num_leapfrog_steps, device=density.device)
        self.target = target
        evaluations = num_temperatures * (num_leapfrog_steps + 1)
        self.path = PathGradient(density, start, chain_batch_size, evaluations)
        spread = self.first(100).double().var(0).clamp(min=1e-10)
        self.inverse_mass = spread.to(density.dtype)

    def first(self, num_chains: int) -> Tensor:
        """Draws from where the path begins."""
        draws = self.density.prior_draws if self.start == "prior" else self.density.guide_draws
        return draws(num_chains)

    def pilot(self, schedule: str) -> None:
        """Learn step sizes, and temperatures if they adapt, from a short run."""
        count = min(_PILOT_TEMPERATURES, self.num_temperatures)
        base = _spaced("linear" if schedule == "linear" else "sigmoid", count)
        betas = base.to(self.density.device).unsqueeze(-1).expand(-1, self.density.batch)
        u = self.first(_PILOT_CHAINS)
        point = self.path(u, betas[1])
        self._refuse_nan(point)
        log_step = first_step_size(
            lambda position: self.path(position, betas[1]), point, self.inverse_mass
        ).log()
        log_steps, spreads = [], []
        for beta in betas[1:]:
            for _ in range(_PILOT_TRANSITIONS):
                point, rate = self._transition(point.u, beta, log_step)
                error = rate.mean(0) - self.target
                log_step = (log_step + 0.3 * error).clamp(-18.0, 3.0)
            log_steps.append(log_step)
            spreads.append(_robust_spread(point.tilt))
        self.betas, self.log_steps = _arranged(
            betas, torch.stack(log_steps), torch.stack(spreads), schedule, self.num_temperatures
        )

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Log-weights ``(chains, batch)`` and mean acceptance ``(batch,)``."""
        total = u.new_zeros(u.shape[:2], dtype=torch.float64)
        rates = torch.zeros_like(total[0])
        point = self.path(u, self.betas[1])
        self._refuse_nan(point)
        for number in range(1, self.num_temperatures + 1):
            total = total + (self.betas[number] - self.betas[number - 1]) * point.tilt
            if number < self.num_temperatures:
                point, rate = self._transition(
                    point.u, self.betas[number], self.log_steps[number - 1]
                )
                rates = rates + rate.mean(0)
        return total, rates / max(1, self.num_temperatures - 1)

    def reverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """The same from exact draws of the posterior back to the start."""
        total = u.new_zeros(u.shape[:2], dtype=torch.float64)
        rates = torch.zeros_like(total[0])
        point = self.path(u, self.betas[-1])
        for number in range(self.num_temperatures, 0, -1):
            total = total + (self.betas[number] - self.betas[number - 1]) * point.tilt
            if number > 1:
                point, rate = self._transition(
                    point.u, self.betas[number - 1], self.log_steps[number - 2]
                )
                rates = rates + rate.mean(0)
        return total, rates / max(1, self.num_temperatures - 1)

    def _transition(self, u: Tensor, beta: Tensor, log_step: Tensor) -> tuple[Point, Tensor]:
        """A trajectory that leaves the density at ``beta`` as it is; returns acceptance rates."""

        def evaluate(position: Tensor) -> Point:
            return self.path(position, beta)

        point = evaluate(u)
        momentum = draw_momentum(u, self.inverse_mass)
        jitter = 0.8 + 0.4 * torch.rand_like(log_step)  # against trajectories that come back
        step = log_step.exp() * jitter
        proposal = leapfrog(evaluate, point, momentum, step, self.inverse_mass, self.num_steps)
        uniform = torch.rand_like(point.log_density)
        moved = metropolis(point, proposal, momentum, self.inverse_mass, uniform)
        return moved["point"], moved["acceptance_rate"]

    def _refuse_nan(self, point: Point) -> None:
        if bool(torch.isnan(point.tilt).any()):
            self.density.refuse_nan(point.u)
            raise ValueError("guide: its log-density is NaN at its own draws")


def _refuse_points(model: Any, guide: Any, args: tuple[Any, ...]) -> None:
    if guide is not None:
        with argument_checks(False):
            read_layout(model, guide, *moved(args, device_of(model, guide, args=args)))


def _spaced(schedule: str, count: int) -> Tensor:
    """Temperatures from 0 to 1, ``(count + 1,)``, float64.

    Example:
        >>> _spaced("linear", 4).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    place = torch.linspace(0, 1, count + 1, dtype=torch.float64)
    if schedule == "linear":
        return place
    curve = torch.sigmoid(_SIGMOID_REACH * (2 * place - 1))
    return (curve - curve[0]) / (curve[-1] - curve[0])


def _arranged(
    betas: Tensor, log_steps: Tensor, spreads: Tensor, schedule: str, count: int
) -> tuple[Tensor, Tensor]:
    """Temperatures ``(T + 1, batch)`` and log step sizes ``(T, batch)`` from those of a pilot."""
    if schedule == "adaptive":
        # equal steps of the integral of the tilt's standard deviation lose equal sample size
        density = spreads + 0.01 * spreads.mean(0)
        density = torch.cat([density[:1], density])
        widths = betas[1:] - betas[:-1]
        pieces = 0.5 * (density[1:] + density[:-1]) * widths + 1e-12
        length = torch.cat([torch.zeros_like(pieces[:1]), pieces.cumsum(0)])
        wanted = torch.linspace(0, 1, count + 1, dtype=torch.float64, device=betas.device)
        new = _interpolate(
            length / length[-1], betas, wanted.unsqueeze(-1).expand(-1, betas.shape[1])
        )
        new = torch.cat([torch.zeros_like(new[:1]), new[1:-1], torch.ones_like(new[:1])])
    else:
        new = _spaced(schedule, count).to(betas.device).unsqueeze(-1).expand(-1, betas.shape[1])
    return new, _interpolate(betas[1:], log_steps, new[1:])


def _interpolate(x: Tensor, y: Tensor, at: Tensor) -> Tensor:
    """Piecewise linear functions of each column, constant beyond their ends."""
    if len(x) == 1:
        return y.expand_as(at)
    columns = x.T.contiguous(), y.T.contiguous(), at.T.contiguous()
    place = torch.searchsorted(columns[0], columns[2]).clamp(1, columns[0].shape[1] - 1)
    left, right = (columns[0].gather(1, place + shift) for shift in (-1, 0))
    low, high = (columns[1].gather(1, place + shift) for shift in (-1, 0))
    share = ((columns[2] - left) / (right - left).clamp(min=1e-300)).clamp(0, 1)
    return (low + share * (high - low)).T


def _robust_spread(tilt: Tensor) -> Tensor:
    """Standard deviation over chains, ``(batch,)``, by quartiles, which one lost chain spares."""
    finite = torch.where(torch.isfinite(tilt), tilt, torch.full_like(tilt, -1e30))
    quartiles = torch.quantile(
        finite, torch.tensor([0.25, 0.75], dtype=tilt.dtype, device=tilt.device), dim=0
    )
    return (quartiles[1] - quartiles[0]) / 1.349


def _evidence(
    weights: Tensor, acceptance: Tensor, count: int, schedule: str, start: str, seed: int
) -> AISEvidence:
    estimates = estimates_from_log_weights(weights)
    return AISEvidence(
        estimates["log_evidence"], estimates["standard_error"], estimates["ess"],
        acceptance.cpu(), weights.cpu(), len(weights), count, schedule, start, seed,
    )  # fmt: skip


def _check(
    num_chains: int, num_temperatures: int, schedule: str, num_steps: int, target: float
) -> None:
    for name, value in (
        ("num_chains", num_chains),
        ("num_temperatures", num_temperatures),
        ("num_leapfrog_steps", num_steps),
    ):
        if value < 1:
            raise ValueError(f"{name}: must be at least 1; got {value}")
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule: expected one of {', '.join(SCHEDULES)}; got {schedule!r}")
    if not 0 < target < 1:
        raise ValueError(f"target_acceptance: must lie between 0 and 1; got {target}")
