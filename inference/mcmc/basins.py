"""Chains that warm-up left in a basin of next to no probability, and where they go on from."""

import math

import torch
from torch import Tensor

from aevb.inference.mcmc.integrators import Point
from aevb.inference.mcmc.metrics import Metric
from aevb.inference.mcmc.preconditioning import fitted_metric

__all__ = ["stand_ins"]

# Draws of each chain that a weight is estimated from at least.
_LEAST_DRAWS = 10
# Nats by which a basin that counts for nothing weighs less than the heaviest: what it may weigh,
# and for each root of a dimension what so few draws may be wrong by. Their mean log-density has a
# standard error of √(dim / 2 draws), which differs between two chains by less than 5 times that.
_NEGLIGIBLE, _NOISE = 10.0, 2.0


def stand_ins(window: Point, metric: Metric) -> Tensor:
    r"""From whose place each chain goes on: its own, or that of one in a basin that counts.

    What a chain has to itself weighs, were it normal,

    .. math:: \log w = \overline{\log p(u)} + \tfrac12 \log \det \Sigma + \text{const}

    with the volume from the spread of its draws and of the gradients there, which are right for
    a normal basin even where a chain has gone through little of it. So a wide mode of a low
    density is kept beside a narrow one of a high density, and R̂ tells of both; but a chain that
    fell, on its way from the prior, into one that weighs e⁻¹⁰ of another would stay there for
    hundreds of iterations, as trajectories and masses are not made for it.

    References:
        As chains are weighted in Stacking for Non-mixing Bayesian Computations (Yao, Vehtari &
        Gelman, 2022), https://arxiv.org/abs/2006.12335, and paths in Pathfinder (Zhang,
        Carpenter, Gelman & Vehtari, 2022), https://arxiv.org/abs/2108.03782

    Args:
        window: Of warm-up, with a leading dimension of iterations.
        metric: In whose coordinates volumes are measured.

    Returns:
        Numbers of chains, ``(chains, batch)``.
    """
    num, chains, batch, dim = window.u.shape
    own = torch.arange(chains, device=window.u.device).unsqueeze(-1).expand(chains, batch)
    if num < _LEAST_DRAWS:
        return own
    draws = metric.whiten(window.u.flatten(0, 1)).reshape(num, chains * batch, dim)
    forces = metric.pull(window.gradient.flatten(0, 1)).reshape(num, chains * batch, dim)
    volume = fitted_metric(draws, forces, "diagonal").variance.log().sum(-1) / 2
    weight = window.log_density.mean(0) + volume.view(chains, batch)
    weight = torch.where(torch.isnan(weight), -torch.inf, weight)
    lost = weight < weight.amax(0) - (_NEGLIGIBLE + _NOISE * math.sqrt(dim))
    # the worst goes to the best, the next to the next
    order = weight.argsort(0, descending=True)
    rank = order.argsort(0)
    donor = order.gather(0, (chains - 1 - rank) % (~lost).sum(0).clamp(min=1))
    return torch.where(lost, donor, own)
