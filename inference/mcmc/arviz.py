"""Draws of Hamiltonian Monte Carlo for ArviZ."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from aevb.inference.process.arviz import CHAINS, Groups, Sites

if TYPE_CHECKING:
    from aevb.inference.mcmc.draws import Draws

__all__ = ["to_arviz"]


def to_arviz(
    draws: "Draws",
    *,
    observed_data: Sites | None = None,
    posterior_predictive: Sites | None = None,
    log_evidence: Any = None,
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
    groups = Groups(CHAINS, batch, dims)
    groups.add("posterior", draws.samples, event="latent", attrs=sampler)
    groups.add("sample_stats", _statistics(draws), attrs=sampler)
    return groups.assembled(posterior_predictive, observed_data, log_evidence)


def _statistics(draws: "Draws") -> dict[str, Tensor]:
    """Of local posteriors, which are independent, energies add up."""
    if not draws.is_local:
        return draws.stats
    together = {
        "energy": draws.stats["energy"].sum(-1),
        "diverging": draws.stats["diverging"].any(-1),
    }
    of_each = {f"{name}_of_datapoint": draws.stats[name] for name in together}
    return {**draws.stats, **together, **of_each}
