"""Draws for ArviZ: the only place that knows which of its two lines is installed."""

import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from aevb.inference import AISEvidence, Draws, HMCEvidence, ImportanceEvidence, Posterior

if TYPE_CHECKING:
    from xarray import Dataset

__all__ = ["guide_to_arviz", "posterior_to_arviz", "to_arviz"]

Evidence = Tensor | ImportanceEvidence | AISEvidence | HMCEvidence
Sites = Mapping[str, Tensor]

_CHAINS = ("chain", "draw")
_RESERVED = ("chain", "draw", "sample", "pred_id")  # ArviZ looks for them by name
_FIRST_WITH_TREES = 1  # major version of ArviZ


def to_arviz(
    draws: Draws,
    *,
    observed_data: Sites | None = None,
    posterior_predictive: Sites | None = None,
    log_evidence: Evidence | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
) -> Any:
    """Draws of Hamiltonian Monte Carlo in the form that ArviZ summarizes, plots and stores.

    The groups are ``posterior``, ``sample_stats``, and where given ``posterior_predictive``,
    ``observed_data`` and ``constant_data``. Behind ``chain`` and ``draw``, local posteriors have
    the dimension ``datapoint``; what follows is ``latent`` where the model has one latent site and
    that one such dimension, and ArviZ's own ``<site>_dim_<n>`` elsewhere.

    What ArviZ reads as one number of each draw is that of all datapoints together: ``energy`` is
    their sum, and ``diverging`` where any of them does. What is of each lies beside them, as
    ``energy_of_datapoint`` and ``diverging_of_datapoint``, and in the other statistics.

    The evidence of a datapoint is no ``log_likelihood``, which ArviZ takes to be conditional on
    the latents: it lies in ``constant_data``, as ``log_evidence``.

    References:
        ArviZ: a unified library for exploratory analysis of Bayesian models in Python (Kumar,
        Carroll, Hartikainen & Martin, 2019), https://doi.org/10.21105/joss.01143; InferenceData
        schema, https://python.arviz.org/en/stable/schema/schema.html

    Args:
        draws: Of :func:`aevb.inference.hmc`.
        observed_data: Observed sites, ``(*plates, *event)``.
        posterior_predictive: Observed sites drawn anew, ``(chains, draws, *plates, *event)``.
        log_evidence: Log p(x) of each datapoint, ``(batch,)``, in nats, or the record of an
            estimator, whose standard errors are stored too.
        dims: Names of a site's dimensions behind the draws, in place of the above; needed where an
            outer plate is as large as the data plate.

    Returns:
        ``arviz.InferenceData`` on ArviZ 0.x, ``xarray.DataTree`` on 1.x. A "/" in a site's name,
        which files of this format cannot hold, is a "." in it.

    Raises:
        ValueError: If a site is named like a dimension of ArviZ's, or a shape does not fit.

    Example:
        >>> import torch
        >>> from aevb import inference, models
        >>> fa, x = models.FactorAnalysis((5,), 2), torch.zeros(3, 5)
        >>> draws = inference.hmc(fa.model, x, num_chains=4, num_samples=100, num_warmup=100)
        >>> tree = to_arviz(draws, observed_data={"x": x}, log_evidence=fa.log_evidence(x))
        >>> dict(tree["posterior"]["z"].sizes)
        {'chain': 4, 'draw': 100, 'datapoint': 3, 'latent': 2}
        >>> tree["constant_data"]["log_evidence"].dims
        ('datapoint',)
    """
    batch = draws.unconstrained.shape[2] if draws.is_local else None
    sampler = {"tuning_steps": draws.num_warmup, "seed": draws.seed}
    groups = _Groups(_CHAINS, batch, dims)
    groups.add("posterior", draws.samples, event="latent", attrs=sampler)
    groups.add("sample_stats", _statistics(draws), attrs=sampler)
    return groups.assembled(posterior_predictive, observed_data, log_evidence)


def guide_to_arviz(
    samples: Sites,
    *,
    is_local: bool = True,
    observed_data: Sites | None = None,
    posterior_predictive: Sites | None = None,
    log_evidence: Evidence | None = None,
    constant_data: Sites | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
) -> Any:
    """Independent draws of a guide, beside those of :func:`to_arviz`.

    On ArviZ 0.x they are one chain; on 1.x they have the one dimension ``sample``. They are
    independent whatever the guide is worth: their R-hat and effective sample size say nothing.

    Args:
        samples: Draws of each latent site, ``(samples, *plates, *event)``.
        is_local: Whether the dimension behind ``samples`` is that of datapoints.
        observed_data: As for :func:`to_arviz`, as are the others.
        posterior_predictive: Observed sites drawn anew, ``(samples, *plates, *event)``.
        log_evidence: Log p(x) of each datapoint, ``(batch,)``, in nats.
        constant_data: What else is known of each datapoint, in place of ``log_evidence``.
        dims: Names of a site's dimensions behind the draws.

    Returns:
        ``arviz.InferenceData`` on ArviZ 0.x, ``xarray.DataTree`` on 1.x.

    Raises:
        ValueError: As :func:`to_arviz`.

    Example:
        >>> import torch
        >>> tree = guide_to_arviz({"z": torch.randn(10, 3, 2)})
        >>> tree["posterior"]["z"].dims[-2:]
        ('datapoint', 'latent')
        >>> tree["posterior"]["z"].size
        60
    """
    first = next(iter(samples.values()), None)
    if first is None:
        raise ValueError("samples: expected at least one latent site; got none")
    if first.ndim < 1 + is_local:
        raise ValueError(
            f"samples: expected (samples, *plates, *event); got shape {tuple(first.shape)}"
        )
    sample_dims: tuple[str, ...] = ("sample",)
    predictive = posterior_predictive or {}
    if not _has_trees():
        sample_dims = _CHAINS
        samples, predictive = (
            {name: value.unsqueeze(0) for name, value in sites.items()}
            for sites in (samples, predictive)
        )
    groups = _Groups(sample_dims, first.shape[1] if is_local else None, dims)
    groups.add("posterior", samples, event="latent")
    if constant_data:
        groups.add("constant_data", constant_data, are_draws=False)
    return groups.assembled(predictive, observed_data, log_evidence)


def posterior_to_arviz(
    posterior: Posterior,
    *,
    num_draws: int = 1000,
    observed_data: Sites | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
) -> Any:
    """Draws of repaired posteriors, resampled so that they count alike.

    They are as of :func:`guide_to_arviz`: what R-hat and effective sample size make of them says
    nothing, and what does lies beside ``log_evidence`` in ``constant_data``: ``source`` (a number
    of :data:`aevb.inference.SOURCES`), ``is_passed``, ``ess``, ``khat_pooled`` and ``rhat``.

    Args:
        posterior: Of :func:`aevb.inference.posterior`.
        num_draws: Of each posterior.
        observed_data: As for :func:`to_arviz`.
        dims: The same.

    Returns:
        ``arviz.InferenceData`` on ArviZ 0.x, ``xarray.DataTree`` on 1.x.

    Example:
        >>> import torch
        >>> from aevb import inference, models
        >>> fa, x = models.FactorAnalysis((5,), 2), torch.zeros(3, 5)
        >>> tree = posterior_to_arviz(inference.posterior(fa, x), num_draws=100)
        >>> tree["posterior"]["z"].size, tree["constant_data"]["is_passed"].values.tolist()
        (600, [True, True, True])
    """
    is_local = bool(posterior.data_dims)
    names = ("log_evidence", "source", "is_passed", "ess", "khat_pooled", "rhat")
    figures = {name: getattr(posterior, name) for name in names}
    return guide_to_arviz(
        posterior.resampled(num_draws, posterior.seed), is_local=is_local,
        observed_data=observed_data, dims=dims,
        constant_data=figures if is_local else {n: v.squeeze(0) for n, v in figures.items()},
    )  # fmt: skip


def _statistics(draws: Draws) -> dict[str, Tensor]:
    """Of local posteriors, which are independent, energies add up."""
    if not draws.is_local:
        return draws.stats
    together = {
        "energy": draws.stats["energy"].sum(-1),
        "diverging": draws.stats["diverging"].any(-1),
    }
    of_each = {f"{name}_of_datapoint": draws.stats[name] for name in together}
    return {**draws.stats, **together, **of_each}


class _Groups:
    """Datasets by group.

    Args:
        sample_dims: Dimensions that draws begin with.
        batch: Size of the data plate; None for a joint posterior.
        names: Of dimensions behind them that the caller chose, by site.
    """

    def __init__(
        self,
        sample_dims: tuple[str, ...],
        batch: int | None,
        names: Mapping[str, Sequence[str]] | None,
    ) -> None:
        self._sample_dims, self._batch, self._names = sample_dims, batch, names or {}
        self._groups: dict[str, Dataset] = {}

    def add(
        self,
        group: str,
        values: Sites,
        *,
        are_draws: bool = True,
        event: str | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """A group of variables; ``event`` names the one event dimension of a single variable."""
        from xarray import Dataset  # half a second, which importing this library does not take

        arrays = {
            name.replace("/", "."): value.detach().cpu().numpy() for name, value in values.items()
        }
        refused = sorted(set(arrays) & set(_RESERVED))
        if refused:
            raise ValueError(
                f"{group}: {', '.join(refused)} is a dimension of ArviZ's; name the site otherwise"
            )
        first = self._sample_dims if are_draws else ()
        variables = {}
        for name, array in arrays.items():
            if array.ndim < len(first):
                raise ValueError(
                    f"{group}: expected {name!r} to begin with ({', '.join(first)}); got "
                    f"shape {array.shape}"
                )
            behind = self._behind(name, array.shape[len(first) :], event, set(arrays))
            variables[name] = ((*first, *behind), array)
        # plots of ArviZ 1.x select by coordinate
        coords = {
            dim: np.arange(size)
            for dims, array in variables.values()
            for dim, size in zip(dims, array.shape, strict=True)
        }
        self._groups[group] = Dataset(variables, coords, {**_attributes(first), **(attrs or {})})

    def _behind(
        self, name: str, shape: tuple[int, ...], event: str | None, variables: set[str]
    ) -> tuple[str, ...]:
        """Dimensions of a site behind the draws; names of variables are not free for them."""
        if name in self._names:
            if len(self._names[name]) != len(shape):
                raise ValueError(
                    f"dims: expected {len(shape)} names for {name!r} of shape {shape}; got "
                    f"{tuple(self._names[name])}"
                )
            return tuple(self._names[name])
        place = shape.index(self._batch) if self._batch in shape else None
        others = [number for number in range(len(shape)) if number != place]
        found = {number: f"{name}_dim_{count}" for count, number in enumerate(others)}
        if event is not None and len(others) == len(variables) == 1:
            found[others[0]] = event
        if place is not None:
            found[place] = "datapoint"
        return tuple(dim + "_dim" * (dim in variables) for _, dim in sorted(found.items()))

    def add_evidence(self, evidence: Evidence) -> None:
        """The group ``constant_data``."""
        if isinstance(evidence, Tensor):
            values, attrs = {"log_evidence": evidence}, {}
        else:
            values = {
                "log_evidence": evidence.log_evidence,
                "log_evidence_standard_error": evidence.standard_error,
            }
            attrs = {"log_evidence_estimator": type(evidence).__name__}
        count, wanted = values["log_evidence"].numel(), self._batch or 1
        if count != wanted:
            raise ValueError(f"log_evidence: expected {wanted} values; got {count}")
        shape = () if self._batch is None else (self._batch,)
        shaped = {name: value.reshape(shape) for name, value in values.items()}
        self.add("constant_data", shaped, are_draws=False, attrs=attrs)

    def assembled(
        self, predictive: Sites | None, observed: Sites | None, evidence: Evidence | None
    ) -> Any:
        """With what draws of every kind may come with, as the installed ArviZ has it."""
        if predictive:
            self.add("posterior_predictive", predictive)
        if observed:
            self.add("observed_data", observed, are_draws=False)
        if evidence is not None:
            self.add_evidence(evidence)
        if _has_trees():
            from xarray import DataTree

            return DataTree.from_dict(self._groups)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ArviZ 0.x announces its refactoring at import
            from arviz import InferenceData
        datasets: dict[str, Any] = {**self._groups}
        return InferenceData(**datasets)


def _attributes(sample_dims: tuple[str, ...]) -> dict[str, Any]:
    """As ArviZ's converters write them."""
    version = metadata.version("aevb")
    return {
        "created_at": datetime.now(UTC).isoformat(),
        "creation_library": "aevb",
        "creation_library_version": version,
        "creation_library_language": "Python",
        "inference_library": "aevb",
        "inference_library_version": version,
        **({"sample_dims": list(sample_dims)} if sample_dims else {}),
    }


def _has_trees() -> bool:
    return int(metadata.version("arviz").split(".")[0]) >= _FIRST_WITH_TREES
