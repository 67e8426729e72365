"""Two-dimensional latent spaces, in which posteriors and evidence are sums over a grid."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aevb.inference import LogDensity, guide_draws

__all__ = ["GridPosterior", "disc", "log_evidence_on", "posterior_on_grid", "total_variation"]

RADIUS = 6.0  # beyond which a standard normal has e^(-18) of its mass in two dimensions
_POINTS_AT_ONCE = 4096
# Log-densities this far below the highest hold less than a millionth of the mass of any box used.
_DEPTH = 20.0
_SEARCH_SIDE = 100


@dataclass(frozen=True)
class GridPosterior:
    """The posterior of one datapoint in the cells of a square grid.

    Attributes:
        points: Centres of the cells, ``(side * side, 2)``, the first latent running fastest.
        extent: Left, right, bottom and top of the grid.
        log_posterior: Normalized log p(z|x) at the centres, ``(side * side,)``, in nats.
        log_evidence: log p(x), in nats.
    """

    points: Tensor
    extent: tuple[float, float, float, float]
    log_posterior: Tensor
    log_evidence: float

    @property
    def side(self) -> int:
        """Cells along each axis."""
        return math.isqrt(len(self.points))

    @property
    def size(self) -> Tensor:
        """Of the grid along each axis, ``(2,)``."""
        left, right, bottom, top = self.extent
        return torch.tensor([right - left, top - bottom], dtype=torch.float64)

    @property
    def area(self) -> float:
        """Of a cell."""
        return float(self.size.prod()) / len(self.points)

    @property
    def masses(self) -> Tensor:
        """Of the cells; they sum to 1."""
        return self.log_posterior.exp() * self.area

    def divergence_from(self, log_q: Tensor) -> float:
        """KL(q‖p(z|x)) in nats, of a density with next to all of its mass on the grid.

        Args:
            log_q: Normalized, at the centres, ``(side * side,)``.
        """
        return float((log_q.exp() * (log_q - self.log_posterior)).sum() * self.area)

    def variation_from(self, log_q: Tensor) -> float:
        """Total variation, 0 to 1; what q has off the grid counts as missed.

        Args:
            log_q: Normalized, at the centres, ``(side * side,)``.
        """
        q = log_q.exp() * self.area
        outside = max(0.0, 1 - float(q.sum()))
        return 0.5 * (float((q - self.masses).abs().sum()) + outside)

    def blocks(self, number: int) -> Tensor:
        """Masses of larger cells, ``(number * number,)``.

        Args:
            number: Of them along each axis; a divisor of the side.
        """
        width = self.side // number
        cells = self.masses.reshape(number, width, number, width)
        return cells.sum((1, 3)).flatten()

    def shares(self, draws: Tensor, number: int) -> Tensor:
        """Shares of draws in the same cells, ``(number * number,)``; off the grid in none.

        Args:
            draws: ``(S, 2)``.
            number: Of cells along each axis.
        """
        low = torch.tensor([self.extent[0], self.extent[2]], dtype=torch.float64)
        places = ((draws - low) / self.size * number).floor().long()
        inside = ((places >= 0) & (places < number)).all(-1)
        index = places[inside, 1] * number + places[inside, 0]
        return index.bincount(minlength=number * number).double() / len(draws)

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        """Exact draws up to the size of a cell, ``(num, 2)``.

        Args:
            num: Of draws.
            generator: Of randomness.
        """
        cells = torch.multinomial(self.masses, num, replacement=True, generator=generator)
        jitter = torch.rand(num, 2, dtype=torch.float64, generator=generator) - 0.5
        return self.points[cells] + jitter * self.size / self.side


def total_variation(shares: Tensor, masses: Tensor) -> float:
    """Half the sum of absolute differences; shares that are missing lie elsewhere.

    Args:
        shares: Of draws, ``(cells,)``, which sum to at most 1.
        masses: Of the same cells, ``(cells,)``.

    Example:
        >>> total_variation(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0]))
        0.5
    """
    outside = max(0.0, 1 - float(shares.sum()))
    return 0.5 * (float((shares - masses).abs().sum()) + outside)


def posterior_on_grid(
    model: Callable[..., Any],
    x: Tensor,
    guide: Callable[..., Any],
    side: int = 200,
) -> tuple[GridPosterior, Tensor, Tensor]:
    """The posterior of a datapoint on a grid that holds its mass and the guide's.

    A coarse grid over the prior finds the mass; the box around it, wide enough for the guide's
    draws as well, gets the fine one.

    Args:
        model: Pyro program with one latent site of two dimensions and a standard normal prior.
        x: One datapoint, ``(1, *shape)``.
        guide: Its posterior, a Pyro program that can score given values.
        side: Cells of the fine grid along each axis.

    Returns:
        The posterior, and at its centres the guide's log-density and the prior's,
        ``(side * side,)`` each, in nats.

    Raises:
        ValueError: If the latents have other than two dimensions.
    """
    density = LogDensity(model, x, guide=guide)
    if density.dim != 2:
        raise ValueError(f"model: expected two latent dimensions; got {density.dim}")
    draws = guide_draws(model, guide, x, num_draws=1000)[:, 0].double()
    low, high = torch.full((2,), -RADIUS).double(), torch.full((2,), RADIUS).double()
    for _ in range(3):  # a narrow posterior is found in steps
        points = _centres(low, high, _SEARCH_SIDE)
        (log_joint,) = _evaluate(lambda u: (density.joint(u),), points)
        within = points[log_joint > log_joint.max() - _DEPTH]
        margin = 2 * (high - low) / _SEARCH_SIDE
        low = torch.minimum(within.amin(0) - margin, draws.amin(0))
        high = torch.maximum(within.amax(0) + margin, draws.amax(0))
    points = _centres(low, high, side)
    log_prior, log_likelihood, log_guide = _evaluate(
        lambda u: (*density.split(u), density.guide(u)), points
    )
    log_joint = log_prior + log_likelihood
    log_evidence = float(log_joint.logsumexp(0) + ((high - low) / side).log().sum())
    extent = float(low[0]), float(high[0]), float(low[1]), float(high[1])
    posterior = GridPosterior(points, extent, log_joint - log_evidence, log_evidence)
    return posterior, log_guide, log_prior


def disc(spacing: float, offset: float = 0.0) -> tuple[Tensor, Tensor]:
    """Grid points in the disc that holds the mass of a standard normal, and their log-masses.

    Args:
        spacing: Of the grid.
        offset: By which the grid is moved along both axes, in spacings.

    Returns:
        Points ``(G, 2)``, and the log of density times cell area, ``(G,)``, float64.

    Example:
        >>> points, log_mass = disc(0.1)
        >>> round(float(log_mass.exp().sum()), 4)
        1.0
    """
    half = math.ceil(RADIUS / spacing)
    axis = (torch.arange(-half, half + 1, dtype=torch.float64) + offset) * spacing
    points = torch.cartesian_prod(axis, axis)
    points = points[points.square().sum(-1) < RADIUS**2]
    log_mass = -0.5 * points.square().sum(-1) - math.log(2 * math.pi) + 2 * math.log(spacing)
    return points, log_mass


def log_evidence_on(
    points: Tensor, log_mass: Tensor, decoder: Callable[..., Any], x: Tensor
) -> Tensor:
    r"""Log p(x) of binary data by a sum over a grid, which needs no guide.

    .. math:: \log \sum_g m_g \prod_d \mathrm{Bernoulli}(x_d; \pi_d(z_g))

    Args:
        points: Of the grid, ``(G, 2)``.
        log_mass: Of the prior at the points, ``(G,)``.
        decoder: From ``(G, 2)`` to independent Bernoullis of the data.
        x: Binary data, ``(B, *shape)``.

    Returns:
        ``(B,)``, float64, in nats.
    """
    flat = x.flatten(1)
    total = torch.full((len(x),), -math.inf, dtype=torch.float64)
    with torch.no_grad():
        for some, mass in _blocks(points.to(x.dtype), log_mass):
            logits = decoder(some).base_dist.logits.flatten(1)
            # log Bernoulli(x; logit l) = x l - log(1 + e^l)
            log_zero = torch.nn.functional.softplus(logits).double().sum(-1)
            log_joint = (flat @ logits.T).double() + (mass - log_zero)
            total = torch.logaddexp(total, log_joint.logsumexp(1))
    return total


def _blocks(*values: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(value.split(_POINTS_AT_ONCE) for value in values), strict=True)


def _centres(low: Tensor, high: Tensor, side: int) -> Tensor:
    """Of the cells of a box, ``(side * side, 2)``."""
    inside = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    first, second = (start + (end - start) * inside for start, end in zip(low, high, strict=True))
    rows, columns = torch.meshgrid(second, first, indexing="ij")
    return torch.stack([columns.flatten(), rows.flatten()], -1)


def _evaluate(
    log_densities: Callable[[Tensor], tuple[Tensor, ...]], points: Tensor
) -> tuple[Tensor, ...]:
    """At points of the plane, ``(G,)`` each, float64."""
    with torch.no_grad():
        parts = [log_densities(some.float().unsqueeze(1)) for (some,) in _blocks(points)]
    return tuple(torch.cat(part).squeeze(1).double() for part in zip(*parts, strict=True))
