"""Parts at the ends of their range: Jacobians, normalizers, digits."""

import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from aevb import models
from aevb.models import posteriors
from aevb.models.normals import RankOnePrecisionNormal
from aevb.models.supports import REAL, UNIT_INTERVAL, meet

from model_parts import LIKELIHOODS, SHAPE
from oracles import STANDARD_ERRORS


@pytest.mark.parametrize(
    "family", [models.PlanarFlow(layers=3), models.InverseAutoregressiveFlow(3, (8,))], ids=repr
)
def test_log_determinants_of_flows_match_autograd(family: models.Posterior) -> None:
    torch.manual_seed(0)
    module = family.build(7, 4).double()
    q = module(torch.randn(7).double())
    z = q.rsample()
    start = z
    for layer in reversed(q.transforms):
        start = layer.inv(start)  # remembered, where it has no closed form

    def flow(value: Tensor) -> Tensor:
        for layer in q.transforms:
            value = layer(value)
        return value

    log_prob = q.log_prob(z)
    jacobian = torch.autograd.functional.jacobian(flow, start.detach())
    expected = q.base_dist.log_prob(start) - torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(log_prob, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("logit", [-50.0, -15.0, -0.05, 0.0, 1e-4, 3.0, 30.0])
def test_continuous_bernoulli_is_normalized_at_any_logit(logit: float) -> None:
    module = models.ContinuousBernoulli().build(1, (1,))
    with torch.no_grad():
        module.heads["logits"].weight.zero_()
        module.heads["logits"].bias.fill_(logit)
        x = torch.linspace(0, 1, 200_001)
        density = module(torch.zeros(1)).log_prob(x.unsqueeze(-1)).exp()
    assert float(torch.trapezoid(density.double(), x.double())) == pytest.approx(1.0, abs=1e-3)


def test_grids_of_many_levels_refuse_what_lies_between() -> None:
    with pytest.raises(ValueError, match="65535"):
        models.Binomial(65535).check(torch.rand(1, 50))


def test_likelihoods_of_every_kind_can_be_pickled() -> None:
    for part in LIKELIHOODS:
        program = models.VAE(SHAPE, 2, [4], likelihood=part)
        assert pickle.loads(pickle.dumps(program)).latent_dim == 2


def test_logistic_draws_are_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    q = models.Logistic().build(3, 2)(torch.zeros(4, 3))
    monkeypatch.setattr(torch, "rand", lambda shape, **kwargs: torch.zeros(shape, **kwargs))
    assert bool(torch.isfinite(q.rsample()).all())


@pytest.mark.parametrize("mean", [0.1, 3.0, 200.0])
@pytest.mark.parametrize("dispersion", [0.3, 5.0, 99.0, 101.0, 1e4, 1e6, 1e8])
def test_negative_binomials_keep_their_digits(dispersion: float, mean: float) -> None:
    module = models.NegativeBinomial(dispersion).build(1, (5,))
    with torch.no_grad():
        for parameter in module.heads.parameters():
            parameter.fill_(0.0)
        module.heads["log_mean"].bias.fill_(math.log(mean))
    x = torch.tensor([0.0, 1.0, 5.0, 150.0, 1000.0])
    density = module(torch.zeros(1)).base_dist.log_prob(x)
    # by products of whole numbers, since SciPy's log-gammas lose their digits as well
    steps = [torch.arange(int(n), dtype=torch.float64) for n in x]
    rising = torch.stack([torch.log1p(step / dispersion).sum() for step in steps])
    y, spread = x.double(), math.log1p(mean / dispersion)
    wanted = rising + y * math.log(mean) - torch.lgamma(y + 1) - (y + dispersion) * spread
    torch.testing.assert_close(density.double(), wanted, rtol=1e-4, atol=1e-4)


def test_poissons_of_tiny_rates_keep_their_logarithm() -> None:
    module = models.Poisson().build(1, (2,))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(-100.0)
    x = torch.tensor([2.0, 1.0])
    density = module(torch.zeros(1)).base_dist.log_prob(x)
    torch.testing.assert_close(density, -100.0 * x - torch.lgamma(x + 1))


def test_a_point_mass_has_no_jacobian() -> None:
    q = meet(models.Delta().build(3, 2)(torch.zeros(4, 3)), REAL, UNIT_INTERVAL)
    z = q.rsample()
    assert torch.equal(q.log_prob(z), torch.zeros(4))
    assert bool(UNIT_INTERVAL.check(z).all())


def test_continuous_bernoulli_draws_as_dark_as_it_says() -> None:
    module = models.ContinuousBernoulli().build(1, (8,))
    logits = torch.tensor([-50.0, -25.0, -5.0, -0.05, 0.0, 0.05, 5.0, 25.0])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.heads["logits"].bias.copy_(logits)
        x = module(torch.zeros(1)).base_dist
        draws = x.sample(torch.Size([100_000]))
    exact = 1 / (1 - torch.exp(-logits.double())) - 1 / logits.double()
    exact[4] = 0.5
    torch.testing.assert_close(x.mean.double(), exact, rtol=1e-4, atol=1e-6)
    error = draws.std(0) / math.sqrt(len(draws))
    assert float(((draws.mean(0) - exact) / error).abs().max()) < STANDARD_ERRORS
    spread = (draws.var(0) / x.variance - 1).abs()
    assert float(spread.max()) < 0.05


@pytest.mark.parametrize("size", [1.0, 1e3, 1e5])
def test_rank_one_variances_do_not_cancel(size: float) -> None:
    factor = torch.tensor([size, 0.0, 0.5])
    q = RankOnePrecisionNormal(torch.zeros(3), torch.ones(3), factor)
    precision = torch.eye(3).double() + torch.outer(factor, factor).double()
    exact = torch.linalg.inv(precision).diagonal()
    torch.testing.assert_close(q.variance.double(), exact, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("bounds", [(0.0, None), (None, None), (5.0, None), (None, 3.0)])
def test_open_pseudo_inputs_have_gradients(bounds: tuple[Any, Any]) -> None:
    prior = models.VampPrior(20, *bounds)
    program = models.VAE(SHAPE, 2, [4], prior=prior, likelihood=models.Poisson())
    z = torch.zeros(2)
    program.prior().log_prob(z).backward()
    gradient = next(p.grad for name, p in program.named_parameters() if "pseudo" in name)
    assert gradient is not None
    assert float((gradient != 0).double().mean()) > 0.95
    with pytest.raises(ValueError, match="low must be below high"):
        models.VampPrior(20, 1.0, 0.0)


def test_gamma_posteriors_reach_low_rates() -> None:
    module = posteriors.Gamma().build(1, 1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.second.bias.fill_(-4.0)
    assert float(module(torch.zeros(1)).base_dist.rate.detach()) < 0.1
