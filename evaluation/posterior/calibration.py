"""Simulation-based calibration: does the guide know how wrong it may be?"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from aevb.data.seeds import fresh_if_none
from aevb.evaluation.latents.embedding import column_names
from aevb.evaluation.limits import BYTES_AT_ONCE, check_at_least
from aevb.evaluation.posterior.ecdf import simultaneous_band, simultaneous_p_value
from aevb.inference import simulate
from aevb.inference.process import randomness
from aevb.inference.process.devices import device_of, moved
from aevb.inference.process.progress import progress_bar
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.joint import Joint
from aevb.inference.programs.layouts import by_datapoint

__all__ = ["Calibration", "calibrate"]


@dataclass(frozen=True)
class Calibration:
    """Ranks of true latents among draws of the guide; uniform if the guide is the posterior.

    Attributes:
        ranks: How many of ``num_draws`` draws lie below the truth, ``(simulations, dims)``.
        names: Of each column: ``"z[0]"`` for a dimension of site ``"z"``, and last
            ``"log_joint"``, whose ranks are those of log p(x, z).
        num_draws: Of the guide for each simulation.
        seed: Of everything random.

    Example:
        >>> ranks = torch.arange(100).remainder(10).unsqueeze(-1)
        >>> calibration = Calibration(ranks, ("z",), num_draws=9, seed=0)
        >>> calibration.is_calibrated, float(calibration.ecdf_difference.abs().max())
        (True, 0.0)
    """

    ranks: Tensor
    names: tuple[str, ...]
    num_draws: int
    seed: int

    @property
    def grid(self) -> Tensor:
        """Where the curves are evaluated, ``(num_draws,)``: 1 / (num_draws + 1) and so on."""
        return torch.arange(1, self.num_draws + 1, dtype=torch.float64) / (self.num_draws + 1)

    @property
    def ecdf_difference(self) -> Tensor:
        """Share of simulations below each point of the grid, less the expected, ``(dims, grid)``.

        A guide that is too narrow gives a rise and then a fall; one that is too wide the reverse;
        a hill stands for draws above the truth, a valley for draws below it.
        """
        return self._counts.double() / len(self.ranks) - self.grid

    @cached_property
    def band(self) -> Tensor:
        """Lowest and highest difference, ``(2, grid)``, that 95 % of exact guides stay between."""
        counts = simultaneous_band(len(self.ranks), self.num_draws, coverage=0.95)
        return counts / len(self.ranks) - self.grid

    @cached_property
    def p_values(self) -> Tensor:
        """Of the test that a curve is that of uniform ranks, ``(dims,)``."""
        return torch.tensor(
            [simultaneous_p_value(counts, len(self.ranks)) for counts in self._counts],
            dtype=torch.float64,
        )

    @property
    def p_value(self) -> float:
        """Of all dimensions together: the smallest times their number (Bonferroni)."""
        return min(1.0, float(self.p_values.min()) * len(self.names))

    @property
    def is_calibrated(self) -> bool:
        """Whether nothing speaks against the guide at the 5 % level."""
        return self.p_value > 0.05

    @property
    def worst(self) -> list[int]:
        """Dimensions from the smallest p-value on; of equal ones the farthest curve is first."""
        farthest = self.ecdf_difference.abs().amax(-1).tolist()
        p = self.p_values.tolist()
        return sorted(range(len(p)), key=lambda dim: (p[dim], -farthest[dim]))

    @property
    def strays(self) -> Tensor:
        """Dimensions that speak against the guide at the 5 % level of them all, ``(dims,)``."""
        return self.p_values * len(self.names) <= 0.05

    @property
    def shift(self) -> Tensor:
        """Mean rank less the expected, in standard errors of uniform ranks, ``(dims,)``.

        Positive where the guide's draws lie too low.
        """
        centred, variance, _ = self._moments()
        return centred.mean(0) / (variance / len(centred)) ** 0.5

    @property
    def spread(self) -> Tensor:
        """Variance of the ranks about the middle less the expected, in standard errors.

        Positive where the guide is too narrow for its errors: the truth is in its tails too
        often. Negative where it is too wide. ``(dims,)``.
        """
        centred, variance, of_square = self._moments()
        excess = centred.square().mean(0) - variance
        return excess / max((of_square / len(centred)) ** 0.5, sys.float_info.min)

    def fault(self, dim: int) -> str:
        """In which way a dimension's draws stray most, whether or not they stray far."""
        shift, spread = float(self.shift[dim]), float(self.spread[dim])
        if abs(spread) > abs(shift):
            return "too narrow" if spread > 0 else "too wide"
        return "too low" if shift > 0 else "too high"

    def summary(self) -> dict[str, Any]:
        """The verdict and its figures, JSON-able, dimensions from the worst on."""
        return {
            "p_value": self.p_value,
            "is_calibrated": self.is_calibrated,
            "num_straying": int(self.strays.sum()),
            "num_simulations": len(self.ranks),
            "num_draws": self.num_draws,
            "dimensions": {
                self.names[dim]: {
                    "p_value": float(self.p_values[dim]),
                    "strays": bool(self.strays[dim]),
                    "fault": self.fault(dim),
                    "shift": float(self.shift[dim]),
                    "spread": float(self.spread[dim]),
                }
                for dim in self.worst
            },
        }

    def _moments(self) -> tuple[Tensor, float, float]:
        """Ranks less L/2; their variance, and that of their squares, if they are uniform."""
        n = self.num_draws + 1
        variance, fourth = (n**2 - 1) / 12, (n**2 - 1) * (3 * n**2 - 7) / 240
        return self.ranks.double() - self.num_draws / 2, variance, fourth - variance**2

    @property
    def _counts(self) -> Tensor:
        """Simulations whose rank is below 1, 2, ..., num_draws, ``(dims, num_draws)``."""
        levels = torch.arange(self.num_draws)
        return (self.ranks.T.unsqueeze(-1) <= levels).sum(1)

    def __repr__(self) -> str:
        """One line, with the verdict."""
        verdict = "calibrated" if self.is_calibrated else "not calibrated"
        worst = self.names[self.worst[0]]
        return (
            f"Calibration({verdict}, p={self.p_value:.2g}, worst {worst!r}, {len(self.ranks)} "
            f"simulations × {self.num_draws} draws, seed={self.seed})"
        )


def calibrate(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    num_simulations: int = 1000,
    num_draws: int = 99,
    seed: int | None = 0,
) -> Calibration:
    r"""Rank simulated latents among draws of the guide given the data simulated from them.

    .. math::
        z \sim p(z), \quad x \sim p(x \mid z), \quad z_1, \dots, z_L \sim q(z \mid x), \qquad
        r = \sum_l 1[z_l < z]

    The rank is uniform on 0, ..., L where q is the exact posterior. Each dimension is ranked, and
    log p(x, z), which notices what single dimensions do not, such as a missing correlation.
    The data plate of the arguments gives as many simulations at once as there are datapoints.

    References:
        Validating Bayesian Inference Algorithms with Simulation-Based Calibration (Talts,
        Betancourt, Simpson, Vehtari & Gelman, 2018), https://arxiv.org/abs/1804.06788; Graphical
        test for discrete uniformity and its applications in goodness-of-fit evaluation and
        multiple sample comparison (Säilynoja, Bürkner & Vehtari, 2022), for bands and p-values,
        https://arxiv.org/abs/2103.10522; Simulation-Based Calibration Checking for Bayesian
        Computation: The Choice of Test Quantities Shapes Sensitivity (Modrák et al., 2023), for
        log p(x, z), https://arxiv.org/abs/2211.02383

    Args:
        model: Pyro program of the joint distribution.
        guide: Pyro program of the posterior.
        args: Arguments of both; of observed ones only the shape matters.
        num_simulations: N, pairs of latents and data.
        num_draws: L; one less than a round number makes even bins.
        seed: Same seed, same ranks; torch's global random state is left as it was.

    Raises:
        ValueError: If a number is not positive, the model has no latents or observes nothing, or
            observes data that are no argument, so that the guide cannot see what was simulated.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> fa = FactorAnalysis((5,), 2).double()
        >>> x = torch.zeros(50, 5).double()
        >>> calibration = calibrate(fa.model, fa.guide, x, num_simulations=100)
        >>> calibration.ranks.shape, calibration.names
        (torch.Size([100, 3]), ('z[0]', 'z[1]', 'log_joint'))
    """
    seed = fresh_if_none(seed)
    check_at_least(1, num_simulations=num_simulations, num_draws=num_draws)
    device = device_of(model, guide, args=args)
    args = moved(args, device)
    blocks: list[Tensor] = []
    with (
        torch.no_grad(),
        randomness.stream(seed, "simulations", device),
        argument_checks(False),
        progress_bar(num_simulations, "simulation", description="calibration") as bar,
    ):
        while sum(map(len, blocks)) < num_simulations:
            ranks, names = _ranks(model, guide, args, num_draws)
            blocks.append(ranks.cpu())
            bar.update(min(len(ranks), num_simulations - bar.n))
    return Calibration(torch.cat(blocks)[:num_simulations], names, num_draws, seed)


def _ranks(
    model: Callable[..., Any], guide: Callable[..., Any], args: tuple[Any, ...], num_draws: int
) -> tuple[Tensor, tuple[str, ...]]:
    """Ranks of one simulation, ``(batch, dims)``, and the names of the dimensions."""
    simulation = simulate(model, *args)
    if simulation.hidden:
        raise ValueError(
            f"model: the sites {list(simulation.hidden)} observe what is no argument, so that the "
            "guide cannot see simulated data: pass the data as an argument"
        )
    joint = Joint(simulation.model, *simulation.args, guide=guide)
    layout = joint.layout
    if not simulation.latents:
        raise ValueError("model: has no latent sites, so there is nothing to calibrate")
    draws, _ = joint.draw(num_draws)
    # a discrete latent that the guide leaves out is summed out of the density
    draws = {name: draws[name] for name in simulation.latents if name not in layout.summed_out}
    truth = {name: _like_a_draw(simulation.latents[name], draws[name]) for name in draws}
    among = torch.cat([joint.log_joint(part) for part in joint.chunks(draws, BYTES_AT_ONCE)])
    columns = [
        _rank(by_datapoint(truth[name], layout), by_datapoint(draws[name], layout))
        for name in truth
    ]
    true_joint = joint.log_joint(truth)
    columns.append(_rank(true_joint.unsqueeze(-1), among.unsqueeze(-1)))
    return torch.cat(columns, -1), column_names([*truth, "log_joint"], columns)


def _like_a_draw(value: Tensor, draws: Tensor) -> Tensor:
    """A value of a site outside the plate of draws as the only one in it."""
    padding = (1,) * (draws.ndim - value.ndim)
    return value.reshape(padding + value.shape).expand(1, *draws.shape[1:])


def _rank(truth: Tensor, draws: Tensor) -> Tensor:
    """Draws below the truth, ``(batch, dims)``; equal ones are below by chance."""
    below, equal = (draws < truth).sum(0), (draws == truth).sum(0)
    chance = torch.rand(equal.shape, device=equal.device)
    return below + ((equal + 1) * chance).long().clamp(max=equal)
