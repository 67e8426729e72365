"""The objective that training follows is the one written: estimators, particles, weight priors."""

import math
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.distributions import constraints
from pyro.infer import trace_mean_field_elbo as mean_field
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn

from aevb import data, models
from aevb.inference import ELBO, Program, fit

from oracles import STANDARD_ERRORS, linear_gaussian, simulate
from small_trainings import ROWS, location_model, small_vae

# The objective


def bounds(objective: ELBO, vae: models.VAE, x: Tensor, repeats: int) -> Tensor:
    """Independent estimates of the bound, ``(repeats,)``, in nats summed over the data."""
    estimator = objective.estimator()
    losses = [estimator.loss(vae.model, vae.guide, x) for _ in range(repeats)]
    return -torch.tensor(losses, dtype=torch.float64)


def distance(a: Tensor, b: Tensor) -> float:
    """Difference of two means in standard errors."""
    error = math.sqrt(float(a.var() / len(a) + b.var() / len(b)))
    return float((a.mean() - b.mean()).abs()) / error


def confident_vae() -> models.VAE:
    """A VAE whose posteriors are far from the prior, so that the divergence matters."""
    vae = small_vae()
    with torch.no_grad():
        vae.encoder.posterior.loc.weight.mul_(8)
    return vae


ESTIMATOR_A, ESTIMATOR_B = ELBO(num_particles=50), ELBO(num_particles=50, analytic_kl=True)


def test_both_estimators_have_the_same_mean(digits: data.Dataset) -> None:
    vae, x = confident_vae(), digits.test.evaluation(5)
    a, b = (bounds(objective, vae, x, 100) for objective in (ESTIMATOR_A, ESTIMATOR_B))
    assert distance(a, b) < STANDARD_ERRORS


def test_estimator_with_a_wrong_divergence_would_be_found(
    digits: data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae, x = confident_vae(), digits.test.evaluation(5)
    divergence = mean_field.kl_divergence  # type: ignore[attr-defined]
    monkeypatch.setattr(mean_field, "kl_divergence", lambda q, p: 1.1 * divergence(q, p))
    a, b = (bounds(objective, vae, x, 100) for objective in (ESTIMATOR_A, ESTIMATOR_B))
    assert distance(a, b) > STANDARD_ERRORS


def log_variance(values: Tensor) -> tuple[float, float]:
    """Logarithm of the sample variance and its standard error, √((kurtosis − 1) / n)."""
    squares = (values - values.mean()).square()
    kurtosis = float(squares.square().mean() / squares.mean().square())
    return float(values.var().log()), math.sqrt((kurtosis - 1) / len(values))


def distance_of_reduction(one: Tensor, many: Tensor, factor: float) -> float:
    """Of a variance reduction from the expected one, in standard errors."""
    (first, first_error), (second, second_error) = log_variance(one), log_variance(many)
    return abs(first - second - math.log(factor)) / math.hypot(first_error, second_error)


@pytest.mark.parametrize("vectorize", [True, False])
def test_particles_divide_the_variance_by_their_number(
    vectorize: bool, digits: data.Dataset
) -> None:
    vae, x = small_vae(), digits.test.evaluation(5)
    one = bounds(ELBO(), vae, x, 300)
    many = bounds(ELBO(num_particles=4, vectorize_particles=vectorize), vae, x, 300)
    assert distance_of_reduction(one, many, 4) < STANDARD_ERRORS


def test_particles_without_effect_would_be_found(digits: data.Dataset) -> None:
    vae, x = small_vae(), digits.test.evaluation(5)
    one, other = (bounds(ELBO(), vae, x, 300) for _ in range(2))
    assert distance_of_reduction(one, other, 4) > STANDARD_ERRORS


RATE, MAP_STEPS = 0.01, 3


def trained(batch_size: int | None, scale: float | None) -> tuple[list[Tensor], list[Tensor]]:
    """Weights after some steps of gradient descent, and the data of each step."""
    fa, x = linear_gaussian(), simulate(linear_gaussian(), 40)
    seen: list[Tensor] = []

    def guide(x: Tensor) -> None:
        seen.append(x)
        fa.guide(x)

    program = Program(fa.model, guide)
    program.module = fa  # the owner of the weights
    settings: dict[str, Any] = {"batch_size": batch_size, "weight_prior_scale": scale}
    settings |= {"optimizer": torch.optim.SGD, "learning_rate": RATE, "steps": MAP_STEPS}
    fit(program, x, device="cpu", compile="eager", **settings)
    return [parameter.detach() for parameter in fa.parameters()], seen[-MAP_STEPS:]


def trained_by_hand(
    batches: list[Tensor], scale: float | None, num_datapoints: int, batch_size: int | None = None
) -> list[Tensor]:
    """The same descent of −Σ log p(x) / M − log N(θ; 0, s²I) / N, which needs no guide."""
    fa = linear_gaussian()
    weights = list(fa.parameters())
    for x in batches:
        loss = -fa.log_evidence(x).sum() / (batch_size or len(x))
        if scale is not None:
            prior = sum(dist.Normal(0.0, scale).log_prob(weight).sum() for weight in weights)
            loss = loss - prior / num_datapoints
        with torch.no_grad():
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight -= RATE * gradient
    return [weight.detach() for weight in weights]


@pytest.mark.parametrize("batch_size", [None, 40, 16])
@pytest.mark.parametrize("scale", [None, 0.5])
def test_steps_follow_the_gradient_of_the_map_objective(
    batch_size: int | None, scale: float | None
) -> None:
    """With the exact guide, every draw of the bound is log p(x), and so is its gradient."""
    found, batches = trained(batch_size, scale)
    assert [len(x) for x in batches] == ([16, 16, 8] if batch_size == 16 else [40, 40, 40])
    by_hand = trained_by_hand(batches, scale, 40)
    torch.testing.assert_close(found, by_hand, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "wrong", [{"num_datapoints": 1}, {"num_datapoints": 16}, {"batch_size": 16}]
)
def test_wrong_scale_of_the_map_objective_would_be_found(wrong: dict[str, int]) -> None:
    found, batches = trained(16, 0.5)
    by_hand = trained_by_hand(batches, 0.5, **{"num_datapoints": 40, **wrong})
    assert not any(map(partial(torch.allclose, rtol=1e-5), found, by_hand))


@pytest.mark.parametrize("deep", [False, True])
def test_only_generative_weights_have_a_prior(deep: bool) -> None:
    """Of the same draws, a step differs by rate × w / (s² N), for the model's weights alone."""
    after = []
    for scale in (None, 0.1):
        torch.manual_seed(0)
        program = models.DLGM((6,), [2, 2], [3], models.Normal()) if deep else factor_model()
        x = simulate(linear_gaussian(), 40).float()
        before = {name: p.detach().clone() for name, p in program.named_parameters()}
        settings: dict[str, Any] = {"optimizer": torch.optim.SGD, "learning_rate": RATE}
        fit(program, x, steps=1, weight_prior_scale=scale, device="cpu", **settings)
        after.append(dict(program.named_parameters()))
    free, held = after
    for name, start in before.items():
        generative = not name.startswith("encoder")
        pull = RATE * start / (0.1**2 * 40) if generative else torch.zeros_like(start)
        torch.testing.assert_close(free[name] - held[name], pull, rtol=1e-3, atol=1e-6)
    assert any(name.startswith("encoder") for name in before)


def factor_model() -> models.VAE:
    return models.VAE((6,), 2, [3], prior=models.LearnedNormal(), likelihood=models.Normal())


def test_ordinary_parameters_of_a_pyro_module_have_the_prior() -> None:
    class Model(PyroModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = PyroModule[nn.Linear](3, 3)
            self.scale = PyroParam(torch.tensor(0.5), constraint=constraints.positive)

        def forward(self, x: Tensor) -> None:
            z = pyro.sample("location", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(self.layer(z), self.scale).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", torch.ones(3))
        pyro.sample("location", dist.Normal(loc, 1.0).to_event(1))

    after = []
    for scale in (None, 0.1):
        torch.manual_seed(0)
        program = Program(Model(), guide)
        program.guide(ROWS)
        before = {name: p.detach().clone() for name, p in program.named_parameters()}
        settings: dict[str, Any] = {"optimizer": torch.optim.SGD, "learning_rate": RATE}
        fit(program, ROWS, steps=1, weight_prior_scale=scale, device="cpu", **settings)
        after.append(dict(program.named_parameters()))
    free, held = after
    for name, start in before.items():
        pulled = "guide" not in name and "loc" not in name
        pull = RATE * start / (0.1**2 * len(ROWS)) if pulled else torch.zeros_like(start)
        torch.testing.assert_close(free[name] - held[name], pull, rtol=1e-3, atol=1e-6)


def test_prior_without_weights_is_refused() -> None:
    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", torch.zeros(3))
        pyro.sample("location", dist.Normal(loc, 1.0).to_event(1))

    with pytest.raises(ValueError, match="the model announces no trainable parameter"):
        fit(Program(location_model, guide), ROWS, steps=1, weight_prior_scale=1.0, device="cpu")


@pytest.mark.parametrize("plate", ["data", "rows", None])
@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_prior_shrinks_to_the_closed_form(plate: str | None, scale: float) -> None:
    """For x ~ N(w, 1) and w ~ N(0, s²), the mode of w is Σx / (N + 1/s²)."""
    x = ROWS.double()

    def model(x: Tensor) -> None:
        w = pyro.param("w", torch.zeros(3, dtype=torch.float64))
        if plate is None:
            pyro.sample("x", dist.Normal(w.expand(x.shape), 1.0).to_event(2), obs=x)
        else:
            with pyro.plate(plate, len(x)):
                pyro.sample("x", dist.Normal(w, 1.0).to_event(1), obs=x)

    program = Program(model, lambda x: None)
    curvature = len(x) + scale**-2
    # the loss is divided by the datapoints where the plate says how many there are
    rate = 0.5 / curvature * (len(x) if plate == "data" else 1)
    settings: dict[str, Any] = {"optimizer": torch.optim.SGD, "learning_rate": rate}
    fit(program, x, steps=60, weight_prior_scale=scale, device="cpu", **settings)
    expected = x.sum(0) / curvature
    torch.testing.assert_close(program.param_sites["site/w"].data, expected, rtol=1e-10, atol=0)
