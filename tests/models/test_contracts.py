"""What every prior, likelihood, posterior and scale must do; an unlisted part fails."""

import copy
import dataclasses
import inspect
import math
import pickle
import warnings
from typing import Any

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor, nn

from aevb import inference, models
from aevb.models import likelihoods, posteriors, priors
from aevb.models.normals import RankOnePrecisionNormal
from aevb.models.supports import REAL, UNIT_INTERVAL, meet

from oracles import STANDARD_ERRORS

SHAPE = (2, 3)
PRIORS: list[models.Prior] = [
    models.StandardNormal(),
    models.LearnedNormal(),
    models.MixtureOfGaussians(components=3),
    models.VampPrior(components=3),
    priors.Laplace(),
    priors.StudentT(),
    models.NormalizingFlow(layers=2, hidden=(8,)),
    models.NormalizingFlow(layers=3, hidden=(8,), coupling=True),
    priors.Beta(),
    priors.Gamma(),
    models.LogNormal(),
    models.Dirichlet(2.0),
]
POSTERIORS: list[models.Posterior] = [
    models.DiagonalNormal(),
    models.RankOneNormal(),
    models.LowRankNormal(),
    models.FullNormal(),
    models.InverseAutoregressiveFlow(hidden=(8,)),
    models.PlanarFlow(layers=2),
    posteriors.Laplace(),
    models.Logistic(),
    posteriors.StudentT(),
    posteriors.Gamma(),
    posteriors.Beta(),
    models.Delta(),
]
SCALES: list[models.Scale] = [
    models.FixedScale(0.3),
    models.LearnedScale(0.3),
    models.PerPixelScale(0.3),
    models.PredictedScale(),
]
LIKELIHOODS: list[models.Likelihood] = [
    models.Bernoulli(),
    models.Bernoulli(relaxed=True),
    models.ContinuousBernoulli(),
    models.Binomial(total_count=3),
    *[models.Normal(scale=scale) for scale in SCALES],
    models.Normal(mean=nn.Sigmoid),
    likelihoods.Laplace(),
    likelihoods.StudentT(),
    models.DiscretizedLogistic(levels=4),
    models.DiscretizedLogisticMixture(components=2, levels=4),
    models.Categorical(num_classes=3),
    models.Poisson(),
    models.NegativeBinomial(),
]


def build(part: Any) -> tuple[nn.Module, tuple[Tensor, ...], int]:
    """The module of a part, what its ``forward`` takes, and the rank of its events."""
    features = torch.randn(5, 7)
    if isinstance(part, models.Prior):
        with torch.random.fork_rng():
            torch.manual_seed(0)  # the model's, and not part of the prior's state
            encoder = nn.Sequential(nn.Flatten(), models.DiagonalNormal().build(6, 4))
        return part.build_beside(encoder, SHAPE, 4), (), 1
    if isinstance(part, models.Posterior):
        return part.build(7, 4), (features,), 1
    return part.build(7, SHAPE), (features,), len(SHAPE)


DISTRIBUTIONS = [*PRIORS, *POSTERIORS, *LIKELIHOODS]


@pytest.fixture(params=DISTRIBUTIONS, ids=repr, name="part")
def fixture_part(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize(
    ("base", "listed"),
    [
        (models.Prior, PRIORS),
        (models.Posterior, POSTERIORS),
        (models.Scale, SCALES),
        (models.Likelihood, LIKELIHOODS),
    ],
)
def test_every_exported_part_is_listed(base: type, listed: list[Any]) -> None:
    exported = {
        value
        for module in (models, priors, likelihoods, posteriors)
        for value in (getattr(module, name) for name in module.__all__)
        if inspect.isclass(value) and issubclass(value, base) and not inspect.isabstract(value)
    }
    assert exported == {type(part) for part in listed}


@pytest.mark.parametrize("part", [*DISTRIBUTIONS, *SCALES], ids=repr)
def test_parts_are_frozen_and_hold_no_tensors(part: Any) -> None:
    assert dataclasses.is_dataclass(part)
    with pytest.raises(dataclasses.FrozenInstanceError):
        part.anything = 1
    values = [getattr(part, field.name) for field in dataclasses.fields(part)]
    assert not any(isinstance(value, Tensor | nn.Module) for value in values)


@pytest.mark.parametrize("part", [*DISTRIBUTIONS, *SCALES], ids=repr)
def test_one_part_builds_two_modules_without_shared_weights(part: Any) -> None:
    first, second = (
        part.build(7, 6) if isinstance(part, models.Scale) else build(part)[0] for _ in range(2)
    )
    shared = {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}
    assert not shared


def test_shapes(part: Any) -> None:
    module, args, event_dim = build(part)
    distribution = module(*args)
    assert distribution.batch_shape == ((5,) if args else ())
    assert len(distribution.event_shape) == event_dim
    assert distribution.sample().shape == distribution.batch_shape + distribution.event_shape


def test_gradients_reach_every_parameter(part: Any) -> None:
    module, args, _ = build(part)
    distribution = module(*args)
    if isinstance(part, models.Posterior):
        value = distribution.rsample()
    else:
        value = distribution.sample().clone()  # what a flow remembers of its draw is a constant
    if next(module.parameters(), None) is not None:
        (distribution.log_prob(value).sum() + value.sum()).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


def test_batched_equals_looped(part: Any) -> None:
    module, args, _ = build(part)
    if not args:
        pytest.skip("a prior has no batch")
    if not getattr(part, "scores_any_value", True):
        pytest.skip("scores nothing but its own draws")
    value = module(*args).sample()
    together = module(*args).log_prob(value)
    apart = [module(args[0][i]).log_prob(value[i]) for i in range(5)]
    torch.testing.assert_close(together, torch.stack(apart))


def test_leading_sample_dimensions_broadcast(part: Any) -> None:
    module, args, event_dim = build(part)
    if not args:
        pytest.skip("a prior has no batch")
    stacked = module(args[0].expand(3, 5, 7))
    assert stacked.batch_shape == (3, 5)
    assert len(stacked.event_shape) == event_dim


def test_float32_agrees_with_float64(part: Any) -> None:
    if not getattr(part, "scores_any_value", True):
        pytest.skip("scores nothing but its own draws")
    module, args, _ = build(part)
    value = module(*args).sample()
    double = doubled(module)
    wide = double(*(a.double() for a in args)).log_prob(value.double())
    torch.testing.assert_close(module(*args).log_prob(value).double(), wide, rtol=1e-4, atol=1e-4)


def test_state_dict_round_trip(part: Any) -> None:
    module, args, _ = build(part)
    twin, _, _ = build(part)
    twin.load_state_dict(module.state_dict())
    torch.manual_seed(0)
    value = module(*args).sample()
    torch.manual_seed(0)
    torch.testing.assert_close(twin(*args).sample(), value)


def doubled(module: nn.Module) -> nn.Module:
    """A copy in float64, with the encoder that a VampPrior looks at but does not own."""
    twin = copy.deepcopy(module).double()
    for encoder in getattr(twin, "_encoder", ()):
        encoder.double()
    return twin


def on_real_line(part: Any) -> tuple[Any, int]:
    """The distribution of one draw in float64, carried over to the reals, and its event rank."""
    torch.manual_seed(3)
    module, args, event_dim = build(part)
    distribution = doubled(module)(*(a[0].double() for a in args))
    if isinstance(part, models.Prior | models.Posterior):
        distribution = meet(distribution, part.support, REAL)
    if part == models.ContinuousBernoulli():
        distribution = meet(distribution, UNIT_INTERVAL, REAL)
    return distribution, event_dim


def weighted(part: Any, shift: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Draws of a wide t distribution, their importance weights, and draws of the part itself."""
    distribution, event_dim = on_real_line(part)
    with torch.no_grad():
        own = distribution.sample((20_000,)).flatten(-event_dim)
        wide = torch.distributions.StudentT(
            torch.tensor(3.0).double(), own.mean(0), 1.2 * own.std(0)
        )
        x = wide.sample((200_000,))
        log_p = distribution.log_prob(x.reshape(-1, *distribution.event_shape))
        return x, torch.exp(log_p + shift - wide.log_prob(x).sum(-1)), own


def total_mass(part: Any, shift: float = 0.0) -> tuple[float, float]:
    """Mass of a density by importance sampling, with its standard error."""
    _, weights, _ = weighted(part, shift)
    return float(weights.mean()), float(weights.std() / math.sqrt(len(weights)))


DISCRETE = (
    models.Bernoulli,
    models.Binomial,
    models.Categorical,
    models.DiscretizedLogistic,
    models.DiscretizedLogisticMixture,
    models.NegativeBinomial,
    models.Poisson,
)
CONTINUOUS = [
    p
    for p in DISTRIBUTIONS
    if not isinstance(p, DISCRETE) and getattr(p, "scores_any_value", True)
]


@pytest.mark.parametrize("part", CONTINUOUS, ids=repr)
def test_continuous_densities_integrate_to_one(part: Any) -> None:
    mass, error = total_mass(part)
    assert error < 0.02
    assert abs(mass - 1) < STANDARD_ERRORS * error


@pytest.mark.parametrize("part", CONTINUOUS[:1], ids=repr)
def test_a_density_off_by_two_percent_is_found_out(part: Any) -> None:
    mass, error = total_mass(part, shift=math.log(1.02))
    assert abs(mass - 1) > STANDARD_ERRORS * error


def moments_apart(part: Any, stretch: float = 1.0) -> float:
    """Largest difference of draws and density, in standard errors, over bounded moments."""
    x, weights, own = weighted(part)
    own = own * stretch
    centre, width = own.mean(0), own.std(0)
    largest = 0.0
    for moment in (torch.tanh, lambda u: torch.exp(-u.square())):
        by_density = weights.unsqueeze(-1) * moment((x - centre) / width)
        by_draws = moment((own - centre) / width)
        error = (by_density.var(0) / len(x) + by_draws.var(0) / len(own)).sqrt()
        apart = (by_density.mean(0) - by_draws.mean(0)).abs() / error
        largest = max(largest, float(apart.max()))
    return largest


@pytest.mark.parametrize("part", CONTINUOUS, ids=repr)
def test_draws_follow_the_density(part: Any) -> None:
    assert moments_apart(part) < STANDARD_ERRORS + 1  # the largest of a dozen


def test_draws_a_tenth_too_wide_are_found_out() -> None:
    assert moments_apart(models.StandardNormal(), stretch=1.1) > STANDARD_ERRORS + 1


LEVELS = {
    models.Bernoulli: torch.arange(2.0),
    models.Binomial: torch.arange(4.0) / 3,
    models.Categorical: torch.arange(3.0),
    models.DiscretizedLogistic: torch.arange(4.0) / 3,
    models.DiscretizedLogisticMixture: torch.arange(4.0) / 3,
    models.NegativeBinomial: torch.arange(400.0),
    models.Poisson: torch.arange(400.0),
}


@pytest.mark.parametrize(
    "part", [p for p in LIKELIHOODS if type(p) in LEVELS and p != models.Bernoulli(True)], ids=repr
)
def test_masses_sum_to_one_and_draws_follow_them(part: models.Likelihood) -> None:
    torch.manual_seed(3)
    levels = LEVELS[type(part)]
    distribution = part.build(7, (1,))(torch.randn(7))
    masses = distribution.log_prob(levels.unsqueeze(-1)).exp().detach()
    assert float(masses.sum()) == pytest.approx(1.0, abs=1e-5)
    draws = distribution.sample((20_000,)).flatten()
    counts = torch.stack([(draws - level).abs() < 1e-4 for level in levels]).sum(1)
    assert int(counts.sum()) == len(draws)
    expected = masses * len(draws)
    often = expected > 5
    square = ((counts - expected).square() / expected)[often].sum()
    degrees = int(often.sum()) - 1
    assert float(chi2.sf(float(square), degrees)) > 1e-6


def test_bernoulli_masses_sum_to_one_over_all_images() -> None:
    module, args, _ = build(models.Bernoulli())
    images = torch.tensor([[(n >> i) & 1 for i in range(6)] for n in range(64)]).float()
    log_prob = module(args[0][:1]).log_prob(images.reshape(64, *SHAPE))
    assert float(torch.logsumexp(log_prob, 0).detach()) == pytest.approx(0.0, abs=1e-5)


def test_relaxed_bernoulli_is_the_cross_entropy() -> None:
    module, args, _ = build(models.Bernoulli(relaxed=True))
    x = torch.rand(5, *SHAPE)
    distribution = module(*args)
    logits = distribution.base_dist.logits
    expected = -nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
    torch.testing.assert_close(distribution.log_prob(x), expected.flatten(1).sum(1))


@pytest.mark.parametrize("part", LIKELIHOODS, ids=repr)
def test_draws_pass_the_check_and_foreign_data_do_not(part: models.Likelihood) -> None:
    module, args, _ = build(part)
    part.check(module(*args).sample())
    for bad in (torch.full((1, *SHAPE), math.nan), torch.full((1, *SHAPE), math.inf)):
        with pytest.raises(ValueError, match="NaN or infinite"):
            part.check(bad)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        (models.Bernoulli(), 0.5, r"values in \{0, 1\}; got 1 distinct value from 0.5.*binarize"),
        (models.Bernoulli(relaxed=True), 1.5, r"values in \[0, 1\]; got .* to 1.5: scale"),
        (models.Bernoulli(relaxed=True), -0.1, r"values in \[0, 1\]"),
    ],
)
def test_errors_name_need_finding_and_remedy(
    part: models.Likelihood, value: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        part.check(torch.full((1, *SHAPE), value))


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_fixed_scale_must_be_positive(value: float) -> None:
    with pytest.raises(ValueError, match="value must be positive"):
        models.FixedScale(value)


def test_scales_start_where_they_are_told() -> None:
    for scale in SCALES[:3]:
        torch.testing.assert_close(scale.build(7, 6)(torch.zeros(5, 7)), torch.full((6,), 0.3))


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


@pytest.mark.parametrize("prior", PRIORS, ids=repr)
def test_posteriors_under_every_prior_can_be_sampled_and_annealed(prior: models.Prior) -> None:
    vae = models.VAE(SHAPE, 2, [4], prior=prior, likelihood=models.Normal()).eval()
    x = torch.rand(3, *SHAPE)
    settings: dict[str, Any] = {"num_chains": 8, "seed": 0}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "HMC")
        draws = inference.hmc(vae.model, x, num_samples=10, num_warmup=20, **settings)
    assert draws.samples["z"].shape == (8, 10, 3, 2)
    annealed = inference.ais_evidence(
        vae.model, x, guide=vae.guide, num_temperatures=5, **settings
    )
    assert bool(torch.isfinite(annealed.log_evidence).all())


@pytest.mark.parametrize("posterior", POSTERIORS, ids=repr)
def test_annealing_begins_at_every_posterior_that_has_a_density(
    posterior: models.Posterior,
) -> None:
    vae = models.VAE(SHAPE, 2, [4], posterior=posterior, likelihood=models.Normal()).eval()
    x = torch.rand(3, *SHAPE)
    settings: dict[str, Any] = {"guide": vae.guide, "num_chains": 8, "num_temperatures": 5}
    if isinstance(posterior, models.Delta) or not posterior.scores_any_value:
        for estimate in (inference.ais_evidence, inference.bdmc_evidence):
            with pytest.raises(ValueError, match="anneal from the prior instead"):
                estimate(vae.model, x, **settings)
    else:
        annealed = inference.ais_evidence(vae.model, x, **settings)
        assert bool(torch.isfinite(annealed.log_evidence).all())
