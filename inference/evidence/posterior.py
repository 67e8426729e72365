"""Weighted draws of posteriors, and what speaks for them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aevb.data.tables import data_frame, html_table
from aevb.inference.evidence.estimate import counted, number
from aevb.inference.process import randomness
from aevb.inference.process.limits import refuse_below

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Posterior", "SOURCES"]

SOURCES = ("guide", "guide, reweighted", "fitted, reweighted", "hmc")


@dataclass(frozen=True)
class Posterior:
    """Weighted draws of each datapoint's posterior, and what speaks for them.

    Attributes:
        samples: Draws of each latent site, ``(S, *plates, *event)``.
        unconstrained: The same as real vectors, ``(S, B, D)``.
        log_weights: Normalized, ``(S, B)``; all −log S where draws count alike.
        source: Which of :data:`SOURCES` they are, a number for each datapoint, ``(B,)``.
        is_passed: Where they passed their test, ``(B,)``.
        ess: Effective number of them, ``(B,)``: by weights; of chains the least over dimensions.
        khat_pooled: As of :class:`~aevb.inference.ImportanceEvidence`, ``(B,)``; NaN of chains.
        rhat: Of chains, the largest over dimensions, ``(B,)``; NaN of weights.
        log_evidence: By the weights that judged them, ``(B,)``, in nats; trusted where those
            passed, as far as no mode escaped them (``unproved``), and elsewhere a lower bound.
        standard_error: Of ``log_evidence``; likewise.
        num_evaluations: Of the model at each datapoint, ``(B,)``; a gradient counts as three.
        seed: Of everything random.
        data_dims: Where the values of each site have the datapoints; empty of a joint posterior.

    Example:
        >>> from aevb import inference
        >>> from aevb.models import FactorAnalysis
        >>> fa, x = FactorAnalysis((5,), 2).double(), torch.zeros(3, 5).double()
        >>> found = inference.posterior(fa, x)
        >>> found.summary()["sources"]["guide"], found.mean.shape, found.resampled(10)["z"].shape
        (3, torch.Size([3, 2]), torch.Size([10, 3, 2]))
    """

    samples: dict[str, Tensor]
    unconstrained: Tensor
    log_weights: Tensor
    source: Tensor
    is_passed: Tensor
    ess: Tensor
    khat_pooled: Tensor
    rhat: Tensor
    log_evidence: Tensor
    standard_error: Tensor
    num_evaluations: Tensor
    seed: int
    data_dims: dict[str, int]

    @property
    def mean(self) -> Tensor:
        """Of the unconstrained latents, ``(B, D)``."""
        return torch.einsum("sb,sbi->bi", self.log_weights.exp(), self.unconstrained.double())

    @property
    def standard_deviation(self) -> Tensor:
        """Of the unconstrained latents, ``(B, D)``."""
        away = (self.unconstrained.double() - self.mean).square()
        return torch.einsum("sb,sbi->bi", self.log_weights.exp(), away).sqrt()

    def resampled(self, num: int, seed: int = 0) -> dict[str, Tensor]:
        """Draws that count alike, by systematic resampling.

        Args:
            num: Of each posterior.
            seed: Of the one number that each takes.

        Returns:
            ``(num, *plates, *event)`` by site.
        """
        chosen = self.systematic(num, seed)
        found = {}
        for name, value in self.samples.items():
            if place := self.data_dims.get(name):
                shape = [1] * value.ndim
                shape[0], shape[place] = chosen.shape
                index = chosen.reshape(shape).expand(num, *value.shape[1:])
                found[name] = value.gather(0, index)
            else:
                found[name] = value[chosen[:, 0]]
        return found

    def systematic(self, num: int, seed: int = 0) -> Tensor:
        """Which draws :meth:`resampled` takes, ``(num, B)``."""
        refuse_below(1, num=num)
        with randomness.stream(seed, "resampling", torch.device("cpu")):
            offset = torch.rand(self.log_weights.shape[1], 1, dtype=torch.float64)
        steps = (torch.arange(num, dtype=torch.float64) + offset) / num
        edges = self.log_weights.exp().cumsum(0).T.contiguous()
        found = torch.searchsorted(edges, steps * edges[:, -1:])
        return found.clamp(max=edges.shape[1] - 1).T

    def summary(self) -> dict[str, Any]:
        """How many posteriors each source gave, JSON-able, and what is not proved of them."""
        count = len(self.is_passed)
        by_source = {name: int((self.source == place).sum()) for place, name in enumerate(SOURCES)}
        failed = int((~self.is_passed).sum())
        return {
            "num_posteriors": count,
            "num_passed": count - failed,
            "sources": by_source,
            "ess_least": number(self.ess.min()),
            "ess_median": number(self.ess.median()),
            "num_evaluations_mean": number(self.num_evaluations.double().mean()),
            "num_samples": len(self.unconstrained),
            "seed": self.seed,
            "verdict": "passed" if not failed else f"{failed} of {count} did not pass",
            "unproved": self.unproved,
        }

    def to_dataframe(self, index: Iterable[Any] | None = None) -> "DataFrame":
        """What is known of each posterior, a row for each datapoint in the arguments' order.

        Args:
            index: Names or numbers of the datapoints, as ``split.indices``; by default 0, 1, ...
        """
        names = ("is_passed", "ess", "khat_pooled", "rhat", "log_evidence", "standard_error")
        sources = [SOURCES[place] for place in self.source.tolist()]
        figures = {name: getattr(self, name) for name in (*names, "num_evaluations")}
        return data_frame({"source": sources, **figures}, index)

    @property
    def unproved(self) -> str:
        """What no test of these draws can tell, in words."""
        said = "a mode that neither guide, fit nor chains came near would not be seen"
        failed = int((~self.is_passed).sum())
        if failed:
            where = counted(failed, "posterior")
            said = (
                f"chains of {where} did not mix or are short: do not use those; elsewhere {said}"
            )
        return said

    def __repr__(self) -> str:
        """One line."""
        found = self.summary()
        return (
            f"Posterior({found['num_passed']} of {counted(len(self.ess), 'posterior')} passed: "
            f"{_sources(found)}; {found['num_samples']:,} draws each, seed={self.seed})"
        )

    def _repr_html_(self) -> str:
        """The figures of the summary as a table."""
        rows = self.summary()
        return html_table("Posterior", {**rows, "sources": _sources(rows)})


def _sources(summary: dict[str, Any]) -> str:
    return ", ".join(f"{num} {name}" for name, num in summary["sources"].items() if num)
