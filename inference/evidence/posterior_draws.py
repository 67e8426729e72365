"""The AEVB paper's own estimator of log p(x): posterior draws and a density of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from aevb.data.seeds import fresh_if_none
from aevb.inference.evidence.estimate import Shown, counted, mean_figures, number, verdict
from aevb.inference.mcmc.diagnostics import ESS_LIMIT, RHAT_LIMIT
from aevb.inference.mcmc.draws import Draws
from aevb.inference.mcmc.hmc import Start, hmc
from aevb.inference.process.limits import refuse_below
from aevb.inference.programs.log_density import LogDensity

__all__ = ["HMCEvidence", "hmc_evidence"]

# Where the paper found it reliable: "as long as the dimensionality is low (less than 5)".
LARGEST_DIM = 4


@dataclass(frozen=True, repr=False)
class HMCEvidence(Shown):
    """Estimates of log p(x) from draws of the posterior.

    Attributes:
        log_evidence: ``(batch,)``, in nats.
        standard_error: From the spread over chains, which are independent; ``(batch,)``.
        draws: Of the posterior.

    Example:
        >>> from aevb import inference, models
        >>> fa, x = models.FactorAnalysis((5,), 2), torch.zeros(3, 5)
        >>> found = inference.hmc_evidence(fa.model, x, num_chains=4, num_samples=200)
        >>> found.log_evidence.shape, found.draws.samples["z"].shape
        (torch.Size([3]), torch.Size([4, 200, 3, 2]))
    """

    log_evidence: Tensor
    standard_error: Tensor
    draws: Draws

    diagnostics: ClassVar[tuple[str, ...]] = ("rhat", "ess_bulk", "suspicious")

    @property
    def is_trusted(self) -> Tensor:
        """Where chains mixed, 400 draws are effective and none are suspicious, ``(batch,)``."""
        # NaN, as R̂ of a single chain is, is neither
        mixed = (self.draws.rhat <= RHAT_LIMIT) & (self.draws.ess_bulk >= ESS_LIMIT)
        return mixed.reshape(-1).cpu() & ~self.draws.suspicious.cpu()

    @property
    def rhat(self) -> Tensor:
        """Of the draws, ``(batch,)``."""
        return self.draws.rhat.reshape(-1)

    @property
    def ess_bulk(self) -> Tensor:
        """Of the draws, ``(batch,)``."""
        return self.draws.ess_bulk.reshape(-1)

    @property
    def suspicious(self) -> Tensor:
        """Whose chains are stuck or diverge, ``(batch,)``."""
        return self.draws.suspicious

    def summary(self) -> dict[str, Any]:
        """As of :class:`~aevb.inference.Evidence`.

        With ``num_chains``, ``num_samples``, ``seed``, ``suspicious`` (number of datapoints),
        ``rhat_worst`` and ``ess_bulk_least``.
        """
        trusted, draws = self.is_trusted, self.draws
        why = (
            f"at {int((~trusted).sum())} of {counted(len(trusted), 'datapoint')} R̂ is above "
            f"{RHAT_LIMIT} or undefined, fewer than {ESS_LIMIT:.0f} draws are effective, or "
            "chains are suspicious"
        )
        return mean_figures(self) | {
            "num_chains": len(draws.unconstrained),
            "num_samples": draws.unconstrained.shape[1],
            "seed": draws.seed,
            "suspicious": int(draws.suspicious.sum()),
            "rhat_worst": number(draws.rhat.max()),
            "ess_bulk_least": number(draws.ess_bulk.min()),
            **verdict(trusted, why, "not to be believed"),
        }


def hmc_evidence(
    model: Callable[..., Any],
    *args: Any,
    num_chains: int = 16,
    num_samples: int = 100,
    num_warmup: int = 300,
    seed: int | None = 0,
    guide: Callable[..., Any] | None = None,
    start: Start = LogDensity.prior_draws,
    max_num_steps: int = 100,
    chain_batch_size: int | None = None,
    allow_high_dim: bool = False,
) -> HMCEvidence:
    r"""Estimate log p(x) from posterior draws and a density fitted to half of them.

    .. math:: \frac1{p(x)} = E_{p(z|x)} \frac{q(z)}{p(x, z)} \approx
        \frac1S \sum_s \frac{q(z_s)}{p(x, z_s)}

    The paper leaves q open; here it is a kernel density of the draws of half of the chains, in
    unconstrained coordinates, with normal kernels of Scott's width. The other half is averaged.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), appendix D; Multivariate Density
        Estimation (Scott, 1992), section 6.3

    Args:
        model: Pyro program of the joint distribution.
        args: Its arguments.
        num_chains: At least 4, half of them for the density.
        num_samples: Draws of each chain.
        num_warmup: Iterations before.
        seed: Of everything random.
        guide: As for :func:`~aevb.inference.mcmc.hmc.hmc`.
        start: The same; a chain that starts in the wrong mode pulls the estimate down.
        max_num_steps: The same; the paper's trajectories have 4 leapfrog steps.
        chain_batch_size: Chains evaluated at once.
        allow_high_dim: Go on above 4 dimensions, where the density fits badly and the estimate is
            far off.

    Raises:
        ValueError: Above 4 dimensions unless allowed, or with fewer than 4 chains.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> fa, x = FactorAnalysis((5,), 2).double(), torch.zeros(3, 5).double()
        >>> evidence = hmc_evidence(fa.model, x, seed=1)
        >>> bool((evidence.log_evidence - fa.log_evidence(x)).abs().max() < 0.2)
        True
    """
    seed = fresh_if_none(seed)
    refuse_below(4, num_chains=num_chains)
    dim = LogDensity(model, *args).dim
    if dim > LARGEST_DIM and not allow_high_dim:
        raise ValueError(
            f"hmc_evidence: fails above {LARGEST_DIM} dimensions, and the posterior has {dim}; "
            "use ais_evidence or importance_evidence, or allow_high_dim=True"
        )
    draws = hmc(
        model, *args, num_chains=num_chains, num_samples=num_samples, num_warmup=num_warmup,
        seed=seed, guide=guide, start=start, max_num_steps=max_num_steps,
        chain_batch_size=chain_batch_size,
    )  # fmt: skip
    half = num_chains // 2
    fitted, averaged = draws.unconstrained[:half], draws.unconstrained[half:]
    log_joint = draws.stats["lp"].reshape(num_chains, num_samples, -1)[half:]
    log_ratio = _log_kernel_density(fitted, averaged) - log_joint
    # log of the mean of q/p within each chain, then over chains
    by_chain = torch.logsumexp(log_ratio, 1) - math.log(num_samples)
    mean = torch.logsumexp(by_chain, 0) - math.log(len(by_chain))
    relative = torch.exp(by_chain - mean)
    error = relative.std(0) / math.sqrt(len(by_chain))
    return HMCEvidence(-mean.cpu(), error.cpu(), draws)


def _log_kernel_density(fitted: Tensor, at: Tensor) -> Tensor:
    """Log of a normal kernel density of draws ``(chains, draws, batch, dim)`` at others."""
    from scipy.stats import gaussian_kde  # a second, which no other estimate takes

    points, places = (u.flatten(0, 1).permute(1, 2, 0).double().cpu() for u in (fitted, at))
    columns = [
        gaussian_kde(own.numpy()).logpdf(place.numpy())
        for own, place in zip(points, places, strict=True)
    ]
    return torch.from_numpy(np.stack(columns, -1)).unflatten(0, at.shape[:2]).to(at.device)
