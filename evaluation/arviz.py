"""Draws for ArviZ that no chains made; those of chains are of :mod:`aevb.inference`."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from aevb.inference import AISEvidence, HMCEvidence, ImportanceEvidence, Posterior
from aevb.inference.mcmc.arviz import to_arviz
from aevb.inference.process import arviz as installed
from aevb.inference.process.arviz import CHAINS, Groups, Sites

__all__ = ["guide_to_arviz", "posterior_to_arviz", "to_arviz"]

Evidence = Tensor | ImportanceEvidence | AISEvidence | HMCEvidence


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
    if not installed.has_trees():
        sample_dims = CHAINS
        samples, predictive = (
            {name: value.unsqueeze(0) for name, value in sites.items()}
            for sites in (samples, predictive)
        )
    groups = Groups(sample_dims, first.shape[1] if is_local else None, dims)
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
