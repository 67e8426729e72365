"""Evidence from posterior draws and a kernel density."""

import importlib
import math

import pytest
import torch
from pyro import distributions as dist

from aevb.inference import hmc_evidence

from oracles import STANDARD_ERRORS, linear_gaussian, simulate

# Appendix D


def test_evidence_from_posterior_draws_is_near_the_exact_one() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 20)
    evidence = hmc_evidence(fa.model, x, seed=1)
    with torch.no_grad():
        z = (evidence.log_evidence - fa.log_evidence(x)) / evidence.standard_error
    # eight chains tell their own spread: t with seven degrees of freedom, 1e-6 in the tails
    assert float(z.abs().max()) < 15.0
    assert abs(float(z.mean())) < STANDARD_ERRORS / math.sqrt(20) * 1.2


@pytest.mark.filterwarnings("ignore:HMC. chains of .* have not mixed")  # of twenty draws
def test_evidence_from_posterior_draws_is_refused_in_many_dimensions() -> None:
    fa = linear_gaussian(features=8, latent_dim=5)
    with pytest.raises(ValueError, match="fails above 4 dimensions"):
        hmc_evidence(fa.model, simulate(fa, 2))
    assert hmc_evidence(
        fa.model, simulate(fa, 2), num_samples=20, num_warmup=40, allow_high_dim=True
    ).log_evidence.shape == (2,)


def test_kernel_density_is_the_one_of_its_formula() -> None:
    module = importlib.import_module("aevb.inference.evidence.posterior_draws")
    fitted, at = torch.randn(2, 3, 50, 4, 2, dtype=torch.float64)
    found = module._log_kernel_density(fitted, at)
    points = fitted[:, :, 1].flatten(0, 1)
    covariance = points.T.cov() * 150 ** (-2 / 6)
    kernels = dist.MultivariateNormal(points, covariance).log_prob(at[2, 7, 1])
    exact = kernels.logsumexp(0) - math.log(150)
    torch.testing.assert_close(found[2, 7, 1], exact)
