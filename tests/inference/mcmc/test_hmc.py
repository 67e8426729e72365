"""Batched HMC against closed forms, quadrature and Pyro's NUTS, with twins that must fail."""

import importlib
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import MCMC, NUTS
from torch import Tensor

from aevb import inference, models
from aevb.inference import hmc, hmc_evidence
from aevb.inference.mcmc import kernel
from aevb.inference.mcmc.adaptation import DualAveraging, regularized_variance
from aevb.inference.mcmc.integrators import Point, kinetic_energy, leapfrog
from aevb.inference.mcmc.path_gradients import PathGradient
from aevb.inference.programs.log_density import LogDensity

from oracles import STANDARD_ERRORS, linear_gaussian, mean_field_guide, simulate


def constrained(x: Tensor) -> None:
    """Two latents on constrained supports for each datapoint."""
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        share = pyro.sample("share", dist.Beta(2.0, 3.0))
        pyro.sample("x", dist.Normal(rate * share, 0.3), obs=x)


def schools(y: Tensor, sigma: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
        pyro.sample("y", dist.Normal(mu + tau * eta, sigma), obs=y)


def funnel() -> None:
    v = pyro.sample("v", dist.Normal(0.0, 1.0))
    with pyro.plate("arms", 3):
        pyro.sample("w", dist.Normal(0.0, v.exp()))


def logistic(x: Tensor, y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Bernoulli(logits=(w * x).sum(-1)), obs=y)


SCHOOLS = (
    torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
    torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
)


# Densities


def test_density_with_jacobian_by_hand() -> None:
    x = torch.randn(4)
    density = LogDensity(constrained, x)
    u = torch.randn(3, 4, 2)
    rate, share = u[..., 0].exp(), u[..., 1].sigmoid()
    by_hand = (
        dist.Gamma(2.0, 1.0).log_prob(rate)
        + dist.Beta(2.0, 3.0).log_prob(share)
        + dist.Normal(rate * share, 0.3).log_prob(x)
        + u[..., 0]
        + share.log()
        + (1 - share).log()
    )
    torch.testing.assert_close(density.joint(u), by_hand.double(), rtol=1e-4, atol=1e-4)
    assert (density.batch, density.dim, density.is_local) == (4, 2, True)


def test_joint_posterior_takes_all_latents_together() -> None:
    density = LogDensity(schools, *SCHOOLS)
    assert (density.batch, density.dim, density.is_local) == (1, 10, False)
    u = density.prior_draws(5)
    latents = density.constrain(u)
    assert {name: tuple(v.shape) for name, v in latents.items()} == {
        "mu": (5,),
        "tau": (5,),
        "eta": (5, 8),
    }
    y, sigma = SCHOOLS
    mu, tau, eta = latents["mu"], latents["tau"], latents["eta"]
    by_hand = dist.Normal(0.0, 5.0).log_prob(mu) + dist.HalfCauchy(5.0).log_prob(tau) + tau.log()
    by_hand = by_hand + dist.Normal(0.0, 1.0).log_prob(eta).sum(-1)
    centre = mu.unsqueeze(-1) + tau.unsqueeze(-1) * eta
    by_hand = by_hand + dist.Normal(centre, sigma).log_prob(y).sum(-1)
    torch.testing.assert_close(density.joint(u)[:, 0], by_hand.double(), rtol=1e-5, atol=1e-3)


def test_guide_and_model_share_their_coordinates() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 5)
    density = LogDensity(fa.model, x, guide=fa.guide)
    u = density.guide_draws(7)
    with torch.no_grad():
        difference = density.joint(u) - density.guide(u)
        torch.testing.assert_close(difference, fa.log_evidence(x).expand(7, 5))


def discrete(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(k, 1.0), obs=x)


def moving_support(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        top = pyro.sample("top", dist.Gamma(2.0, 1.0))
        low = pyro.sample("low", dist.Uniform(torch.zeros(()), top))
        pyro.sample("x", dist.Normal(low, 1.0), obs=x)


def without_latents(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (discrete, r"site 'k' \(Bernoulli\) is discrete"),
        (moving_support, "site 'low': its support .* depends on other latents"),
        (without_latents, "has no latent sites"),
    ],
)
def test_models_without_a_density_of_reals_are_refused(
    model: Callable[..., Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        hmc(model, torch.zeros(3))


# Integrators


def quartic(u: Tensor) -> Point:
    """A density that is no normal, in two dimensions."""
    density = -(0.25 * u.pow(4).sum(-1) + 0.5 * u[..., 0] * u[..., 1])
    gradient = -(u.pow(3) + 0.5 * u.flip(-1))
    return Point(u, density.double(), gradient, torch.zeros_like(density))


def flow(u: Tensor, p: Tensor, step: float, steps: int) -> tuple[Tensor, Tensor]:
    size = torch.full((u.shape[1],), step, dtype=torch.float64)
    counts = torch.full((u.shape[1],), steps)
    inverse_mass = torch.tensor([[1.0, 2.0]], dtype=torch.float64).expand(u.shape[1], 2)
    end = leapfrog(quartic, quartic(u), p, size, inverse_mass, counts)
    return end.end.u, end.momentum


def test_leapfrog_is_reversible() -> None:
    u, p = torch.randn(2, 4, 3, 2, dtype=torch.float64)
    there, momentum = flow(u, p, 0.1, 20)
    back, _ = flow(there, -momentum, 0.1, 20)
    torch.testing.assert_close(back, u, rtol=1e-10, atol=1e-10)
    wrong, _ = flow(there, momentum, 0.1, 20)  # the momentum's sign not turned
    assert float((wrong - u).abs().max()) > 0.1


def test_leapfrog_preserves_volume() -> None:
    start = torch.randn(4, dtype=torch.float64)

    def flat(state: Tensor) -> Tensor:
        u, p = flow(state[:2].view(1, 1, 2), state[2:].view(1, 1, 2), 0.2, 5)
        return torch.cat([u.flatten(), p.flatten()])

    jacobian = torch.autograd.functional.jacobian(flat, start)
    assert float(torch.linalg.det(jacobian)) == pytest.approx(1.0, abs=1e-10)


def test_energy_error_falls_as_the_square_of_the_step() -> None:
    u, p = torch.randn(2, 50, 1, 2, dtype=torch.float64)
    mass = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    errors = []
    for steps in (40, 80):
        there, momentum = flow(u, p, 2.0 / steps, steps)
        after = kinetic_energy(momentum, mass) - quartic(there).log_density
        before = kinetic_energy(p, mass) - quartic(u).log_density
        errors.append(float((after - before).abs().mean()))
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.15)


def test_datapoints_make_their_own_number_of_steps() -> None:
    u, p = torch.randn(2, 4, 3, 2, dtype=torch.float64)
    mass = torch.ones(3, 2, dtype=torch.float64)
    step = torch.full((3,), 0.1, dtype=torch.float64)
    counts = torch.tensor([1, 7, 3])
    together = leapfrog(quartic, quartic(u), p, step, mass, counts)
    for column, count in enumerate(counts):
        part = slice(column, column + 1)
        alone = leapfrog(
            quartic, quartic(u[:, part]), p[:, part], step[part], mass[part], count.view(1)
        )
        assert torch.equal(together.end.u[:, part], alone.end.u)
        assert torch.equal(together.momentum[:, part], alone.momentum)


# Posteriors


def worst_errors(draws: Tensor, loc: Tensor, covariance: Tensor) -> tuple[float, float]:
    """Largest errors of means and covariances, in standard errors from the spread of chains.

    Args:
        draws: ``(chains, draws, batch, dim)``.
        loc: Exact means, ``(batch, dim)``.
        covariance: Exact, the same for all datapoints, so that all tell the spread of chains.
    """
    deviation = draws - loc
    products = torch.einsum("csbi,csbj->cbij", deviation, deviation) / draws.shape[1]
    means = deviation.mean(1)
    results = []
    for values in (means, products - covariance):
        chains = len(values)
        pooled = values.var(0).mean(0, keepdim=True) / chains
        results.append(float((values.mean(0).abs() / pooled.sqrt()).max()))
    return results[0], results[1]


@pytest.fixture(scope="module", name="oracle")
def fixture_oracle() -> tuple[models.FactorAnalysis, Tensor, Tensor, Tensor]:
    fa = linear_gaussian()
    x = simulate(fa, 200)
    with torch.no_grad():
        posterior = fa.posterior(x)
        return fa, x, posterior.loc, posterior.covariance_matrix[0]


def test_two_hundred_posteriors_have_their_exact_moments(oracle: Any) -> None:
    fa, x, loc, covariance = oracle
    draws = hmc(fa.model, x, num_chains=16, num_samples=200, num_warmup=200, seed=1)
    errors = worst_errors(draws.samples["z"], loc, covariance)
    assert max(errors) < STANDARD_ERRORS
    assert not bool(draws.suspicious.any())
    assert 0.7 < float(draws.stats["acceptance_rate"].mean()) < 0.95
    assert draws.stats["lp"].shape == (16, 200, 200)


@pytest.mark.filterwarnings("ignore:HMC")
def test_without_the_accept_step_moments_are_wrong(
    oracle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fa, x, loc, covariance = oracle
    step = kernel.step

    def always(*args: Any) -> tuple[Any, Any]:
        _, info = step(*args)
        return info.proposal.end, info

    monkeypatch.setattr(kernel, "step", always)
    part = slice(0, 200, 4)
    draws = hmc(fa.model, x[part], num_chains=16, num_samples=100, num_warmup=0, seed=1)
    assert max(worst_errors(draws.samples["z"], loc[part], covariance)) > STANDARD_ERRORS


def quadrature(x: Tensor) -> Tensor:
    """Posterior means of ``constrained``'s rate and share, ``(B, 2)``, on a fine grid."""
    rate = torch.linspace(1e-4, 20, 4001, dtype=torch.float64).view(-1, 1)
    share = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    prior = dist.Gamma(2.0, 1.0).log_prob(rate) + dist.Beta(2.0, 3.0).log_prob(share)
    results = []
    for value in x.double():
        weight = (prior + dist.Normal(rate * share, 0.3).log_prob(value)).exp()
        weight = weight / weight.sum()
        results.append(torch.stack([(weight * rate).sum(), (weight * share).sum()]))
    return torch.stack(results)


def means_on_supports(seed: int) -> tuple[Tensor, Tensor]:
    x = torch.tensor([0.1, 0.8, 2.0, 4.0])
    draws = hmc(constrained, x, num_chains=32, num_samples=500, num_warmup=300, seed=seed)
    values = torch.stack([draws.samples["rate"], draws.samples["share"]], -1).double()
    by_chain = values.mean(1)
    error = by_chain.std(0) / math.sqrt(len(by_chain))
    return (by_chain.mean(0) - quadrature(x)) / error, values


def test_constrained_supports_agree_with_quadrature() -> None:
    z, _ = means_on_supports(seed=2)
    assert float(z.abs().max()) < STANDARD_ERRORS


def shifted(x: Tensor) -> None:
    """torch reports the reals as the support of this prior, and it starts at 1."""
    affine = dist.transforms.AffineTransform(1.0, 2.0)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.TransformedDistribution(dist.Exponential(1.0), [affine]))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def circular(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.VonMises(0.0, 0.5))
        pyro.sample("x", dist.Normal(z, 1.5), obs=x)


def mixed(x: Tensor) -> None:
    components = dist.Normal(torch.tensor([-1.0, 1.0]), torch.tensor([0.5, 1.0]))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), components))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


@pytest.mark.parametrize(
    ("model", "low", "high"),
    [(shifted, 1.0, 30.0), (circular, -math.pi, math.pi), (mixed, -12.0, 12.0)],
)
def test_supports_that_torch_does_not_tell_agree_with_quadrature(
    model: Callable[[Tensor], None], low: float, high: float
) -> None:
    x = torch.tensor([0.0, 3.0, 5.0])
    draws = hmc(model, x, num_chains=32, num_samples=400, num_warmup=300, seed=3)
    z = draws.samples["z"].double()
    assert float(z.min()) >= low
    assert float(z.max()) <= high
    grid = low + (high - low) * (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    prior = pyro.poutine.trace(model).get_trace(x).nodes["z"]["fn"]
    noise = 1.5 if model is circular else 1.0
    log_joint = prior.log_prob(grid.unsqueeze(-1)) + dist.Normal(grid[:, None], noise).log_prob(x)
    weight = log_joint.softmax(0)
    by_chain = z.mean(1)
    error = by_chain.std(0) / math.sqrt(len(by_chain))
    wrong = (by_chain.mean(0) - (weight * grid[:, None]).sum(0)) / error
    assert float(wrong.abs().max()) < STANDARD_ERRORS
    evidence = inference.ais_evidence(model, x, num_chains=64, num_temperatures=50, seed=1)
    exact = log_joint.logsumexp(0) + math.log((high - low) / 20_000)
    off = (evidence.log_evidence - exact) / evidence.standard_error
    assert float(off.abs().max()) < STANDARD_ERRORS


def test_circular_latents_on_a_sphere_are_refused() -> None:
    def model() -> None:
        pyro.sample("z", dist.ProjectedNormal(torch.ones(3)))

    with pytest.raises(ValueError, match="site 'z': ProjectedNormal is circular"):
        hmc(model, num_samples=2, num_warmup=2)


def test_improper_priors_are_refused() -> None:
    def model() -> None:
        pyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))

    with pytest.raises(ValueError, match="the prior, which must be proper"):
        hmc(model, num_samples=2, num_warmup=2)


@pytest.mark.filterwarnings("ignore:HMC")
def test_without_the_jacobian_constrained_means_are_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transformed = LogDensity._transformed

    def no_jacobian(self: LogDensity, u: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        latents, jacobian = transformed(self, u)
        return latents, torch.zeros_like(jacobian)

    monkeypatch.setattr(LogDensity, "_transformed", no_jacobian)
    z, _ = means_on_supports(seed=2)
    assert float(z.abs().max()) > STANDARD_ERRORS


LOGISTIC = torch.randn(60, 3, generator=torch.Generator().manual_seed(3))
LABELS = (LOGISTIC.sum(-1) + torch.linspace(-2, 2, 60) > 0).float()


@pytest.mark.parametrize(
    ("model", "args", "shown"),
    [
        (schools, SCHOOLS, lambda s: torch.cat([s["mu"][..., None], s["eta"]], -1)),
        (logistic, (LOGISTIC, LABELS), lambda s: s["w"]),
    ],
    ids=["eight schools", "logistic regression"],
)
def test_draws_agree_with_pyros_own_nuts(
    model: Callable[..., Any], args: tuple[Any, ...], shown: Callable[..., Tensor]
) -> None:
    ours = hmc(model, *args, num_chains=16, num_samples=400, num_warmup=400, seed=3)
    values = shown(ours.samples).double()
    by_chain = values.mean(1)
    pyro.set_rng_seed(1)
    nuts = MCMC(NUTS(model), num_samples=600, warmup_steps=200, disable_progbar=True)
    nuts.run(*args)
    theirs = shown({k: v.squeeze() for k, v in nuts.get_samples().items()}).double()
    batches = theirs.unflatten(0, (20, 30)).mean(1)  # batch means
    error = (by_chain.var(0) / len(by_chain) + batches.var(0) / len(batches)).sqrt()
    assert float(((by_chain.mean(0) - batches.mean(0)) / error).abs().max()) < STANDARD_ERRORS
    ratio = values.flatten(0, 1).std(0) / theirs.std(0)
    assert float((ratio - 1).abs().max()) < 0.25


@pytest.mark.filterwarnings("ignore:HMC")  # which mixes slowly, in trajectories cut short
def test_funnel_has_its_exact_marginal() -> None:
    draws = hmc(funnel, num_chains=32, num_samples=200, num_warmup=150, seed=1)
    v = draws.samples["v"].double()
    for values, wanted in ((v, 0.0), (v.square(), 1.0)):
        by_chain = values.mean(1)
        error = float(by_chain.std()) / math.sqrt(len(by_chain))
        assert abs(float(by_chain.mean()) - wanted) < STANDARD_ERRORS * error


# What users rely on


def few(model: Callable[..., Any], *args: Any, **kwargs: Any) -> inference.Draws:
    """So few that they cannot mix: a draw in six is effective."""
    settings = {"num_chains": 6, "num_samples": 20, "num_warmup": 60, "seed": 5, **kwargs}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "HMC: chains of .* have not mixed")
        return hmc(model, *args, **settings)


@pytest.mark.filterwarnings("ignore:HMC")
def test_lost_posterior_leaves_its_neighbours_alone() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 6)
    good = few(fa.model, x)
    x[2] = 1e200
    with pytest.warns(UserWarning, match="chains of datapoints 2 are stuck"):
        spoilt = few(fa.model, x)
    assert spoilt.suspicious.tolist() == [False, False, True, False, False, False]
    others = [0, 1, 3, 4, 5]
    assert torch.equal(good.unconstrained[:, :, others], spoilt.unconstrained[:, :, others])


@pytest.mark.filterwarnings("ignore:HMC")
def test_singular_matrix_is_a_divergence_of_its_own() -> None:
    times = torch.linspace(0, 1, 6, dtype=torch.float64)
    distance = (times[:, None] - times).square()

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            log_length = pyro.sample("log_length", dist.Normal(x.new_tensor(-1.0), 1.0))
            kernel = (-0.5 * distance * (-2 * log_length[..., None, None]).exp()).exp()
            noisy = kernel + 1e-17 * torch.eye(6, dtype=torch.float64)
            normal = dist.MultivariateNormal(torch.zeros_like(times), noisy)
            pyro.sample("x", normal, obs=x)

    with pytest.raises(torch.linalg.LinAlgError):  # at long lengths, which constant data ask for
        torch.linalg.cholesky((-0.5 * distance / 4e6).exp() + 1e-17 * torch.eye(6).double())
    x = torch.stack([torch.sin(6 * times), torch.ones(6), torch.sin(40 * times)])
    draws = few(model, x)
    assert int(draws.divergences[1]) > 0
    other = few(model, torch.stack([x[0], x[0], x[2]])).unconstrained
    assert torch.equal(draws.unconstrained[:, :, [0, 2]], other[:, :, [0, 2]])


def test_masked_data_may_be_nan() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            known = x.detach() < 50
            with pyro.poutine.mask(mask=known):
                pyro.sample("x", dist.Normal(z, 0.5), obs=torch.where(known, x, torch.nan))

    x = torch.tensor([0.3, 99.0, -1.0])
    draws = few(model, x)
    assert int(draws.divergences.sum()) == 0
    assert torch.equal(
        few(model, torch.tensor([0.3, 77.0, -1.0])).unconstrained, draws.unconstrained
    )


def test_deterministic_site_outside_the_plate_leaves_posteriors_local() -> None:
    def model(x: Tensor) -> None:
        scale = pyro.deterministic("scale", torch.tensor(0.5))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, scale), obs=x)

    assert few(model, torch.zeros(3)).is_local


# Warnings


def centred_schools(y: Tensor, sigma: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def neals_funnel() -> None:
    v = pyro.sample("v", dist.Normal(0.0, 3.0))
    with pyro.plate("arms", 9):
        pyro.sample("w", dist.Normal(0.0, (v / 2).exp()))


def said_of(model: Callable[..., Any], *args: Any, **settings: Any) -> tuple[Any, str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        draws = hmc(model, *args, **settings)
    return draws, "\n".join(str(one.message) for one in caught)


HARD = [(centred_schools, SCHOOLS), (neals_funnel, ())]


@pytest.mark.parametrize(("model", "args"), HARD, ids=["eight schools", "funnel"])
def test_hard_posteriors_are_said_not_to_mix(
    model: Callable[..., Any], args: tuple[Tensor, ...]
) -> None:
    brief = {"num_chains": 4, "num_samples": 200, "num_warmup": 100, "max_num_steps": 5}
    draws, said = said_of(model, *args, **brief)
    assert draws.rhat.shape == draws.ess_bulk.shape == draws.ess_tail.shape == ()
    assert "HMC: chains of the posterior have not mixed: R̂ is up to " in said
    assert f"{float(draws.rhat):.3f}" in said
    assert "HMC: trajectories of the posterior reach max_num_steps=5" in said
    assert float(draws.ess_bulk) < 200


@pytest.mark.slow
@pytest.mark.parametrize("chains", [4, 16])
@pytest.mark.parametrize(("model", "args"), HARD, ids=["eight schools", "funnel"])
def test_hard_posteriors_are_said_not_to_mix_by_default(
    model: Callable[..., Any], args: tuple[Tensor, ...], chains: int
) -> None:
    for seed in range(2):
        _, said = said_of(model, *args, num_chains=chains, seed=seed)
        assert "HMC: chains of the posterior have not mixed" in said


def test_chains_that_mix_say_nothing_and_carry_their_figures() -> None:
    fa = linear_gaussian()
    draws, said = said_of(fa.model, simulate(fa, 20), num_samples=200, num_warmup=200)
    assert said == ""
    assert draws.rhat.shape == draws.ess_bulk.shape == draws.ess_tail.shape == (20,)
    assert draws.rhat is draws.rhat  # computed once
    assert float(draws.rhat.max()) < 1.05
    assert float(draws.ess_bulk.min()) > 400


def test_warnings_name_ten_datapoints_at_most() -> None:
    def two_modes(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 4.0))
            apart = torch.where(x.detach() > 0, 6.0, 0.0)
            pyro.sample("x", dist.Normal(z.abs(), 0.3), obs=apart + 0 * x)

    x = torch.ones(14)
    x[3] = -1.0
    draws, said = said_of(two_modes, x, num_chains=8, num_samples=100, num_warmup=100)
    assert "chains of datapoints 0, 1, 2, 4, 5, 6, 7, 8, 9, 10, ... have not mixed" in said
    assert bool((draws.rhat[x > 0] > 1.2).all())


def test_state_of_other_posteriors_is_refused() -> None:
    fa = linear_gaussian()
    draws = few(fa.model, simulate(fa, 6))
    with pytest.raises(ValueError, match="state: is of 6 posteriors of 3 dimensions"):
        few(fa.model, simulate(fa, 4), state=draws.state)


def test_same_seed_same_draws_and_nothing_else_changes() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 3)
    before = torch.get_rng_state()
    first, second = few(fa.model, x), few(fa.model, x)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.unconstrained, second.unconstrained)
    assert not torch.equal(first.unconstrained, few(fa.model, x, seed=6).unconstrained)


def test_chains_in_parts_are_the_chains_at_once() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 3)
    whole, parts = few(fa.model, x), few(fa.model, x, chain_batch_size=4)
    torch.testing.assert_close(whole.unconstrained, parts.unconstrained, rtol=1e-6, atol=1e-6)


def test_draws_can_be_continued() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 3)
    whole = few(fa.model, x, num_samples=30)
    first = few(fa.model, x, num_samples=10)
    rest = few(fa.model, x, num_samples=20, num_warmup=0, state=first.state)
    assert torch.equal(whole.unconstrained[:, 10:], rest.unconstrained)
    longer = few(fa.model, x, num_warmup=60, state=first.state)
    assert not torch.equal(longer.step_size, first.step_size)


def test_starts_and_masses_may_come_from_the_guide() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 3)
    guide = mean_field_guide(fa)
    start = LogDensity.guide_draws
    draws = few(fa.model, x, num_warmup=0, num_samples=1, guide=guide, start=start)
    scale = 1 / fa.posterior(x).precision_matrix.diagonal(dim1=-2, dim2=-1).detach()
    torch.testing.assert_close(draws.inverse_mass, scale.expand(3, 3), rtol=0.6, atol=0.0)
    with pytest.raises(ValueError, match="guide: none was given"):
        few(fa.model, x, start=start)


def test_chains_may_start_anywhere() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 3)
    starts = []

    def far(density: LogDensity, num: int) -> Tensor:
        starts.append(torch.full((num, density.batch, density.dim), 30.0, dtype=density.dtype))
        return starts[0]

    draws = few(fa.model, x, start=far)
    assert starts[0].shape == (6, 3, 3)
    assert float(draws.unconstrained.abs().max()) < 10.0
    with pytest.raises(ValueError, match=r"start: expected positions \(6, 3, 3\); got \(3, 3\)"):
        few(fa.model, x, start=lambda density, num: far(density, num)[0, :3])


def test_graph_and_program_give_the_same_gradients() -> None:
    vae = models.VAE((8, 8), 3, [16])
    x = (torch.rand(5, 8, 8) > 0.5).float()
    alone, guided = (LogDensity(vae.model, x, guide=guide) for guide in (None, vae.guide))
    temperature = torch.rand(5).double()
    u = alone.prior_draws(4)
    for density, given in ((alone, ()), (alone, (temperature,)), (guided, (temperature,))):
        plain = PathGradient(density)(u, *given)
        graph = PathGradient(density, num_evaluations=10_000)(u, *given)
        torch.testing.assert_close(plain.log_density, graph.log_density)
        torch.testing.assert_close(plain.gradient, graph.gradient, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(plain.tilt, graph.tilt)


def test_step_sizes_reach_the_wanted_acceptance() -> None:
    steps = DualAveraging(torch.zeros(2, dtype=torch.float64), target=0.8)
    for _ in range(300):
        steps.update(1 / (1 + steps.log_step.exp() * torch.tensor([1.0, 100.0])))
    rate = 1 / (1 + steps.average.exp() * torch.tensor([1.0, 100.0]))
    torch.testing.assert_close(rate, torch.full_like(rate, 0.8), rtol=0.0, atol=0.02)


def test_masses_of_many_draws_are_numpys_variances() -> None:
    u = torch.randn(2000, 3, 2, dtype=torch.float64)
    wanted = np.var(u.numpy(), axis=0, ddof=1)
    np.testing.assert_allclose(regularized_variance(u).numpy(), wanted, rtol=5e-3)
    assert float((regularized_variance(u[:2]) - u[:2].var(0)).abs().max()) > 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_chains": 0}, "num_chains"),
        ({"num_samples": 0}, "num_samples"),
        ({"num_warmup": -1}, "num_warmup"),
        ({"thinning": 0}, "thinning"),
        ({"start": "mode"}, "start: expected a function .*; got 'mode'"),
        ({"target_acceptance": 1.0}, "target_acceptance"),
        ({"chain_batch_size": 0}, "chain_batch_size"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    fa = linear_gaussian()
    with pytest.raises(ValueError, match=message):
        few(fa.model, simulate(fa, 2), **settings)


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
