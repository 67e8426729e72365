"""A guide on trial: against chains, against its own best, and in evidence."""

import math
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from aevb.data.seeds import fresh_if_none
from aevb.evaluation import limits
from aevb.evaluation.diagnostics import ess_bulk, ess_tail, rhat
from aevb.evaluation.latents.use import latent_use
from aevb.evaluation.posterior.calibration import calibrate
from aevb.evaluation.posterior.errors import posterior_errors
from aevb.evaluation.posterior.gaps import inference_gaps
from aevb.evaluation.predictive.checks import observed_data, predictive_check
from aevb.evaluation.trial.found import Trial
from aevb.inference import (
    LogDensity,
    NoDensityError,
    NoFamilyError,
    ProgramPair,
    hmc,
    importance_evidence,
)
from aevb.inference.process import randomness
from aevb.inference.process.devices import device_of, moved
from aevb.inference.process.progress import with_progress
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.layouts import read_layout

__all__ = ["compare"]

# Draws of the guide and of the chains that are compared as sets.
_COMPARED = 200
# Of the posterior, where active units or the KL have no closed form: over many datapoints few do.
_LATENT_DRAWS = 100

T = TypeVar("T")
_Errors = type[Exception] | tuple[type[Exception], ...]
# Of programs that cannot be simulated, or whose data or latents are not where they are looked for.
_REFUSALS = (ValueError, NotImplementedError)


@with_progress
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
    seed: int | None = 0,
    chain_batch_size: int | None = None,
    progress: bool | None = None,
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
        seed: Of everything random; None draws one afresh.
        chain_batch_size: Chains evaluated at once, to bound the memory.
        progress: Show progress bars; by default in notebooks alone.

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
    del progress  # see with_progress
    seed = fresh_if_none(seed)
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
