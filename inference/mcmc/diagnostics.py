"""R̂ and effective sample sizes of every number of every posterior at once."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = [
    "ESS_LIMIT",
    "RHAT_LIMIT",
    "bulk_ess",
    "mean_ess",
    "rank_rhat",
    "rhat_limit",
    "tail_ess",
    "unmixed",
]

# Vehtari et al. (2021), https://arxiv.org/abs/1903.08008: chains beyond it are not to be used,
# nor fewer effective draws.
RHAT_LIMIT = 1.01
ESS_LIMIT = 400.0
# Chance that independent draws of one posterior are called unmixed.
_FALSE_ALARM_RATE = 1e-6
# Effective ones among the draws of chains that are not slow.
_LEAST_EFFICIENCY = 0.2
# By how much they may be fewer than they seem: sums of correlations stop at the first negative.
_OPTIMISM = 1.5
_TAILS = (0.05, 0.95)
_NUMBERS_AT_ONCE = 2**22
# Of each number, to find its middle and its scale.
_PILOTS = 400


def rank_rhat(draws: Tensor) -> Tensor:
    r"""R̂ of normal scores of ranks, or of ranks of distances from the median if that is larger.

    .. math::
        \hat R^2 = \frac{n - 1}{n} + \frac1n \frac BW

    Chains are split in halves of n draws; B / n is the variance of their means, W the mean of
    their variances.

    References:
        Rank-Normalization, Folding, and Localization: An Improved R-hat (Vehtari, Gelman, Simpson,
        Carpenter & Bürkner, 2021), https://arxiv.org/abs/1903.08008

    Args:
        draws: ``(chains, draws, *shape)``.

    Returns:
        ``(*shape)``, float64; NaN with fewer than two chains or four draws, and where all draws
        are equal, infinite where each half of a chain stands still somewhere else.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> draws = torch.randn(4, 500, 3, generator=generator)
        >>> draws[0, :, 1] += 2.0
        >>> rank_rhat(draws) > 1.1
        tensor([False,  True, False])
    """
    if len(draws) < 2:
        return _undefined(draws)

    def rhat(halves: Tensor) -> Tensor:
        return torch.maximum(*map(_rhat, _both_scores(halves)))

    return _in_blocks(draws, rhat)


def bulk_ess(draws: Tensor) -> Tensor:
    """Effective number of draws for the mean of the normal scores of ranks.

    References:
        As of :func:`rank_rhat`

    Args:
        draws: ``(chains, draws, *shape)``.

    Returns:
        ``(*shape)``, float64; NaN with fewer than four draws, and where all are equal.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> draws = torch.randn(4, 500, 3, generator=generator).cumsum(1)
        >>> bool((bulk_ess(draws) < 100).all())
        True
    """
    return _in_blocks(draws, lambda halves: _ess(_normal_scores(halves)[0]))


def mean_ess(draws: Tensor) -> Tensor:
    """Effective number of draws for the mean of the draws themselves.

    Args:
        draws: ``(chains, draws, *shape)``.

    Returns:
        As :func:`bulk_ess`.

    Example:
        >>> mean_ess(torch.arange(8.0).reshape(2, 4)).shape
        torch.Size([])
    """
    return _in_blocks(draws, _ess)


def tail_ess(draws: Tensor) -> Tensor:
    """Effective number of draws for the 5 and 95 % quantiles, the smaller of both.

    References:
        As of :func:`rank_rhat`

    Args:
        draws: ``(chains, draws, *shape)``.

    Returns:
        ``(*shape)``, float64; NaN with fewer than four draws, and where no draw is beyond a
        quantile, because a chain stands still there.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> draws = torch.randn(4, 500, 3, generator=generator)
        >>> bool((tail_ess(draws) > 1000).all())
        True
    """
    half = draws.shape[1] // 2

    def ess(whole: Tensor) -> Tensor:
        ordered = whole.flatten(1).sort(-1).values
        found = []
        for share in _TAILS:
            place = int(share * (ordered.shape[1] - 1))
            below = whole <= ordered[:, place, None, None]
            found.append(_ess(_split(below, half).double()))
        return torch.minimum(*found)

    return _in_blocks(draws, ess, split=False)


def rhat_limit(num_chains: int, num_draws: float, dim: int) -> float:
    r"""What R̂ of independent draws exceeds with a chance of 1e-6 at most, and at least 1.01.

    Of m half chains of n independent draws B / W has an F distribution with m − 1 and m (n − 1)
    degrees of freedom, which normal scores come close to; both kinds of ranks of each dimension
    share the chance.

    Args:
        num_chains: Before they are split.
        num_draws: Of each chain, four at least; effective ones need not be a whole number.
        dim: Numbers of which R̂ is the largest.

    Example:
        >>> [round(rhat_limit(4, num, 10), 3) for num in (20, 100, 500)]
        [1.347, 1.059, 1.012]
        >>> rhat_limit(16, 500, 10)
        1.01
    """
    halves, length = 2 * num_chains, num_draws / 2
    share = _FALSE_ALARM_RATE / (2 * dim)
    from scipy.special import fdtri

    ratio = float(fdtri(halves - 1, halves * (length - 1), 1 - share))
    return max(RHAT_LIMIT, math.sqrt((length - 1 + ratio) / length))


def unmixed(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Posteriors whose chains have not mixed: R̂ of a dimension is beyond :func:`rhat_limit`.

    That is the limit of as many draws as are surely effective within the chains; but of the
    draws themselves where fewer than a fifth are, for slow chains have no excuse in being so.

    Ranks are costly. They are made only where R̂ of draws squashed into (−1, 1), as robust as
    ranks, is half as far from 1.

    Args:
        draws: ``(chains, draws, batch, dim)``.

    Returns:
        Their numbers and their R̂, both ``(count,)``; none with fewer than two chains or four
        draws.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> draws = torch.randn(4, 500, 3, 2, generator=generator)
        >>> draws[0, :, 1] += 2.0
        >>> unmixed(draws)[0]
        tensor([1])
    """
    chains, num, _, dim = draws.shape
    none = torch.empty(0, dtype=torch.float64, device=draws.device)
    if chains < 2 or num < 4:
        return none.long(), none
    least = rhat_limit(chains, num, dim)
    places = (_squashed_rhat(draws).amax(-1) > (1 + least) / 2).nonzero().flatten()
    if not len(places):
        return places, none
    chosen = draws[:, :, places]
    rhat = rank_rhat(chosen)
    rows, columns = (rhat > least).nonzero(as_tuple=True)

    def ess(halves: Tensor) -> Tensor:
        return torch.minimum(*map(_ess_within, _both_scores(halves)))

    effective = _in_blocks(chosen[:, :, rows, columns], ess)
    limits = torch.full_like(rhat, least)
    for row, column, count in zip(*(v.tolist() for v in (rows, columns, effective)), strict=True):
        if count > _LEAST_EFFICIENCY * chains * num:
            of_each = min(num, count / chains) / _OPTIMISM
            limits[row, column] = rhat_limit(chains, max(4.0, of_each), dim)
    beyond = (rhat > limits).any(-1)
    return places[beyond], rhat.amax(-1)[beyond]


def _squashed_rhat(draws: Tensor) -> Tensor:
    """R̂ of numbers, and of their distances from the middle, brought into (−1, 1)."""
    chains, num = draws.shape[:2]
    half = num // 2
    pilots = draws[:, :: max(1, chains * num // _PILOTS)].flatten(0, 1)
    ordered = pilots.sort(0).values
    middle = ordered[len(ordered) // 2]
    spread = (ordered[3 * len(ordered) // 4] - ordered[len(ordered) // 4]) / 2
    spread = spread.clamp(min=torch.finfo(draws.dtype).tiny)
    means, distances, squares = [], [], torch.zeros_like(middle, dtype=torch.float64)
    for chain in draws:  # one at a time, to bound the memory
        for part in (chain[:half], chain[-half:]):
            value = ((part - middle) / spread).clamp(-1e6, 1e6)
            value = value / (1 + value.abs())
            means.append(value.mean(0, dtype=torch.float64))
            distances.append(value.abs().mean(0, dtype=torch.float64))
            squares += value.square().sum(0, dtype=torch.float64)
    found = []
    for mean in (torch.stack(means), torch.stack(distances)):
        within = (squares - half * mean.square().sum(0)) / (len(mean) * (half - 1))
        found.append((mean.var(0) / within.clamp(min=0) + (half - 1) / half).sqrt())
    return torch.maximum(*found)


def _undefined(draws: Tensor) -> Tensor:
    return torch.full(draws.shape[2:], torch.nan, dtype=torch.float64, device=draws.device)


def _in_blocks(draws: Tensor, statistic: Callable[[Tensor], Tensor], split: bool = True) -> Tensor:
    """A statistic of ``(numbers, chains, draws)``, float64, of as many numbers as may be."""
    chains, num = draws.shape[:2]
    columns = draws.flatten(2) if draws.ndim > 2 else draws.unsqueeze(-1)
    if num < 4 or not columns.numel():
        return _undefined(draws)
    found = []
    for block in columns.split(max(1, _NUMBERS_AT_ONCE // (chains * num)), -1):
        # not float32: R̂ squares differences of draws
        values = block.movedim(-1, 0).double().contiguous()
        result = statistic(_split(values, num // 2) if split else values)
        found.append(torch.where(values.isnan().flatten(1).any(1), torch.nan, result))
    return torch.cat(found).reshape(draws.shape[2:])


def _split(values: Tensor, half: int) -> Tensor:
    """First and last halves as chains; of an odd number of draws the middle one is left out."""
    return torch.cat([values[..., :half], values[..., -half:]], 1)


def _normal_scores(halves: Tensor) -> tuple[Tensor, Tensor]:
    """Quantiles of the standard normal at the ranks, and medians ``(numbers,)``.

    Equal draws share the mean of their ranks.
    """
    values = halves.flatten(1)
    rows, num = values.shape
    ordered, places = values.sort(-1)
    differs = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[:, 1:], ordered[:, :-1], out=differs[:, 1:])
    firsts = differs.flatten().nonzero().flatten()
    lengths = torch.diff(firsts, append=firsts.new_tensor([rows * num]))
    twice = 2 * (firsts % num) + lengths + 1  # the mean rank, which counts from 1
    ranks = torch.arange(2 * num + 1, dtype=torch.float64, device=values.device) / 2
    quantiles = torch.special.ndtri((ranks - 0.375) / (num + 0.25))
    scores = quantiles[twice].repeat_interleave(lengths).view(rows, num)
    scores = torch.empty_like(scores).scatter_(1, places, scores)
    # two halves of each chain: the number is even
    median = ordered[:, num // 2 - 1 : num // 2 + 1].mean(-1)
    return scores.view_as(halves), median


def _both_scores(halves: Tensor) -> tuple[Tensor, Tensor]:
    """Of the draws and of their distances from the median."""
    scores, median = _normal_scores(halves)
    folded, _ = _normal_scores((halves - median[:, None, None]).abs())
    return scores, folded


def _rhat(halves: Tensor) -> Tensor:
    num = halves.shape[-1]
    between = num * halves.mean(-1).var(-1)
    within = halves.var(-1).mean(-1)
    return ((between / within + num - 1) / num).sqrt()


def _ess(halves: Tensor) -> Tensor:
    """Effective draws; NaN of equal values."""
    chains, num = halves.shape[1:]
    time = _correlation_time(_covariance(halves), halves.mean(-1).var(-1, keepdim=True), chains)
    equal = halves.flatten(1).amax(-1) == halves.flatten(1).amin(-1)
    return torch.where(equal, torch.nan, chains * num / time)


def _ess_within(halves: Tensor) -> Tensor:
    """Effective draws if half chains differ no more than their correlation makes them.

    The variance of their means is what the correlation time says it is, and not what it was.
    """
    chains, num = halves.shape[1:]
    covariance = _covariance(halves)
    time = torch.ones_like(covariance[:, 0])
    for _ in range(4):
        between = covariance[:, :1] / (num - 1) * time.clamp(max=num).unsqueeze(-1)
        time = _correlation_time(covariance, between, chains)
    return chains * num / time


def _covariance(halves: Tensor) -> Tensor:
    """At every lag, the mean over half chains, ``(numbers, draws)``."""
    num = halves.shape[-1]
    centred = halves - halves.mean(-1, keepdim=True)
    # the mean before the second transform, which is linear
    power = torch.fft.rfft(centred, 2 * num).abs().square().mean(1)
    return torch.fft.irfft(power, 2 * num)[:, :num] / num


def _correlation_time(covariance: Tensor, between: Tensor, chains: int) -> Tensor:
    """Draws for each effective one, ``(numbers,)``: Geyer's initial monotone sequence of pairs.

    From :func:`_covariance`, and the variance ``(numbers, 1)`` of the means of half chains.
    """
    num = covariance.shape[1]
    within = covariance[:, :1] * num / (num - 1)
    correlation = 1 - (within - covariance) / (covariance[:, :1] + between)
    correlation[:, 0] = 1.0
    last = max(0, (num - 3) // 2)
    pairs = correlation[:, : 2 * last + 2].unflatten(-1, (-1, 2)).sum(-1)
    count = (pairs > 0).cumprod(-1).sum(-1, keepdim=True).clamp(max=last)
    counted = torch.arange(last + 1, device=covariance.device) < count
    monotone = torch.where(counted, pairs.cummin(-1).values, 0.0).sum(-1)
    # of the pair after them the even one, unless it is negative
    even = correlation.gather(1, 2 * count)
    even = torch.where((even > 0) | (pairs.gather(1, count) >= 0), even, 0.0).squeeze(-1)
    return (2 * monotone + even - 1).clamp(min=1 / math.log10(chains * num))
