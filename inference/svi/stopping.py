"""When a noisy bound has stopped rising: a rule without validation data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aevb.inference.process.limits import refuse_below

__all__ = ["BoundWatch", "Rise", "UntilConverged"]

# Looks lie on a geometric grid of steps, six to a doubling.
_LOOKS_PER_DOUBLING = 6
_FIRST_LOOK = 150  # steps; of minibatches, at least so many epochs as there are batch means
_FEWEST_EPOCHS = 20
_WINDOW = 1 / 2  # the last part of the run, whose trend is tested
_AHEAD = 1 / 4  # of the window: how far the trend is carried on
_BATCHES = 20  # means that the trend is fitted to; their residuals have 18 degrees of freedom
# Found on programs (experiments/stopping.py). Where the weights drift on, as those of networks
# do, the bound alone decides: over the whole window and with more certainty.
_BOUNDARY = 2.0  # standard errors
_BOUNDARY_ALONE = 3.0
_SNAPSHOTS = 4  # increments of the parameters that are compared with their sum
_STRAIGHTEST = 0.7  # 1 is a random walk, 1/4 a stationary process, 4 a straight line
_MOST_BLOCKS = 480  # block sums kept; then neighbours are joined
_LONGEST_BLOCK_AT_FIRST = 1000
_NOISE_SHARE = 0.5
_LEAST_TOLERANCE = 0.05  # nats of the whole bound
_RATE_CHANGE = 1.25


class Rise(NamedTuple):
    """How a bound still moves, by the trend of the last part of a run.

    Attributes:
        expected: Rise if the trend went on for ``steps`` more, in the unit of the run.
        standard_error: Of it, corrected for autocorrelation.
        tolerance: What counts as no rise.
        steps: For which the trend was carried on.
        straightness: Of the parameters' way in the last part: squared length of the whole over
            the sum of those of its four pieces. 4 is a straight line, 1 a random walk, ¼ noise
            about a point.

    Example:
        >>> rise = Rise(
        ...     expected=0.3, standard_error=0.1, tolerance=0.5, steps=1000, straightness=1.2
        ... )
        >>> rise.expected + 2 * rise.standard_error <= rise.tolerance
        True
    """

    expected: float
    standard_error: float
    tolerance: float
    steps: int
    straightness: float

    @property
    def is_over(self) -> bool:
        """Whether the bound rises, or falls, by less than the tolerance, errors included."""
        margin = abs(self.expected) + _BOUNDARY * self.standard_error
        if self.straightness < _STRAIGHTEST:
            return margin < self.tolerance
        alone = abs(self.expected) + _BOUNDARY_ALONE * self.standard_error
        return alone / _AHEAD < self.tolerance


@dataclass(frozen=True)
class UntilConverged:
    r"""Train until the bound rises no more than its noise lets matter; ``steps="auto"``.

    At steps on a geometric grid, two questions are asked. Would the bound's linear trend over the
    last half of the run, carried on for a quarter of that, change it by less than the tolerance,
    two standard errors included? These come from the residuals of means over batches of steps,
    with their autocorrelation. And have the parameters ceased to move along a line? If both hold,
    training stops. Where only the second fails, as the weights of networks drift on, the trend is
    carried on for all of that half, with three standard errors. What comes after a plateau no
    trend can tell; how often this errs is in ``experiments/results/stopping.md``. Parameters that
    walk at random, few of them above all, may pass for parameters at rest.

    A learning rate that has changed by more than a quarter starts both anew. The rule does not
    know what a schedule will do later: milestones that matter ask for ``steps`` as a number.

    References:
        Robust, Automated, and Accurate Black-box Variational Inference (Welandawe, Andersen,
        Vehtari & Huggins, 2022), section 3 (stationary iterates), https://arxiv.org/abs/2203.15945;
        Robust, Accurate Stochastic Optimization for Variational Inference (Dhaka et al., 2020),
        https://arxiv.org/abs/2009.00666

    Args:
        tolerance: Change of the bound that does not matter, in the unit of the run. By default
            half the standard deviation that the bound has from step to step, or that of the means
            of steps where it is less (as over whole epochs, in which the choice of datapoints
            cancels), and at least 0.05 nats of the whole bound.
        max_steps: Where training ends at the latest, with a warning; by default 100,000, or 1,000
            epochs if that is more.

    Raises:
        ValueError: If ``tolerance`` is not positive, or ``max_steps`` less than 1.

    Example:
        >>> UntilConverged(tolerance=0.1).max_steps is None
        True
    """

    tolerance: float | None = None
    max_steps: int | None = None

    def __post_init__(self) -> None:
        refuse_below(1, max_steps=self.max_steps)
        if self.tolerance is not None and not 0 < self.tolerance < math.inf:
            raise ValueError(f"tolerance: must be positive and finite; got {self.tolerance}")


class BoundWatch:
    """The rule at work: fed every step's bound, it looks now and then.

    Args:
        rule: Its settings.
        steps_per_epoch: Blocks are whole epochs, or parts of long ones.
        num_datapoints: What the bound of the whole data is divided by in ``add``'s bounds.
        skipped: Steps not to be judged, as those of a warm-up.

    Attributes:
        rise: What the last look found; None before the first.
    """

    def __init__(
        self,
        rule: UntilConverged,
        steps_per_epoch: int = 1,
        num_datapoints: float = 1.0,
        skipped: int = 0,
    ) -> None:
        self.rule = rule
        self.rise: Rise | None = None
        self.max_steps = rule.max_steps or max(100_000, 1000 * steps_per_epoch)
        self._least = _LEAST_TOLERANCE / num_datapoints
        parts = math.ceil(steps_per_epoch / _LONGEST_BLOCK_AT_FIRST)
        epochs = steps_per_epoch > 1
        self._first = max(_FIRST_LOOK, _FEWEST_EPOCHS * steps_per_epoch if epochs else 0)
        self.block = math.ceil(steps_per_epoch / parts) if epochs else 5  # steps
        self.blocks: list[list[float]] = []  # mean and variance of the bounds of each
        self.open = [0.0, 0.0, 0.0]  # count, mean and squares about it, of the block begun
        self.start = skipped  # from where on steps are comparable
        self.looks = 0
        self.step = 0
        self.rate: float | None = None
        self.snapshots: list[Tensor] = []
        self.stopped = False

    @property
    def is_due(self) -> bool:
        """Whether :meth:`look` has something to judge: at the end of the block of a look."""
        return not self.open[0] and self.step >= self._next_look

    @property
    def steps_to_look(self) -> int:
        """Steps that may be made before :meth:`look` is due, at most."""
        to_block_end = self.block - int(self.open[0])
        beyond = self._next_look - self.step - to_block_end
        return to_block_end + max(0, math.ceil(beyond / self.block)) * self.block

    def add(self, bounds: Sequence[float]) -> None:
        """Take in the bounds of the next steps, per datapoint, however they are cut."""
        count, mean, squares = self.open
        for bound in bounds:
            count += 1
            off = bound - mean
            mean += off / count
            squares += off * (bound - mean)
            if count == self.block:
                self.blocks.append([mean, squares / max(1.0, count - 1)])
                count = mean = squares = 0.0
                if len(self.blocks) == _MOST_BLOCKS:
                    self._join()
        self.open = [count, mean, squares]
        self.step += len(bounds)

    def look(self, parameters: Sequence[Tensor], rate: float) -> bool:
        """Whether to stop, asked when it is due, and where the rate may change next.

        A decision is a function of the bounds and parameters by their steps, provided that these
        steps are the same in whatever parts a run is made.

        Args:
            parameters: As they are.
            rate: Learning rate of the last step.
        """
        if self.rate is None or not 1 / _RATE_CHANGE < rate / self.rate < _RATE_CHANGE:
            if self.rate is not None:
                self.start = max(self.start, self.step)
            self.rate = rate
            self.snapshots, self.looks = [], 0
        if not self.is_due:
            return self.stopped
        while self._next_look <= self.step:
            self.looks += 1
        now = torch.cat([p.detach().reshape(-1).float() for p in parameters]).cpu()
        self.snapshots = [*self.snapshots, now][-_SNAPSHOTS - 1 :]
        if len(self.snapshots) > _SNAPSHOTS:
            self.rise = self._judge()
            self.stopped = self.rise is not None and self.rise.is_over
        return self.stopped

    @property
    def _next_look(self) -> float:
        # the snapshots come first
        age = self._first * 2.0 ** ((self.looks - _SNAPSHOTS) / _LOOKS_PER_DOUBLING)
        return self.start + age

    def complaint(self, unit: str) -> str:
        """What is to be said of a run that was ended by ``max_steps``."""
        said = f"not converged after {self.step:,} steps"
        if self.rise is None:
            return f"{said}: too few since the start, a warm-up or a change of learning rate"
        rise, error, tolerance, steps, way = self.rise
        return (
            f"{said}: the bound's trend is {rise:+.3g} ± {error:.2g} {unit} in {steps:,} steps, "
            f"where {tolerance:.2g} were tolerated, and the straightness of the parameters' way "
            f"{way:.2g}, where {_STRAIGHTEST:g} was; give more max_steps, a larger tolerance, or "
            "another learning rate"
        )

    def _judge(self) -> Rise | None:
        """The trend over the window, carried on."""
        since = self.step - self.start
        size = int(_WINDOW * since / self.block / _BATCHES)  # blocks of a batch
        if size < 1 or size * _BATCHES > len(self.blocks):
            return None
        kept = torch.tensor(self.blocks[-size * _BATCHES :], dtype=torch.float64)
        means = kept[:, 0].reshape(_BATCHES, size).mean(1)
        slope, variance = trend(means)
        steps = size * self.block
        ahead = _AHEAD * _BATCHES
        error = math.sqrt(variance / _spread(_BATCHES))
        noise = min(float(kept[:, 1].median()), variance * steps)
        tolerance = self.rule.tolerance or max(_NOISE_SHARE * math.sqrt(noise), self._least)
        return Rise(
            slope * ahead, error * ahead, tolerance, round(ahead * steps),
            straightness(self.snapshots),
        )  # fmt: skip

    def _join(self) -> None:
        """Blocks of twice the length."""
        steps = self.block
        joined = []
        for (mean, variance), (other, spread) in zip(
            self.blocks[::2], self.blocks[1::2], strict=True
        ):
            squares = (variance + spread) * (steps - 1) + (mean - other) ** 2 * steps / 2
            joined.append([(mean + other) / 2, squares / max(1, 2 * steps - 1)])
        self.blocks, self.block = joined, 2 * steps

    def state_dict(self) -> dict[str, Any]:
        """All that a later look depends on."""
        names = [
            "block",
            "blocks",
            "open",
            "start",
            "looks",
            "step",
            "rate",
            "snapshots",
            "stopped",
        ]
        return {name: getattr(self, name) for name in names} | {
            "rise": None if self.rise is None else list(self.rise)
        }

    def load_state_dict(self, state: dict[str, Any], step: int) -> None:
        """Go on from :meth:`state_dict`; if empty, begin after ``step`` steps that had no rule."""
        self.step, self.start = step, max(self.start, step)
        for name, value in state.items():
            setattr(self, name, value)
        if self.rise is not None:
            self.rise = Rise(*self.rise)


def trend(means: Tensor, *, autocorrelation: bool = True) -> tuple[float, float]:
    """Slope of a line through batch means, and the variance of one of these about it.

    Residuals beyond three standard deviations are drawn in to these, five times over, since a
    bound has heavy tails. Positive autocorrelation of neighbours, its bias in twenty residuals
    corrected, makes the variance that of an autoregression's mean.

    Args:
        means: ``(batches,)``, float64.
        autocorrelation: Whether to correct the variance for it.

    Returns:
        Slope per batch; long-run variance of a batch mean.
    """
    count = len(means)
    place = torch.arange(count, dtype=means.dtype) - (count - 1) / 2
    drawn_in = means
    for _ in range(5):
        slope = (place * drawn_in).sum() / _spread(count)
        line = drawn_in.mean() + slope * place
        off = means - line
        limit = 3 * 1.4826 * (off - off.median()).abs().median()
        drawn_in = line + off.clamp(-limit, limit)
    slope = (place * drawn_in).sum() / _spread(count)
    off = drawn_in - drawn_in.mean() - slope * place
    squares = float(off.square().sum())
    variance = squares / (count - 2)
    if autocorrelation and squares > 0:
        found = float((off[1:] * off[:-1]).sum()) / squares + 2 / count
        kept = min(max(found, 0.0), 0.9)
        variance *= (1 + kept) / (1 - kept)
    return float(slope), variance


def straightness(points: list[Tensor]) -> float:
    """Squared distance of the ends over the sum of the squared steps between.

    Example:
        >>> straightness([torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([2.0])])
        2.0
    """
    steps = sum(float((b - a).square().sum()) for a, b in zip(points, points[1:], strict=False))
    whole = float((points[-1] - points[0]).square().sum())
    return whole / steps if steps else 0.0


def _spread(count: int) -> float:
    """Sum of the squares of 1 to ``count`` about their mean."""
    return count * (count**2 - 1) / 12
