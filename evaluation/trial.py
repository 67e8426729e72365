"""A guide on trial: against chains, against its own best, and in evidence."""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from aevb.evaluation.arviz import ess_bulk, ess_tail, rhat, to_arviz
from aevb.evaluation.gaps import Gaps, inference_gaps
from aevb.evaluation.posterior import PosteriorErrors, posterior_errors
from aevb.inference import Draws, NoFamilyError, ProgramPair, hmc, importance_evidence

__all__ = ["Trial", "compare"]

# Vehtari et al. (2021): chains beyond these are not to be used.
RHAT_LIMIT = 1.01
ESS_LIMIT = 400.0
KHAT_LIMIT = 0.7
# Share of false ones among the datapoints whose draws are called different.
FALSE_DISCOVERY_RATE = 0.05


@dataclass(frozen=True)
class Trial:
    """What was found out about a guide at some datapoints.

    Attributes:
        x: The datapoints, ``(B, *shape)``.
        draws: Of the chains.
        errors: The guide against them.
        gaps: Inference gaps; None where the guide's family has no parameters for each datapoint.
        why_no_gaps: Why there are none, or an empty text.
        rhat: Of the chains, worst dimension, ``(B,)``.
        ess_bulk: Effective draws, worst dimension, ``(B,)``.
        ess_tail: Likewise of the tails.
        khat: Pareto k̂ of the guide's weights, ``(B,)``.
    """

    x: Tensor
    draws: Draws
    errors: PosteriorErrors
    gaps: Gaps | None
    why_no_gaps: str
    rhat: NDArray[np.float64]
    ess_bulk: NDArray[np.float64]
    ess_tail: NDArray[np.float64]
    khat: NDArray[np.float64]

    @property
    def judged(self) -> NDArray[np.bool_]:
        """Where the chains converged, so that a comparison means something, ``(B,)``."""
        enough = np.minimum(self.ess_bulk, self.ess_tail) >= ESS_LIMIT
        sound = ~self.draws.suspicious.cpu().numpy()
        return (self.rhat <= RHAT_LIMIT) & enough & sound

    @property
    def differs(self) -> NDArray[np.bool_]:
        """Where the two sets of draws differ, by Benjamini and Hochberg's rule, ``(B,)``."""
        p = self.errors.p_value.numpy()
        places = np.flatnonzero(self.judged)
        ordered = places[np.argsort(p[places])]
        allowed = FALSE_DISCOVERY_RATE * np.arange(1, len(ordered) + 1) / max(1, len(ordered))
        below = np.flatnonzero(p[ordered] <= allowed)
        result = np.zeros(len(p), dtype=bool)
        if len(below):
            result[ordered[: below[-1] + 1]] = True
        return result

    def summary(self) -> dict[str, Any]:
        """Everything as JSON-able numbers; moments over judged datapoints, in posterior sds."""
        judged = torch.from_numpy(self.judged)
        errors = self.errors
        count = int(judged.sum())
        mean = errors.mean_error[judged]
        noise = errors.noise[judged]
        ratio = errors.log_scale_ratio[judged]
        figures: dict[str, Any] = {
            "num_datapoints": len(judged),
            "num_judged": count,
            "num_differing": int(self.differs.sum()),
            "num_khat_above_0.7": int((self.khat > KHAT_LIMIT).sum()),
            "divergences": int(self.draws.divergences.sum()),
            "rhat_worst": float(np.nanmax(self.rhat)),
            "ess_bulk_least": float(np.nanmin(self.ess_bulk)),
            "ess_tail_least": float(np.nanmin(self.ess_tail)),
            "acceptance_rate": float(self.draws.stats["acceptance_rate"].mean()),
        }
        if count:
            # the noise of the chains adds its variance to the squared error
            square = (mean.square() - noise.square()).mean().clamp(min=0.0)
            figures |= {
                "mean_error_rms": float(square.sqrt()),
                "mean_error_largest": float(mean.abs().max()),
                "scale_ratio": float(ratio.mean().exp()),
                "scale_ratio_error": _error(ratio.mean(-1).exp()),
                "correlation_missed": float(errors.correlation_missed[judged].mean()),
                "energy_distance": float(errors.energy_distance[judged].mean()),
            }
        if self.gaps is not None:
            figures["gaps"] = self.gaps.summary()
        else:
            figures["why_no_gaps"] = self.why_no_gaps
        return figures

    def verdict(self) -> list[str]:
        """What may be believed, in sentences."""
        found = self.summary()
        total, judged = found["num_datapoints"], found["num_judged"]
        lines = []
        if judged < total:
            lines.append(
                f"{total - judged} of {total} posteriors cannot be judged: their chains did not "
                f"converge (R̂ above {RHAT_LIMIT}, fewer than {ESS_LIMIT:.0f} effective draws, or "
                "divergences). Draw longer."
            )
        if judged:
            low = found["scale_ratio"] < 1
            lines.append(
                f"At {found['num_differing']} of {judged} judged posteriors the guide's draws "
                f"differ from the chains' (false discovery rate {FALSE_DISCOVERY_RATE}); its "
                "means are off by "
                f"{found['mean_error_rms']:.2f} posterior standard deviations (root mean square), "
                f"and its standard deviations are {abs(1 - found['scale_ratio']):.0%} too "
                f"{'small' if low else 'large'} on average."
            )
        many = found["num_khat_above_0.7"]
        lines.append(
            f"Importance weights correct the guide at {total - many} of {total} datapoints "
            f"(k̂ at most {KHAT_LIMIT})" + (", and not at the others." if many else ".")
        )
        if self.gaps is not None:
            parts = found["gaps"]
            gap, family, network = (
                parts[f"{name}_gap"] for name in ("inference", "approximation", "amortization")
            )
            larger = "family" if family["mean"] > network["mean"] else "encoder"
            lines.append(
                f"Its ELBO is {_pm(gap)} nats below log p(x): {_pm(family)} for its family and "
                f"{_pm(network)} for amortization, so that a better {larger} would gain more "
                "(± Monte Carlo error)."
            )
        else:
            lines.append(f"No gaps: {self.why_no_gaps}.")
        return lines

    def table(self) -> str:
        """The figures in lines, with their errors."""
        found = self.summary()
        gaps = found.pop("gaps", {})
        lines = [f"{name.replace('_', ' '):<24}{_shown(value)}" for name, value in found.items()]
        lines += [
            f"{name.replace('_', ' '):<24}{row['mean']:.3f} ± {row['monte_carlo_error']:.3f} "
            f"(over datapoints ± {row['standard_error']:.3f})"
            for name, row in gaps.items()
        ]
        return "\n".join(lines)

    def to_arviz(self) -> Any:
        """The chains' draws with their statistics, for ArviZ."""
        evidence = None if self.gaps is None else self.gaps.log_evidence
        return to_arviz(self.draws, observed_data={"observed": self.x}, log_evidence=evidence)

    def plot(self, datapoint: int) -> Figure:
        """Guide and chains at one datapoint, in the two dimensions that differ most.

        Args:
            datapoint: Number of it, from 0.
        """
        figure = Figure(figsize=(3.2, 3.2), layout="constrained")
        axes = figure.subplots()
        error = self.errors.mean_error[datapoint].abs()
        error = error + self.errors.log_scale_ratio[datapoint].abs()
        dims = error.argsort(descending=True)[:2].sort().values.tolist()
        pairs = ((self.errors.chains, "chains", "C0"), (self.errors.guide, "guide", "C1"))
        for values, label, colour in pairs:
            points = values[:, datapoint]
            if len(dims) == 2:
                axes.scatter(
                    points[:, dims[0]], points[:, dims[1]], s=6, alpha=0.6, label=label, c=colour
                )
                axes.set_ylabel(f"latent {dims[1]}")
            else:
                axes.hist(points[:, 0], bins=30, alpha=0.5, label=label, color=colour)
            axes.set_xlabel(f"latent {dims[0]}")
        axes.legend(fontsize="small")
        return figure


def compare(
    program: ProgramPair,
    x: Tensor,
    *,
    num_chains: int = 16,
    num_samples: int = 500,
    num_warmup: int = 500,
    num_importance_samples: int = 2000,
    num_temperatures: int = 200,
    max_steps: int = 5000,
    seed: int = 0,
    chain_batch_size: int | None = None,
) -> Trial:
    """Put a guide on trial at some datapoints: chains, refinement and evidence.

    Chains start from the prior and take their first masses from the guide.

    References:
        Inference Suboptimality in Variational Autoencoders (Cremer, Li & Duvenaud, 2018); Yes, but
        Did It Work?: Evaluating Variational Inference (Yao, Vehtari, Simpson & Gelman, 2018),
        https://arxiv.org/abs/1802.02538; Rank-normalization, folding, and localization: An
        improved R̂ (Vehtari et al., 2021), https://arxiv.org/abs/1903.08008

    Args:
        program: Has the two Pyro programs ``model(x)`` and ``guide(x)``, with all latents in the
            rightmost plate ``"data"``.
        x: Datapoints, ``(B, *shape)``.
        num_chains: Chains of each.
        num_samples: Draws that each chain keeps.
        num_warmup: Iterations before.
        num_importance_samples: Of each importance estimate.
        num_temperatures: Of annealing from the refined posterior; 0 for none.
        max_steps: Of refinement.
        seed: Of everything random.
        chain_batch_size: Chains evaluated at once, to bound the memory.

    Raises:
        ValueError: If the model has one joint posterior, or numbers are out of range.

    Example:
        >>> from aevb.models import FactorAnalysis, FullNormal
        >>> fa, x = FactorAnalysis((5,), 2, FullNormal()), torch.zeros(3, 5)
        >>> trial = compare(fa, x, num_samples=50, num_warmup=50, max_steps=100)
        >>> trial.errors.mean_error.shape
        torch.Size([3, 2])
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "HMC: chains of")  # told in the verdict
        draws = hmc(
            program.model, x, num_chains=num_chains, num_samples=num_samples,
            num_warmup=num_warmup, seed=seed, guide=program.guide,
            chain_batch_size=chain_batch_size,
        )  # fmt: skip
    if not draws.is_local:
        raise ValueError("program: has one joint posterior, and not one for each datapoint")
    errors = posterior_errors(program.model, program.guide, x, draws=draws, seed=seed + 1)
    gaps, why = None, ""
    try:
        gaps = inference_gaps(
            program.model, program.guide, x, num_samples=num_importance_samples,
            num_chains=num_chains, num_temperatures=num_temperatures, max_steps=max_steps,
            seed=seed + 2, chain_batch_size=chain_batch_size,
        )  # fmt: skip
        khat = gaps.amortized.khat
    except NoFamilyError as error:
        why = str(error)
        khat = _khat(program, x, num_importance_samples, seed)
    return Trial(
        x.cpu(), draws, errors, gaps, why, rhat(draws), ess_bulk(draws), ess_tail(draws),
        khat.numpy(),
    )  # fmt: skip


def _khat(program: ProgramPair, x: Tensor, num_samples: int, seed: int) -> Tensor:
    return importance_evidence(
        program.model, program.guide, x, num_samples=num_samples, seed=seed
    ).khat


def _pm(row: dict[str, float]) -> str:
    return f"{row['mean']:.2f} ± {row['monte_carlo_error']:.2f}"


def _error(values: Tensor) -> float:
    return float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
