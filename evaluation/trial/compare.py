"""A guide on trial: against chains, against its own best, and in evidence."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import false_discovery_control
from torch import Tensor

from aevb.evaluation import limits
from aevb.evaluation.arviz import to_arviz
from aevb.evaluation.diagnostics import ess_bulk, ess_tail, rhat
from aevb.evaluation.latents.embedding import column_names
from aevb.evaluation.latents.use import LatentUse, latent_use
from aevb.evaluation.posterior.calibration import Calibration, calibrate
from aevb.evaluation.posterior.errors import PosteriorErrors, posterior_errors
from aevb.evaluation.posterior.gaps import Gaps, inference_gaps
from aevb.evaluation.predictive.checks import PredictiveCheck, observed_data, predictive_check
from aevb.evaluation.trial.pictures import draws_picture
from aevb.evaluation.trial.verdict import sentences, table
from aevb.inference import (
    Draws,
    ImportanceEvidence,
    LogDensity,
    NoDensityError,
    NoFamilyError,
    ProgramPair,
    hmc,
    importance_evidence,
)
from aevb.inference.process import randomness
from aevb.inference.process.devices import device_of, moved
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.layouts import read_layout

__all__ = ["Trial", "compare"]

# Draws of the guide and of the chains that are compared as sets.
_COMPARED = 200
# Of the posterior, where active units or the KL have no closed form: over many datapoints few do.
_LATENT_DRAWS = 100

_PARTS = ("gaps", "calibration", "predictive_checks", "latents")  # what may be missing

T = TypeVar("T")
_Errors = type[Exception] | tuple[type[Exception], ...]
# Of programs that cannot be simulated, or whose data or latents are not where they are looked for.
_REFUSALS = (ValueError, NotImplementedError)


@dataclass(frozen=True)
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


def compare(
    program: ProgramPair,
    x: Tensor | tuple[Any, ...],
    *,
    num_chains: int = 16,
    num_samples: int = 500,
    num_warmup: int = 500,
    num_importance_samples: int = 2000,
    num_temperatures: int = 200,
    max_steps: int = 5000,
    num_simulations: int = 1000,
    num_replications: int = 1000,
    population: Tensor | tuple[Any, ...] | None = None,
    seed: int = 0,
    chain_batch_size: int | None = None,
) -> Trial:
    """Put a guide on trial at some datapoints: chains, refinement, evidence and calibration.

    Chains start from the prior and take their first masses from the guide. A model whose latents
    do not all lie in the rightmost plate ``"data"`` has one joint posterior, which is tried as
    that of a single datapoint. What cannot be had, as calibration of a model that cannot be
    simulated or of a guide that was fitted to these data alone, is None, and the verdict says why.

    References:
        Inference Suboptimality in Variational Autoencoders (Cremer, Li & Duvenaud, 2018); Yes, but
        Did It Work?: Evaluating Variational Inference (Yao, Vehtari, Simpson & Gelman, 2018),
        https://arxiv.org/abs/1802.02538; Rank-normalization, folding, and localization: An
        improved R̂ (Vehtari et al., 2021), https://arxiv.org/abs/1903.08008

    Args:
        program: Has the two Pyro programs ``model(x)`` and ``guide(x)``.
        x: Datapoints, ``(B, *shape)``, or the tuple of all arguments of the programs.
        num_chains: Chains of each.
        num_samples: Draws that each chain keeps.
        num_warmup: Iterations before.
        num_importance_samples: Of each importance estimate.
        num_temperatures: Of annealing from the refined posterior; 0 for none.
        max_steps: Of refinement.
        num_simulations: Datapoints simulated from the model for :func:`calibrate`; 0 for none.
        num_replications: Of each datapoint for :func:`predictive_check`; 0 for none.
        population: More datapoints, or arguments, like ``x`` for :func:`latent_use`; by default
            ``x``. Calibration simulates so many at once.
        seed: Of everything random.
        chain_batch_size: Chains evaluated at once, to bound the memory.

    Raises:
        ValueError: If the guide is a single point, a joint posterior has too many dimensions for
            chains, or numbers are out of range.

    Example:
        >>> from aevb.models import FactorAnalysis, FullNormal
        >>> fa, x = FactorAnalysis((5,), 2, FullNormal()), torch.zeros(3, 5)
        >>> brief = {"num_samples": 50, "num_warmup": 50, "max_steps": 100, "num_simulations": 30}
        >>> trial = compare(fa, x, **brief)
        >>> trial.errors.mean_error.shape, len(trial.calibration.ranks), trial.missing
        (torch.Size([3, 2]), 30, {})
    """
    _check(num_chains, num_samples)  # now, and not when the chains are done
    limits.check_at_least(
        1, num_importance_samples=num_importance_samples, max_steps=max_steps,
        chain_batch_size=chain_batch_size,
    )  # fmt: skip
    limits.check_at_least(
        0, num_warmup=num_warmup, num_temperatures=num_temperatures,
        num_simulations=num_simulations, num_replications=num_replications,
    )  # fmt: skip
    if not isinstance(x, Tensor | tuple):
        raise ValueError(f"x: expected a tensor or the tuple of all arguments; got {type(x)}")
    programs = program.model, program.guide
    args = moved(x if isinstance(x, tuple) else (x,), device_of(program.model, args=x))
    is_local = _refuse_points(program, args, seed)  # in the guide too
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "HMC: chains of")  # told in the verdict
        draws = hmc(
            program.model, *args, num_chains=num_chains, num_samples=num_samples,
            num_warmup=num_warmup, seed=seed, guide=program.guide,
            chain_batch_size=chain_batch_size,
        )  # fmt: skip
    errors = posterior_errors(*programs, *args, draws=draws, num_draws=_COMPARED, seed=seed)
    points = args if population is None else population
    points = points if isinstance(points, tuple) else (points,)
    missing: dict[str, str] = {}
    if num_simulations == 0:
        missing["calibration"] = "not asked for, num_simulations is 0"
    if num_replications == 0:
        missing["predictive_checks"] = "not asked for, num_replications is 0"
    if not is_local:
        missing["calibration"] = (
            "the guide was fitted to these data, and says nothing of others that the model might "
            "have made"
        )
    gaps = _unless_refused(
        "gaps", missing, NoFamilyError,
        lambda: inference_gaps(
            *programs, *args, num_samples=num_importance_samples, num_chains=num_chains,
            num_temperatures=num_temperatures, max_steps=max_steps, seed=seed,
            chain_batch_size=chain_batch_size,
        ),
    )  # fmt: skip
    calibration = _unless_refused(
        "calibration", missing, _REFUSALS,  # simulates as many at once as there are points
        lambda: calibrate(*programs, *points, num_simulations=num_simulations, seed=seed),
    )  # fmt: skip
    checks = _unless_refused(
        "predictive_checks", missing, _REFUSALS,
        lambda: predictive_check(*programs, *args, num_draws=num_replications, seed=seed),
    )  # fmt: skip
    latents = _unless_refused(
        "latents", missing, _REFUSALS,
        lambda: latent_use(*programs, *points, num_samples=_LATENT_DRAWS, seed=seed),
    )  # fmt: skip
    weighed = gaps.amortized if gaps else importance_evidence(
        *programs, *args, num_samples=num_importance_samples, seed=seed
    )  # fmt: skip
    rhats, bulk, tail = (np.atleast_1d(figure(draws)) for figure in (rhat, ess_bulk, ess_tail))
    return Trial(
        _observed(program, args, draws.is_local), draws, errors, rhats, bulk, tail, weighed,
        gaps, calibration, checks, latents, missing,
    )  # fmt: skip


def _observed(program: ProgramPair, args: tuple[Any, ...], is_local: bool) -> Tensor | None:
    """The data as datapoints, where they are at one site."""
    try:
        _, x = observed_data(program.model, *args)
    except ValueError:
        return None
    return (x if is_local else x.unsqueeze(0)).cpu()


def _check(num_chains: int, num_samples: int) -> None:
    if num_chains < 2:
        raise ValueError(
            f"num_chains: must be at least 2, since R̂ compares chains; got {num_chains}"
        )
    least = math.ceil(_COMPARED / num_chains)
    if num_samples < least:
        raise ValueError(
            f"num_samples: must be at least {least} for {num_chains} chains, since {_COMPARED} "
            f"draws are compared; got {num_samples}"
        )


def _refuse_points(program: ProgramPair, args: tuple[Any, ...], seed: int) -> bool:
    """Whether each datapoint has a posterior of its own; refuses guides that are no density."""
    device = device_of(args=args)
    with torch.no_grad(), randomness.stream(seed, "layout", device), argument_checks(False):
        try:
            layout = read_layout(program.model, program.guide, *args)
        except NoDensityError as error:
            raise NoDensityError(
                "guide: is a single point for each datapoint, as in an ordinary autoencoder, and "
                "no posterior that could be put on trial"
            ) from error
        if layout.num_datapoints is None:
            dim = LogDensity(program.model, *args).dim
            if dim > limits.LARGEST_JOINT:
                raise ValueError(
                    f"program: has one joint posterior of {dim:,} dimensions, which chains do not "
                    "reach; give latent weights their means (model.at_mean_weights()), so that "
                    "each datapoint has a posterior of its own"
                )
    return layout.num_datapoints is not None


def _unless_refused(
    name: str, missing: dict[str, str], refusals: _Errors, make: Callable[[], T]
) -> T | None:
    """What ``make`` returns, or None with the reason in ``missing``, if it is not there yet."""
    if name in missing:
        return None
    try:
        return make()
    except refusals as error:
        first, *_ = str(error).splitlines() or [""]  # Pyro adds the shapes of the trace
        missing[name] = first.rstrip(" .:") or type(error).__name__
        return None


def _worst(values: NDArray[np.float64], worst: Callable[..., Any]) -> float | None:
    """Of the values that are defined."""
    known = values[np.isfinite(values)]
    return float(worst(known)) if len(known) else None
