"""How much of its latents a model uses: active units and nats, over the same datapoints."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aevb.evaluation.latents.embedding import ActiveUnits, active_units, embed
from aevb.evaluation.latents.kl import KLPerDimension, kl_per_dimension
from aevb.inference import NoDensityError

__all__ = ["LatentUse", "latent_use"]


@dataclass(frozen=True, repr=False)
class LatentUse:
    """Active units and the KL of each dimension.

    Attributes:
        units: Which latents the data move.
        kl: Nats that each carries; None where the posterior is a point, which has no density.
        num_datapoints: Over which both were taken.
        why_no_kl: The reason.

    Example:
        >>> import torch
        >>> units = ActiveUnits(torch.tensor([0.9, 0.001]), 0.01, ("z[0]", "z[1]"))
        >>> kl = KLPerDimension(torch.eye(2), torch.zeros(2, 2), units.names, seed=0)
        >>> LatentUse(units, kl, num_datapoints=2).summary()["kl_by_part"]
        {'z[0]': 0.5, 'z[1]': 0.5}
    """

    units: ActiveUnits
    kl: KLPerDimension | None
    num_datapoints: int
    why_no_kl: str | None = None

    def __repr__(self) -> str:
        """One line."""
        kl = "" if self.kl is None else f", {float(self.kl.mean.sum()):.4g} nats"
        return f"LatentUse({self.units!r}{kl}, {self.num_datapoints} datapoints)"

    def summary(self) -> dict[str, Any]:
        """Figures, JSON-able; ``kl`` in nats per datapoint, with its Monte Carlo error."""
        figures = {
            "num_datapoints": self.num_datapoints,
            "latents": len(self.units.names),
            "active_units": self.units.count,
            "threshold": self.units.threshold,
        }
        if self.kl is None:
            return {**figures, "kl": None, "why_no_kl": self.why_no_kl}
        error = float(self.kl.mean_standard_error.square().sum().sqrt())
        parts = self.kl.mean
        return {
            **figures,
            "kl": float(parts.sum()),
            "kl_error": error if math.isfinite(error) else None,
            "kl_by_part": dict(zip(self.kl.names, parts.tolist(), strict=True)),
        }


def latent_use(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    num_samples: int = 1000,
    seed: int = 0,
) -> LatentUse:
    """Active units and KL per dimension at once; see their own functions.

    Args:
        model: Pyro program of the joint distribution.
        guide: Pyro program of the posterior, with all latents in ``pyro.plate("data", N)``.
        args: Arguments of both, for at least two datapoints.
        num_samples: Draws, where there is no closed form.
        seed: Of the draws; torch's global random state is left as it was.

    Raises:
        ValueError: As :func:`aevb.evaluation.active_units` and
            :func:`aevb.evaluation.kl_per_dimension`.

    Example:
        >>> import torch
        >>> from aevb.models import FactorAnalysis
        >>> fa = FactorAnalysis((5,), 2)
        >>> use = latent_use(fa.model, fa.guide, torch.zeros(4, 5))
        >>> use.num_datapoints, use.summary()["active_units"]
        (4, 0)
    """
    units = active_units(guide, *args, num_samples=num_samples, seed=seed)
    try:
        kl = kl_per_dimension(model, guide, *args, num_samples=num_samples, seed=seed)
    except NoDensityError:
        why = "the posterior is a single point, whose divergence from the prior is infinite"
        count = len(embed(guide, *args, num_samples=num_samples, seed=seed).mean)
        return LatentUse(units, None, count, why)
    return LatentUse(units, kl, len(kl.kl))
