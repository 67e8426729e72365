"""How much evidence a guide gives away, and whether its family or its network is to blame."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aevb.inference import (
    AISEvidence,
    ImportanceEvidence,
    Refinement,
    ais_evidence,
    importance_evidence,
    refine,
)

__all__ = ["Gaps", "inference_gaps"]


@dataclass(frozen=True)
class Gaps:
    r"""The inference gap of each datapoint and its two parts, ``(B,)``, in nats.

    .. math:: \log p(x) - \mathcal{L}[q] =
        \underbrace{\log p(x) - \mathcal{L}[q^\star]}_{\text{approximation}} +
        \underbrace{\mathcal{L}[q^\star] - \mathcal{L}[q]}_{\text{amortization}}

    Attributes:
        log_evidence: Of the estimates that may be trusted the one with the smallest error.
        approximation: What the best member of the family misses.
        amortization: What the network misses of the best member.
        log_evidence_error: Standard error of ``log_evidence``.
        approximation_error: Of ``approximation``.
        amortization_error: Of ``amortization``.
        amortized: Importance sampling with the guide.
        refined: Importance sampling with each datapoint's own posterior.
        annealed: Annealing, if it was asked for.
        refinement: The posteriors themselves.
    """

    log_evidence: Tensor
    approximation: Tensor
    amortization: Tensor
    log_evidence_error: Tensor
    approximation_error: Tensor
    amortization_error: Tensor
    amortized: ImportanceEvidence
    refined: ImportanceEvidence
    annealed: AISEvidence | None
    refinement: Refinement

    @property
    def inference(self) -> Tensor:
        """Both gaps together."""
        return self.approximation + self.amortization

    def summary(self) -> dict[str, dict[str, float]]:
        """Means over datapoints with two errors.

        ``monte_carlo_error`` is that for just these datapoints, and ``standard_error`` that of the
        mean for the population they come from, which contains it.
        """
        rows = {
            "log_evidence": (self.log_evidence, self.log_evidence_error),
            "elbo_amortized": (self.amortized.elbo, self.amortized.elbo_standard_error),
            "elbo_refined": (self.refined.elbo, self.refined.elbo_standard_error),
            "approximation_gap": (self.approximation, self.approximation_error),
            "amortization_gap": (self.amortization, self.amortization_error),
            "inference_gap": (
                self.inference,
                (self.log_evidence_error**2 + self.amortized.elbo_standard_error**2).sqrt(),
            ),
        }
        return {name: _mean_and_errors(*values) for name, values in rows.items()}


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
    from annealing from the refined posterior: from the one with the smallest error among those
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
    amortized = importance_evidence(model, guide, *args, num_samples=num_samples, seed=seed + 1)
    refined = importance_evidence(model, local, *args, num_samples=num_samples, seed=seed + 2)
    estimates: list[ImportanceEvidence | AISEvidence] = [amortized, refined]
    annealed = None
    if num_temperatures:
        annealed = ais_evidence(
            model,
            *args,
            guide=local,
            num_chains=num_chains,
            num_temperatures=num_temperatures,
            seed=seed + 3,
            chain_batch_size=chain_batch_size,
        )
        estimates.append(annealed)
    log_evidence, error = _chosen(estimates)
    first, second = amortized.elbo_standard_error, refined.elbo_standard_error
    return Gaps(
        log_evidence,
        log_evidence - refined.elbo,
        refined.elbo - amortized.elbo,
        error,
        (error.square() + second.square()).sqrt(),
        (first.square() + second.square()).sqrt(),
        amortized,
        refined,
        annealed,
        refinement,
    )


def _chosen(estimates: list[ImportanceEvidence | AISEvidence]) -> tuple[Tensor, Tensor]:
    """One estimate of each datapoint, not chosen by its value where that can be avoided."""
    values = torch.stack([estimate.log_evidence for estimate in estimates])
    errors = torch.stack([estimate.standard_error for estimate in estimates])
    trusted = torch.stack(
        [e.khat <= 0.7 if isinstance(e, ImportanceEvidence) else e.is_converged for e in estimates]
    )
    surest = torch.where(trusted, errors, torch.inf).argmin(0)
    which = torch.where(trusted.any(0), surest, values.argmax(0)).unsqueeze(0)
    return values.gather(0, which).squeeze(0), errors.gather(0, which).squeeze(0)


def _mean_and_errors(values: Tensor, errors: Tensor) -> dict[str, float]:
    count = len(values)
    spread = float(values.std()) / math.sqrt(count) if count > 1 else math.nan
    return {
        "mean": float(values.mean()),
        "monte_carlo_error": float(errors.square().sum().sqrt()) / count,
        "standard_error": spread,
    }
