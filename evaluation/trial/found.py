"""What a trial found out."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import false_discovery_control
from torch import Tensor

from aevb.data.tables import data_frame, html_table
from aevb.evaluation import limits
from aevb.evaluation.arviz import to_arviz
from aevb.evaluation.latents.embedding import column_names
from aevb.evaluation.latents.use import LatentUse
from aevb.evaluation.posterior.calibration import Calibration
from aevb.evaluation.posterior.errors import PosteriorErrors
from aevb.evaluation.posterior.gaps import Gaps
from aevb.evaluation.predictive.checks import PredictiveCheck
from aevb.evaluation.trial.pictures import draws_picture
from aevb.evaluation.trial.verdict import sentences, table
from aevb.inference import Draws, ImportanceEvidence

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Trial"]

_PARTS = ("gaps", "calibration", "predictive_checks", "latents")  # what may be missing


@dataclass(frozen=True, repr=False)
class Trial:
    """What was found out about a guide at some datapoints.

    Attributes:
        x: The datapoints, ``(B, *shape)``; all data as the only one, under a joint posterior; None
            where the model observes them at several sites.
        draws: Of the chains.
        errors: The guide against them.
        rhat: Of the chains, worst dimension, ``(B,)``.
        ess_bulk: Effective draws, worst dimension, ``(B,)``.
        ess_tail: Likewise of the tails.
        weights: What importance sampling with the guide as proposal makes of log p(x).
        gaps: Inference gaps; None where the guide's family has no parameters for each datapoint.
        calibration: Of the guide on data simulated from the model, not on ``x``.
        predictive_checks: Of ``x`` against the model's replications of it.
        latents: Active units and KL per dimension, over ``x`` or a larger population.
        missing: Why what is None of these four could not be had, by name.

    Example:
        >>> from aevb.evaluation import compare
        >>> from aevb.models import FactorAnalysis, FullNormal
        >>> fa, x = FactorAnalysis((5,), 2, FullNormal()), torch.zeros(3, 5)
        >>> brief = {"num_samples": 50, "num_warmup": 50, "max_steps": 100, "num_simulations": 0}
        >>> trial = compare(fa, x, **brief)
        >>> trial.to_dataframe(index=["a", "b", "c"]).shape
        (3, 16)
    """

    x: Tensor | None
    draws: Draws
    errors: PosteriorErrors
    rhat: NDArray[np.float64]
    ess_bulk: NDArray[np.float64]
    ess_tail: NDArray[np.float64]
    weights: ImportanceEvidence
    gaps: Gaps | None
    calibration: Calibration | None
    predictive_checks: PredictiveCheck | None
    latents: LatentUse | None
    missing: dict[str, str]

    @property
    def khat(self) -> NDArray[np.float64]:
        """Pareto k̂ of the guide's weights, ``(B,)``."""
        return self.weights.khat.expand(self.draws.unconstrained.shape[2]).numpy()

    @property
    def corrected(self) -> NDArray[np.bool_]:
        """Where importance weights correct the guide, ``(B,)``."""
        return self.weights.is_trusted.expand(self.draws.unconstrained.shape[2]).numpy()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the unconstrained dimensions: ``"z[0]"``, of site ``"z"`` before its bijection."""
        dims = self.draws.unconstrained.shape[-1]
        count = self.draws.unconstrained[..., 0].numel()
        sites = {name: value.numel() // count for name, value in self.draws.samples.items()}
        if sum(sites.values()) != dims:  # as on a simplex, which has a dimension less
            return tuple(f"u[{dim}]" for dim in range(dims))
        empty = [torch.empty(0, width) for width in sites.values()]
        return column_names(sites, empty)

    @property
    def judged(self) -> NDArray[np.bool_]:
        """Where the chains converged, so that a comparison means something, ``(B,)``."""
        enough = np.minimum(self.ess_bulk, self.ess_tail) >= limits.ESS_LIMIT
        sound = ~self.draws.suspicious.cpu().numpy()
        return (self.rhat <= limits.RHAT_LIMIT) & enough & sound

    @property
    def differs(self) -> NDArray[np.bool_]:
        """Where the two sets of draws differ, by Benjamini and Hochberg's rule, ``(B,)``."""
        judged = self.judged
        result = np.zeros(len(judged), dtype=bool)
        if judged.any():
            p = self.errors.p_value.numpy()[judged]
            result[judged] = false_discovery_control(p) <= limits.FALSE_DISCOVERY_RATE
        return result

    def summary(self) -> dict[str, Any]:
        """Everything as JSON-able numbers; moments over judged datapoints, in posterior sds."""
        judged, errors = torch.from_numpy(self.judged), self.errors
        count = int(judged.sum())
        figures: dict[str, Any] = {
            "num_datapoints": len(judged),
            "num_judged": count,
            "num_differing": int(self.differs.sum()),
            "num_corrected": int(self.corrected.sum()),
            "num_khat_undefined": int(np.isnan(self.khat).sum()),
            "divergences": int(self.draws.divergences.sum()),
            "rhat_worst": _worst(self.rhat, np.max),
            "ess_bulk_least": _worst(self.ess_bulk, np.min),
            "ess_tail_least": _worst(self.ess_tail, np.min),
            "acceptance_rate": float(self.draws.stats["acceptance_rate"].mean()),
        }
        if count:
            mean, noise = errors.mean_error[judged], errors.noise[judged]
            # the noise of the chains adds its variance to the squared error
            square = (mean.square() - noise.square()).mean().clamp(min=0.0)
            ratio = errors.log_scale_ratio[judged]
            of_each = ratio.mean(-1).exp()
            figures |= {
                "mean_error_rms": float(square.sqrt()),
                "mean_error_largest": float(mean.abs().max()),
                "scale_ratio": float(ratio.mean().exp()),
                "scale_ratio_error": float(of_each.std()) / count**0.5 if count > 1 else None,
                "correlation_missed": float(errors.correlation_missed[judged].mean()),
                "energy_distance": float(errors.energy_distance[judged].mean()),
            }
        parts = {name: getattr(self, name) for name in _PARTS}
        figures |= {name: part.summary() for name, part in parts.items() if part is not None}
        return figures | {f"why_no_{name}": why for name, why in self.missing.items()}

    def verdict(self) -> list[str]:
        """What may be believed, in sentences."""
        return sentences(self.summary())

    def table(self) -> str:
        """The figures in lines, with their errors."""
        return table(self.summary())

    def to_dataframe(self, index: Iterable[Any] | None = None) -> "DataFrame":
        """What was found out about each datapoint, in the order of ``x``.

        Args:
            index: Names or numbers of the datapoints, as ``split.indices``; by default 0, 1, ...

        Returns:
            ``judged``, ``differs``, ``corrected``; the guide's errors, in posterior standard
            deviations and over dimensions: ``mean_error_rms``, ``scale_ratio`` (geometric mean),
            ``correlation_missed``, ``energy_distance`` with ``p_value``; ``rhat``, ``ess_bulk``
            and ``ess_tail`` of the chains; ``khat`` of the weights; and in nats, where they were
            had, ``log_evidence`` with ``log_evidence_error``, ``approximation_gap`` and
            ``amortization_gap``.

        Raises:
            ValueError: If there are other than B names.
        """
        errors, gaps = self.errors, self.gaps
        columns: dict[str, Any] = {
            "judged": self.judged, "differs": self.differs, "corrected": self.corrected,
            "mean_error_rms": errors.mean_error.square().mean(-1).sqrt(),
            "scale_ratio": errors.log_scale_ratio.mean(-1).exp(),
            "correlation_missed": errors.correlation_missed,
            "energy_distance": errors.energy_distance, "p_value": errors.p_value,
            "rhat": self.rhat, "ess_bulk": self.ess_bulk, "ess_tail": self.ess_tail,
            "khat": self.khat,
        }  # fmt: skip
        if gaps is not None:
            columns |= {
                "log_evidence": gaps.log_evidence,
                "log_evidence_error": gaps.log_evidence_error,
                "approximation_gap": gaps.approximation,
                "amortization_gap": gaps.amortization,
            }
        return data_frame(columns, index)

    def __repr__(self) -> str:
        """One line: how many posteriors were judged, and how many of them differ."""
        found = self.summary()
        return (
            f"Trial({found['num_datapoints']} datapoints, {found['num_judged']} judged, "
            f"{found['num_differing']} differ, {found['num_corrected']} corrected by weights, "
            f"seed={self.draws.seed})"
        )

    def _repr_html_(self) -> str:
        """The same as a table, above the verdict."""
        found = self.summary()
        rows = {name: value for name, value in found.items() if not isinstance(value, dict | str)}
        return html_table("Trial", rows, "\n".join(self.verdict()))

    def to_arviz(self) -> Any:
        """The chains' draws with their statistics, for ArviZ."""
        evidence = None if self.gaps is None else self.gaps.log_evidence
        observed = None
        if self.x is not None:
            observed = {"observed": self.x if self.draws.is_local else self.x[0]}
        return to_arviz(self.draws, observed_data=observed, log_evidence=evidence)

    def plot(self, datapoint: int) -> Figure:
        """Guide and chains at one datapoint, in the two dimensions that differ most.

        Args:
            datapoint: Number of it, from 0.
        """
        return draws_picture(self.errors, datapoint, self.names)


def _worst(values: NDArray[np.float64], worst: Callable[..., Any]) -> float | None:
    """Of the values that are defined."""
    known = values[np.isfinite(values)]
    return float(worst(known)) if len(known) else None
