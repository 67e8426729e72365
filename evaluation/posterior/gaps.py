"""How much evidence a guide gives away, and whether its family or its network is to blame."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aevb.data.seeds import stream_seed
from aevb.data.tables import data_frame, html_table
from aevb.inference import (
    AISEvidence,
    Evidence,
    ImportanceEvidence,
    NoDensityError,
    Refinement,
    ais_evidence,
    importance_evidence,
    refine,
)
from aevb.inference.evidence.estimate import mean_and_errors

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Gaps", "inference_gaps"]


@dataclass(frozen=True, repr=False)
class Gaps:
    r"""The inference gap of each datapoint and its two parts, ``(B,)``, in nats.

    .. math:: \log p(x) - \mathcal{L}[q] =
        \underbrace{\log p(x) - \mathcal{L}[q^\star]}_{\text{approximation}} +
        \underbrace{\mathcal{L}[q^\star] - \mathcal{L}[q]}_{\text{amortization}}

    Attributes:
        log_evidence: Of the estimates that may be trusted the one with the smallest error; where
            none may, a lower bound in expectation.
        log_evidence_error: Its standard error.
        trusted: Where some estimate of log p(x) may be trusted, ``(B,)``.
        amortized: Importance sampling with the guide.
        refined: Importance sampling with each datapoint's own posterior.
        annealed: Annealing, if it was asked for.
        refinement: The posteriors themselves.

    Example:
        >>> from aevb.evaluation import inference_gaps
        >>> from aevb.models import DiagonalNormal, FactorAnalysis
        >>> fa, x = FactorAnalysis((5,), 2, DiagonalNormal()), torch.zeros(3, 5)
        >>> gaps = inference_gaps(fa.model, fa.guide, x, max_steps=50)
        >>> bool(torch.allclose(gaps.inference, gaps.approximation + gaps.amortization))
        True
    """

    log_evidence: Tensor
    log_evidence_error: Tensor
    trusted: Tensor
    amortized: ImportanceEvidence
    refined: ImportanceEvidence
    annealed: AISEvidence | None
    refinement: Refinement

    @property
    def approximation(self) -> Tensor:
        """What the best member of the family misses."""
        return self.log_evidence - self.refined.elbo

    @property
    def approximation_error(self) -> Tensor:
        """Standard error of ``approximation``."""
        return _together(self.log_evidence_error, self.refined.elbo_standard_error)

    @property
    def amortization(self) -> Tensor:
        """What the network misses of the best member."""
        return self.refined.elbo - self.amortized.elbo

    @property
    def amortization_error(self) -> Tensor:
        """Standard error of ``amortization``."""
        return _together(self.amortized.elbo_standard_error, self.refined.elbo_standard_error)

    @property
    def inference(self) -> Tensor:
        """Both gaps together."""
        return self.approximation + self.amortization

    def to_dataframe(self, index: Iterable[Any] | None = None) -> "DataFrame":
        """The gaps with their errors, a row for each datapoint in the arguments' order.

        Args:
            index: Names or numbers of the datapoints; by default 0, 1, ...
        """
        names = (
            "log_evidence", "log_evidence_error", "approximation", "approximation_error",
            "amortization", "amortization_error", "trusted",
        )  # fmt: skip
        return data_frame({name: getattr(self, name) for name in names}, index)

    def __repr__(self) -> str:
        """One line, in nats per datapoint."""
        return (
            f"Gaps({len(self.trusted)} datapoints: approximation "
            f"{float(self.approximation.mean()):.3g}, amortization "
            f"{float(self.amortization.mean()):.3g} nats)"
        )

    def _repr_html_(self) -> str:
        """The summary as a table, with Monte Carlo errors."""
        rows = {
            name: f"{value['mean']:.4g} ± {value['monte_carlo_error']:.2g}"
            if isinstance(value, dict) and None not in value.values()
            else value
            for name, value in self.summary().items()
        }
        return html_table("Gaps", rows)

    def summary(self) -> dict[str, Any]:
        """Means over datapoints with two errors, and how many datapoints say less than they seem.

        ``monte_carlo_error`` is that for just these datapoints, and ``standard_error`` that of the
        mean for the population they come from, which contains it; None where it is not defined.
        At ``num_untrusted`` datapoints log p(x), and with it the inference and the approximation
        gap, is only bounded from below; at ``num_unrefined`` refinement had not yet converged, so
        that the approximation gap is too large and the amortization gap too small.
        """
        evidence, first, second = (
            self.log_evidence_error,
            self.amortized.elbo_standard_error,
            self.refined.elbo_standard_error,
        )
        rows = {
            "log_evidence": (self.log_evidence, evidence),
            "elbo_amortized": (self.amortized.elbo, first),
            "elbo_refined": (self.refined.elbo, second),
            "approximation_gap": (self.approximation, self.approximation_error),
            "amortization_gap": (self.amortization, self.amortization_error),
            "inference_gap": (self.inference, _together(evidence, first)),
            # the refined ELBO is in both, with opposite signs
            "difference_of_gaps": (
                self.approximation - self.amortization,
                _together(evidence, first, 2 * second),
            ),
        }
        return {
            **{name: mean_and_errors(*values) for name, values in rows.items()},
            "num_datapoints": len(self.log_evidence),
            "num_untrusted": int((~self.trusted).sum()),
            "num_unrefined": int((~self.refinement.is_converged).sum()),
        }


def inference_gaps(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    num_samples: int = 2000,
    num_chains: int = 16,
    num_temperatures: int = 0,
    num_particles: int = 50,
    max_steps: int = 5000,
    seed: int = 0,
    chain_batch_size: int | None = None,
) -> Gaps:
    """Split the inference gap of each datapoint into approximation and amortization gap.

    Each datapoint's posterior is refined within the guide's family (see
    :func:`aevb.inference.refine`); ELBOs are then estimated anew. log p(x) comes from
    importance sampling with the guide, with the refined posterior or, with ``num_temperatures``,
    from annealing from the refined posterior (from the prior, if that cannot score given values):
    from the one with the smallest error among those
    that may be trusted (k̂ at most 0.7, a good part of the chains effective). Where none may, it
    is the largest, since all are lower bounds in expectation.

    References:
        Inference Suboptimality in Variational Autoencoders (Cremer, Li & Duvenaud, 2018),
        https://arxiv.org/abs/1801.03558

    Args:
        model: Pyro program of the joint distribution.
        guide: Pyro program of the posterior.
        args: Arguments of both.
        num_samples: Draws of each ELBO and importance estimate.
        num_chains: Of annealing.
        num_temperatures: Of annealing; 0 for none.
        num_particles: Draws of each step of refinement.
        max_steps: Of refinement.
        seed: Of everything random.
        chain_batch_size: Annealing chains evaluated at once.

    Raises:
        ValueError: If the guide's family cannot be refined.

    Example:
        >>> from aevb.models import FactorAnalysis, FullNormal
        >>> fa, x = FactorAnalysis((5,), 2, FullNormal()).double(), torch.zeros(3, 5).double()
        >>> gaps = inference_gaps(fa.model, fa.guide, x, max_steps=2000)
        >>> bool(gaps.approximation.abs().max() < 0.01)
        True
    """
    refinement = refine(
        model, guide, *args, num_particles=num_particles, max_steps=max_steps, seed=seed
    )
    local = refinement.posterior.guide
    amortized = importance_evidence(
        model, guide, *args, num_samples=num_samples, seed=stream_seed(seed, "amortized")
    )
    refined = importance_evidence(
        model, local, *args, num_samples=num_samples, seed=stream_seed(seed, "refined")
    )
    estimates: list[Evidence] = [amortized, refined]
    annealed = None
    if num_temperatures:
        settings: dict[str, Any] = {
            "num_chains": num_chains, "num_temperatures": num_temperatures, "seed": seed,
            "chain_batch_size": chain_batch_size,
        }  # fmt: skip
        try:
            annealed = ais_evidence(model, *args, guide=local, **settings)
        except NoDensityError:  # as of a planar flow, which scores its own draws alone
            annealed = ais_evidence(model, *args, **settings)
        estimates.append(annealed)
    return Gaps(*_chosen(estimates), amortized, refined, annealed, refinement)


def _together(*errors: Tensor) -> Tensor:
    """Standard error of a sum of independent terms."""
    return torch.stack([error.square() for error in errors]).sum(0).sqrt()


def _chosen(estimates: list[Evidence]) -> tuple[Tensor, Tensor, Tensor]:
    """One estimate of each datapoint, not chosen by its value where that can be avoided.

    Returns:
        The estimate, its error, infinite if unknown, and whether it may be trusted, ``(B,)``.
    """
    values = torch.stack([estimate.log_evidence for estimate in estimates])
    errors = torch.stack([estimate.standard_error for estimate in estimates])
    errors = torch.where(torch.isnan(errors), torch.inf, errors)
    trusted = torch.stack([estimate.is_trusted for estimate in estimates])
    # an unknown error is worse than any other, but better than no trust
    largest = torch.finfo(errors.dtype).max
    surest = torch.where(trusted, errors.clamp(max=largest), torch.inf).argmin(0)
    highest = torch.where(torch.isnan(values), -torch.inf, values).argmax(0)
    which = torch.where(trusted.any(0), surest, highest).unsqueeze(0)
    return (
        values.gather(0, which).squeeze(0),
        errors.gather(0, which).squeeze(0),
        trusted.any(0),
    )
