"""Objectives against their formulas and their expectations."""

import math
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn
from torch.distributions import kl_divergence

from aevb import inference, models
from aevb.inference import ELBO, IWAE, BetaELBO, DReG, FreeBits, Objective, StickingTheLanding
from aevb.models import posteriors

from objective_programs import X, estimator, vae
from oracles import STANDARD_ERRORS


def deep() -> models.HierarchicalVAE:
    torch.manual_seed(2)
    return models.HierarchicalVAE((3, 3), [2, 2], [[5], [4]])


def value(objective: Objective, program: Any, seed: int = 0, x: Tensor = X) -> float:
    torch.manual_seed(seed)
    with torch.no_grad():
        return -float(estimator(objective).differentiable_loss(program.model, program.guide, x))


def gradients(objective: Objective, program: Any, parameters: list[Tensor]) -> Tensor:
    loss = estimator(objective).differentiable_loss(program.model, program.guide, X)
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat([g.flatten() for g in grads if g is not None])


def log_weights(program: models.VAE, count: int, seed: int) -> Tensor:
    torch.manual_seed(seed)
    q = program.encoder(X).expand((count, len(X)))
    z = q.rsample()
    log_p = program.prior().log_prob(z) + program.decoder(z).log_prob(X)
    weights: Tensor = log_p - q.log_prob(z)
    return weights


def test_iwae_is_the_log_of_each_datapoints_mean_weight() -> None:
    program = vae()
    with torch.no_grad():
        expected = torch.logsumexp(log_weights(program, 7, seed=3), 0) - math.log(7)
    assert value(IWAE(7), program, seed=3) == pytest.approx(float(expected.sum()), rel=1e-5)


@pytest.mark.parametrize("make", [vae, deep])
def test_iwae_of_one_draw_is_the_elbo(make: Callable[[], Any]) -> None:
    for other in (IWAE(1), DReG(1), StickingTheLanding(1), BetaELBO()):
        assert value(other, make()) == pytest.approx(value(ELBO(), make()), rel=1e-5)


def test_path_gradients_change_no_value() -> None:
    assert value(DReG(6), deep(), seed=1) == pytest.approx(
        value(IWAE(6), deep(), seed=1), rel=1e-5
    )
    several = value(StickingTheLanding(6), deep(), seed=1)
    assert several == pytest.approx(value(ELBO(6), deep(), seed=1), rel=1e-5)


def apart(
    first: Objective, second: Objective, make: Callable[[], Any], scale: float = 1.0
) -> float:
    """Largest difference of two mean gradients, in standard errors, along fixed directions."""
    program = make()
    parameters = list(program.parameters())
    size = gradients(first, program, parameters).numel()
    directions = torch.randn(size, 12, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(5)
    one, two = (
        torch.stack([gradients(o, program, parameters) @ directions for _ in range(400)])
        for o in (first, second)
    )
    error = (one.var(0) / len(one) + two.var(0) / len(two)).sqrt()
    return float(((one.mean(0) - scale * two.mean(0)).abs() / error).max())


@pytest.mark.parametrize("make", [vae, deep])
@pytest.mark.parametrize(
    ("first", "second"), [(DReG(4), IWAE(4)), (StickingTheLanding(4), ELBO(4))], ids=repr
)
def test_path_gradients_are_unbiased(
    first: Objective, second: Objective, make: Callable[[], Any]
) -> None:
    assert apart(first, second, make) < STANDARD_ERRORS


def test_a_gradient_off_by_a_quarter_is_found_out() -> None:
    assert apart(DReG(4), IWAE(4), deep, scale=1.25) > STANDARD_ERRORS


def exact_program() -> tuple[Any, list[nn.Parameter]]:
    """z ~ N(0, 1), x ~ N(z, 1), and the exact guide N(x / 2, 1 / 2)."""
    loc, log_scale = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(0.5).log() / 2)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc * x, log_scale.exp()))

    class Pair:
        pass

    pair: Any = Pair()
    pair.model, pair.guide = model, guide
    return pair, [loc, log_scale]


@pytest.mark.parametrize("objective", [StickingTheLanding(), StickingTheLanding(3), DReG(5)])
def test_path_gradients_vanish_at_the_exact_posterior(objective: Objective) -> None:
    program, parameters = exact_program()
    x = torch.linspace(-2, 2, 5)
    loss = objective.estimator().differentiable_loss(program.model, program.guide, x)
    grads = torch.autograd.grad(loss, parameters)
    assert max(float(g.abs()) for g in grads) < 1e-5
    ordinary = ELBO(3).estimator().differentiable_loss(program.model, program.guide, x)
    assert max(float(g.abs()) for g in torch.autograd.grad(ordinary, parameters)) > 0.1


def test_beta_weighs_the_divergence() -> None:
    program = vae()
    torch.manual_seed(0)
    with torch.no_grad():
        q = program.encoder(X)
        z = q.rsample()
        fit = program.decoder(z).log_prob(X).sum()
        divergence = kl_divergence(q, program.prior()).sum()
        sampled = (q.log_prob(z) - program.prior().log_prob(z)).sum()
    assert value(BetaELBO(3.0), program) == pytest.approx(float(fit - 3 * sampled), rel=1e-5)
    analytic = BetaELBO(3.0, analytic_kl=True)
    assert value(analytic, program) == pytest.approx(float(fit - 3 * divergence), rel=1e-5)


def test_warm_up_counts_its_steps() -> None:
    program = vae()
    warming = estimator(BetaELBO(beta=2.0, warmup_steps=4))
    weights = []
    for _ in range(6):
        torch.manual_seed(0)
        loss = warming.differentiable_loss(program.model, program.guide, X)
        zero, one = -value(BetaELBO(0.0), program), -value(BetaELBO(1.0), program)
        weights.append((float(loss.detach()) - zero) / (one - zero))
    assert weights == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0, 2.0], abs=1e-3)


def test_free_bits_floor_each_dimension() -> None:
    program = vae()
    torch.manual_seed(0)
    with torch.no_grad():
        q = program.encoder(X)
        fit = program.decoder(q.rsample()).log_prob(X).sum()
        by_dimension = kl_divergence(q.base_dist, program.prior().base_dist).mean(0)
    for nats in (0.01, float(by_dimension.mean()), 5.0):
        expected = fit - len(X) * by_dimension.clamp(min=nats).sum()
        assert value(FreeBits(nats), program) == pytest.approx(float(expected), rel=1e-5)


def test_free_bits_without_dimensions_floor_the_whole() -> None:
    program = vae(posterior=models.FullNormal())
    torch.manual_seed(0)
    with torch.no_grad():
        fit = program.decoder(program.encoder(X).rsample()).log_prob(X).sum()
    expected = fit - len(X) * 2 * 50.0
    assert value(FreeBits(50.0), program) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    "posterior", [models.RankOneNormal(), models.FullNormal(), models.LowRankNormal()]
)
def test_correlated_normals_have_a_closed_divergence(posterior: models.Posterior) -> None:
    torch.manual_seed(0)
    q = posterior.build(4, 3)(torch.randn(2, 4))
    p = dist.Normal(torch.tensor([0.3, 0.0, -1.0]), torch.tensor([1.0, 0.5, 2.0])).to_event(1)
    exact = kl_divergence(q, p)
    z = q.sample((200_000,))
    ratio = q.log_prob(z) - p.log_prob(z)
    error = ratio.std(0) / math.sqrt(len(ratio))
    assert bool(((ratio.mean(0) - exact).abs() < STANDARD_ERRORS * error).all())
    assert bool(((ratio.mean(0) - 1.1 * exact).abs() > STANDARD_ERRORS * error).any())


def test_location_scale_families_train() -> None:
    for family in (posteriors.Laplace(), models.Logistic(), posteriors.StudentT()):
        program = vae(posterior=family)
        run = inference.fit(program, X, steps=3, device="cpu", progress=False)
        assert math.isfinite(run.history[-1]["train_objective"])


@pytest.mark.parametrize("objective", [StickingTheLanding(), DReG(1)])
def test_path_gradients_see_the_same_input_noise(objective: Objective) -> None:
    torch.manual_seed(2)
    noise = models.BitFlip(0.3)
    program = models.DLGM((3, 3), [2, 2], [5], posterior=models.RankOneNormal(), input_noise=noise)
    assert value(objective, program) == pytest.approx(value(ELBO(), program), rel=1e-5)


def test_divergences_that_do_not_add_up_are_refused() -> None:
    for objective in (ELBO(analytic_kl=True), FreeBits(), BetaELBO(analytic_kl=True)):
        with pytest.raises(ValueError, match="in another order than the model"):
            inference.fit(deep(), X, objective=objective, steps=1, progress=False)
    torch.manual_seed(2)
    flat = models.DLGM((3, 3), [2, 2], [5], input_noise=models.Dropout())
    run = inference.fit(flat, X, objective=ELBO(analytic_kl=True), steps=1, progress=False)
    assert math.isfinite(run.history[-1]["train_objective"])


def test_autoguides_have_no_divergence_of_their_own() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(2.0, 2.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    program = inference.Program(model, AutoNormal(model))
    with pytest.raises(ValueError, match="an autoguide's are"):
        inference.fit(
            program, torch.ones(4), objective=ELBO(analytic_kl=True), steps=1, progress=False
        )


def test_weights_of_all_datapoints_use_nothing_for_free() -> None:
    program = vae(weights=models.LatentWeights())
    with pytest.raises(ValueError, match="belongs to all datapoints"):
        inference.fit(program, X, objective=FreeBits(), steps=1, progress=False)


def test_guides_that_draw_what_is_no_site_keep_their_score() -> None:
    def encoder(shape: tuple[int, ...]) -> nn.Module:
        module = nn.Sequential(nn.Flatten(-len(shape)), nn.Linear(math.prod(shape), 5))
        module.append(nn.Dropout(0.5))
        module.out_features = 5  # type: ignore[assignment]
        return module

    network = models.UserNetwork(encoder, lambda size, shape: nn.Linear(size, 5))
    program = models.DLGM((3, 3), [2, 2], network=network)
    x = torch.zeros(4, 3, 3)
    settings: dict[str, Any] = {"steps": 2, "device": "cpu", "progress": False}
    inference.fit(program, x, objective=ELBO(), **settings)
    with pytest.raises(ValueError, match=r"nn.Dropout.*use ELBO\(\) or IWAE\(\)"):
        inference.fit(program, x, objective=StickingTheLanding(), **settings)


def test_input_noise_with_latent_weights_is_the_same_for_every_objective() -> None:
    program = models.VAE(
        (3, 3), 2, [5], input_noise=models.GaussianNoise(3.0), weights=models.LatentWeights()
    )
    program.train()
    x = (torch.rand(6, 3, 3) > 0.5).float()
    losses = []
    for objective in (ELBO(), StickingTheLanding()):
        estimator = objective.estimator()
        values = torch.stack(
            [
                torch.as_tensor(
                    estimator.differentiable_loss(program.model, program.guide, x)
                ).detach()
                for _ in range(400)
            ]
        )
        losses.append((values.mean(), values.std() / 20))
    (first, a), (second, b) = losses
    assert float((first - second).abs() / (a.square() + b.square()).sqrt()) < 5
