"""Annealed importance sampling, forward and in reverse, for every datapoint at once."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aevb.data.seeds import fresh_if_none
from aevb.inference.evidence.annealed import AISEvidence, BDMCEvidence
from aevb.inference.evidence.annealing import Annealing, Schedule, sigmoid_schedule
from aevb.inference.evidence.importance import estimates_from_log_weights
from aevb.inference.process import randomness
from aevb.inference.process.devices import device_of, moved
from aevb.inference.process.progress import with_progress
from aevb.inference.programs.joint import Joint
from aevb.inference.programs.log_density import LogDensity
from aevb.inference.programs.simulate import simulate

__all__ = ["ais_evidence", "annealed", "annealing_of", "bdmc_evidence"]


@with_progress
def ais_evidence(
    model: Callable[..., Any],
    *args: Any,
    num_chains: int = 16,
    num_temperatures: int = 1000,
    seed: int | None = 0,
    guide: Callable[..., Any] | None = None,
    schedule: Schedule = sigmoid_schedule,
    num_leapfrog_steps: int = 10,
    target_acceptance: float = 0.65,
    chain_batch_size: int | None = None,
    progress: bool | None = None,
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
        seed: Same seed, same estimate; None draws one afresh,
            which the result records; torch's global random state is left as it was.
        guide: Pyro program to start from; the prior if left out.
        schedule: Function of T and the pilot that says how the temperatures lie:
            :func:`~aevb.inference.sigmoid_schedule`, :func:`~aevb.inference.linear_schedule`,
            :func:`~aevb.inference.adaptive_schedule`, or another.
        num_leapfrog_steps: Of each trajectory.
        target_acceptance: What the pilot's step sizes aim at.
        chain_batch_size: Chains evaluated at once, to bound the memory.
        progress: Show progress bars; by default in notebooks alone.

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
    del progress  # see with_progress
    seed = fresh_if_none(seed)
    with torch.no_grad(), randomness.stream(seed, "ais", device_of(model, guide, args=args)):
        annealing = _annealing(
            model, guide, args, num_chains, num_temperatures, schedule, num_leapfrog_steps,
            target_acceptance, chain_batch_size,
        )  # fmt: skip
        return annealed(annealing, *annealing.forward(), seed)


@with_progress
def bdmc_evidence(
    model: Callable[..., Any],
    *args: Any,
    num_chains: int = 16,
    num_temperatures: int = 1000,
    seed: int | None = 0,
    guide: Callable[..., Any] | None = None,
    schedule: Schedule = sigmoid_schedule,
    num_leapfrog_steps: int = 10,
    target_acceptance: float = 0.65,
    chain_batch_size: int | None = None,
    progress: bool | None = None,
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
        progress: Show progress bars; by default in notebooks alone.

    Raises:
        ValueError: As :func:`ais_evidence`; or if the model observes nothing.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> fa = FactorAnalysis((5,), 2).double()
        >>> bounds = bdmc_evidence(fa.model, torch.zeros(3, 5).double(), num_temperatures=50)
        >>> bounds.gap.shape
        torch.Size([3])
    """
    del progress  # see with_progress
    seed = fresh_if_none(seed)
    device = device_of(model, guide, args=args)
    with torch.no_grad(), randomness.stream(seed, "bdmc", device):
        simulation = simulate(model, *moved(args, device))
        annealing = _annealing(
            simulation.model, guide, simulation.args, num_chains, num_temperatures, schedule,
            num_leapfrog_steps, target_acceptance, chain_batch_size,
        )  # fmt: skip
        below = annealed(annealing, *annealing.forward(), seed)
        latents = {name: value.unsqueeze(0) for name, value in simulation.latents.items()}
        weights, acceptance = annealing.reverse(annealing.density.unconstrain(latents, 1))
        above = annealed(annealing, -weights, acceptance, seed)
    # its chains all start from one exact draw, so that their spread says nothing of the error
    above = replace(above, standard_error=torch.full_like(above.standard_error, torch.nan))
    return BDMCEvidence(below, above, simulation.data)


def _annealing(model: Any, guide: Any, args: tuple[Any, ...], *settings: Any) -> Annealing:
    if guide is not None:
        Joint(model, *args, guide=guide)  # which refuses guides that are no density
    return Annealing(LogDensity(model, *args, guide=guide), *settings)


def annealing_of(
    model: Any, guide: Any, args: tuple[Any, ...], *settings: Any, seed: int
) -> Annealing:
    """Temperatures and step sizes for :func:`ais_evidence`, whose settings follow its names."""
    device = device_of(model, guide, args=args)
    with torch.no_grad(), randomness.stream(seed, "annealing", device):
        return _annealing(model, guide, args, *settings)


def annealed(annealing: Annealing, weights: Tensor, acceptance: Tensor, seed: int) -> AISEvidence:
    """The estimates of chains' log-weights ``(chains, batch)``."""
    estimates = estimates_from_log_weights(weights)
    schedule = getattr(annealing.schedule, "__name__", repr(annealing.schedule))
    return AISEvidence(
        estimates["log_evidence"], estimates["standard_error"], estimates["ess"],
        acceptance.cpu(), weights.cpu(), len(weights), annealing.num_temperatures,
        schedule.removesuffix("_schedule"),
        "guide" if annealing.density.has_guide else "prior", seed,
    )  # fmt: skip
