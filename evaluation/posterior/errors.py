"""A guide's draws against those of Markov chains, datapoint by datapoint."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aevb.inference import Draws, guide_draws
from aevb.inference.process import randomness

__all__ = ["PosteriorErrors", "energy_distance_test", "posterior_errors"]

_PERMUTATIONS_AT_ONCE = 50


@dataclass(frozen=True, repr=False)
class PosteriorErrors:
    """What a guide gets wrong about each posterior, in unconstrained coordinates.

    Attributes:
        mean_error: Difference of means in the chains' standard deviations, ``(B, dim)``.
        log_scale_ratio: Log of the guide's standard deviation over the chains', ``(B, dim)``;
            negative where the guide is too sure.
        correlation_missed: Largest difference of two correlations, ``(B,)``; 0 in one dimension.
        energy_distance: Between the two sets of draws, ``(B,)``; see
            :func:`energy_distance_test`.
        p_value: Of no difference, ``(B,)``.
        noise: Standard error of ``mean_error``, by the spread of the chains and the number of the
            guide's draws, ``(B, dim)``.
        guide: The guide's draws, ``(num_draws, B, dim)``.
        chains: Those of the chains that were compared, ``(num_draws, B, dim)``.

    Example:
        >>> from aevb.evaluation import posterior_errors
        >>> from aevb.inference import hmc
        >>> from aevb.models import FactorAnalysis
        >>> fa, x = FactorAnalysis((5,), 2), torch.zeros(3, 5)
        >>> draws = hmc(fa.model, x, num_chains=4, num_samples=100, num_warmup=100)
        >>> errors = posterior_errors(fa.model, fa.guide, x, draws=draws)
        >>> errors.mean_error.shape, errors.p_value.shape
        (torch.Size([3, 2]), torch.Size([3]))
    """

    mean_error: Tensor
    log_scale_ratio: Tensor
    correlation_missed: Tensor
    energy_distance: Tensor
    p_value: Tensor
    noise: Tensor
    guide: Tensor
    chains: Tensor

    @property
    def worst(self) -> Tensor:
        """Datapoints from the largest energy distance on, ``(B,)``."""
        return self.energy_distance.argsort(descending=True)

    def __repr__(self) -> str:
        """One line."""
        count, dim = self.mean_error.shape
        return (
            f"PosteriorErrors({count} posteriors of {dim} dimensions, means off by "
            f"{float(self.mean_error.square().mean().sqrt()):.3g} sd, scales × "
            f"{float(self.log_scale_ratio.mean().exp()):.3g})"
        )


def posterior_errors(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    draws: Draws,
    num_draws: int = 200,
    num_permutations: int = 999,
    seed: int = 0,
) -> PosteriorErrors:
    """Compare a guide with the chains of :func:`aevb.inference.hmc`.

    The chains are thinned to ``num_draws`` draws, as many of each and as far apart as possible;
    moments are taken from all of them. No comparison means anything against chains that did not
    converge, and p-values take thinned draws for independent: they are too small where the chains
    have fewer than about twice as many effective draws.

    Args:
        model: Pyro program of the joint distribution.
        guide: Pyro program of the posterior.
        args: Arguments of both.
        draws: Of the chains.
        num_draws: Draws of either side that are compared as sets.
        num_permutations: Of the null distribution.
        seed: Of the guide's draws and of the permutations.

    Raises:
        ValueError: If the chains have fewer draws than are asked for.

    Example:
        >>> from aevb import inference
        >>> from aevb.models import FactorAnalysis
        >>> fa, x = FactorAnalysis((5,), 2).double(), torch.zeros(3, 5).double()
        >>> draws = inference.hmc(fa.model, x, num_samples=50, num_warmup=100)
        >>> posterior_errors(fa.model, fa.guide, x, draws=draws).mean_error.shape
        torch.Size([3, 2])
    """
    chains = draws.unconstrained.double()
    total = chains.shape[0] * chains.shape[1]
    if total < num_draws:
        raise ValueError(f"num_draws: the chains have only {total} draws; got {num_draws}")
    many = max(num_draws, 2000)
    approximate = guide_draws(model, guide, *args, num_draws=many, seed=seed).double()
    pooled = chains.flatten(0, 1)
    mean, scale = pooled.mean(0), pooled.std(0)
    by_chain = chains.mean(1)
    noise = (by_chain.var(0) / len(by_chain) + approximate.var(0) / many).sqrt() / scale
    thinned = _thinned(chains, num_draws)
    some = approximate[:num_draws]
    distance, p_value = energy_distance_test(
        some / scale, thinned / scale, num_permutations, seed=seed
    )
    return PosteriorErrors(
        ((approximate.mean(0) - mean) / scale).cpu(),
        (approximate.std(0) / scale).log().cpu(),
        (_correlations(approximate) - _correlations(pooled)).abs().amax((-1, -2)).cpu(),
        distance.cpu(),
        p_value.cpu(),
        noise.cpu(),
        some.cpu(),
        thinned.cpu(),
    )


def energy_distance_test(
    first: Tensor, second: Tensor, num_permutations: int = 500, seed: int = 0
) -> tuple[Tensor, Tensor]:
    r"""Whether two sets of draws come from one distribution, for each datapoint.

    .. math:: 2 E\|a - b\| - E\|a - a'\| - E\|b - b'\|

    Its null distribution is that of the same draws split at random.

    References:
        Energy statistics: A class of statistics based on distances (Székely & Rizzo, 2013),
        https://doi.org/10.1016/j.jspi.2013.03.018

    Args:
        first: ``(num, B, dim)``.
        second: As many.
        num_permutations: Random splits.
        seed: Of the splits; torch's global random state is left as it was.

    Returns:
        The distance and its p-value, each ``(B,)``; the least p is 1/(num_permutations + 1).

    Example:
        >>> a, b = torch.zeros(50, 1, 1), torch.ones(50, 1, 1)
        >>> [value.item() for value in energy_distance_test(a, b, 99)]
        [2.0, 0.01]
    """
    num = len(first)
    both = torch.cat([first, second]).double().movedim(1, 0)  # (B, 2 num, dim)
    distances = torch.cdist(both, both)
    signs = torch.cat([torch.ones(num), -torch.ones(num)]).to(distances)

    def statistic(labels: Tensor) -> Tensor:
        # −sᵀDs/n² is the energy statistic of the split by signs
        return -torch.einsum("pi,bij,pj->pb", labels, distances, labels) / num**2

    observed = statistic(signs.unsqueeze(0))[0]
    exceeding = torch.zeros_like(observed)
    with randomness.stream(seed, "permutations", distances.device):
        for start in range(0, num_permutations, _PERMUTATIONS_AT_ONCE):
            count = min(_PERMUTATIONS_AT_ONCE, num_permutations - start)
            order = torch.argsort(torch.rand(count, 2 * num, device=distances.device), 1)
            exceeding += (statistic(signs[order]) >= observed - 1e-12).sum(0)
    return observed, (1 + exceeding) / (1 + num_permutations)


def _thinned(chains: Tensor, num_draws: int) -> Tensor:
    """``(chains, draws, ...)`` → ``(num_draws, ...)``, evenly over all chains and all of each."""
    num_chains, length = chains.shape[:2]
    places = torch.arange(num_draws)
    which = places % num_chains
    # neighbouring chains are read at staggered times
    when = (places.double() + 0.5) * length / num_draws
    return chains[which.to(chains.device), when.long().to(chains.device)]


def _correlations(draws: Tensor) -> Tensor:
    """``(draws, B, dim)`` → ``(B, dim, dim)``."""
    centred = draws - draws.mean(0)
    white = centred / centred.square().sum(0).sqrt()
    return torch.einsum("sbi,sbj->bij", white, white)
