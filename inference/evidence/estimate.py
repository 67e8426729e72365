"""What every estimate of log p(x) tells, and the figures that are printed of it."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor

from aevb.data.tables import data_frame, html_table

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "Evidence",
    "Shown",
    "counted",
    "error_of_mean",
    "mean_and_errors",
    "mean_figures",
    "number",
    "verdict",
]

# Part of the datapoints that may fail their diagnostic in a mean that is called trusted.
_FAILING = 0.05


@runtime_checkable
class Evidence(Protocol):
    """Estimates of log p(x), one for each datapoint, or a single one for a joint posterior.

    Example:
        >>> import torch
        >>> from aevb import inference, models
        >>> fa, x = models.FactorAnalysis((5,), 2), torch.zeros(3, 5)
        >>> evidence: Evidence = inference.importance_evidence(fa.model, fa.guide, x)
        >>> evidence.log_evidence.shape, evidence.is_trusted, evidence.summary()["verdict"]
        (torch.Size([3]), tensor([True, True, True]), 'trusted')
    """

    @property
    def log_evidence(self) -> Tensor:
        """``(batch,)``, in nats."""

    @property
    def standard_error(self) -> Tensor:
        """Of ``log_evidence``, ``(batch,)``; NaN where nothing tells it."""

    @property
    def is_trusted(self) -> Tensor:
        """Where the estimator's own diagnostic finds no fault, ``(batch,)``."""

    def summary(self) -> dict[str, Any]:
        """Means over datapoints with their errors and settings, JSON-able, in nats.

        ``verdict`` is ``"trusted"`` where at most one datapoint in twenty is not to be; otherwise
        it says what the mean is instead, as ``"lower bound"``, and ``why``. None stands for what
        is not defined.
        """


class Shown:
    """How every estimate is shown, by its summary, and what it is as a table of datapoints."""

    def to_dataframe(self: Any, index: Iterable[Any] | None = None) -> "DataFrame":
        """The estimates with their diagnostics, a row for each datapoint in the arguments' order.

        Args:
            index: Names or numbers of the datapoints, as ``split.indices``; by default 0, 1, ...

        Raises:
            ValueError: If there are other than so many.
        """
        columns = {name: getattr(self, name) for name in ("log_evidence", "standard_error")}
        columns |= {name: getattr(self, name) for name in self.diagnostics}
        return data_frame({**columns, "is_trusted": self.is_trusted}, index)

    def __repr__(self: Any) -> str:
        """One line with the figures of the summary."""
        figures = ", ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in self.summary().items()
        )
        return f"{type(self).__name__}({figures})"

    def _repr_html_(self: Any) -> str:
        """The same as a table."""
        return html_table(type(self).__name__, self.summary())


def mean_figures(evidence: Evidence) -> dict[str, Any]:
    """The mean over datapoints, its two errors, and their number, by the names of a summary."""
    found = mean_and_errors(evidence.log_evidence, evidence.standard_error)
    return {
        "log_evidence": found.pop("mean"),
        **found,
        "num_datapoints": len(evidence.log_evidence),
    }


def mean_and_errors(values: Tensor, errors: Tensor) -> dict[str, float | None]:
    """A mean over N datapoints and its two errors, which are kept apart.

    ``monte_carlo_error`` is the noise of the estimator for just these datapoints;
    ``standard_error`` is that of the mean as an estimate for the population that they were drawn
    from, sd/√N, and contains the former. None is what is not finite. Values and errors are
    ``(batch,)``.
    """
    return {
        "mean": number(values.mean()),
        "standard_error": error_of_mean(values),
        "monte_carlo_error": number(errors.square().sum().sqrt() / len(values)),
    }


def verdict(trusted: Tensor, why_not: str, otherwise: str = "lower bound") -> dict[str, str]:
    """What a mean is, by where its datapoints are trusted, ``(batch,)``, and why it is no more."""
    if bool((~trusted).double().mean() <= _FAILING):
        return {"verdict": "trusted"}
    return {"verdict": otherwise, "why": why_not}


def error_of_mean(values: Tensor) -> float | None:
    """sd/√N; None of a single value."""
    return number(values.std() / math.sqrt(len(values))) if len(values) > 1 else None


def number(value: Tensor) -> float | None:
    """What JSON can hold: None if it is not finite."""
    found = float(value)
    return found if math.isfinite(found) else None


def counted(count: int, noun: str) -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "datapoint"), counted(2000, "datapoint")
        ('1 datapoint', '2,000 datapoints')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
