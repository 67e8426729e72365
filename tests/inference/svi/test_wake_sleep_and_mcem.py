"""Wake-sleep and Monte Carlo EM against the maximum of a likelihood that is known exactly."""

import math
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from torch import Tensor

from aevb import inference, models
from aevb.inference.svi import mcem as mcem_module
from aevb.inference.svi.wake_sleep import WakeSleepEstimator

N, FEATURES, LATENTS = 400, 5, 2
SETTINGS: dict[str, Any] = {
    "batch_size": 100, "learning_rate": 0.05, "compile": "traced",
    "schedule": lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.975),
}  # fmt: skip
# By how much the mean log-likelihood of the best parameters exceeds that of the true ones, on
# average: half their number over N. Half of that is well within the error of the data.
NUM_PARAMETERS = FEATURES * (LATENTS + 1) + 1
TOLERANCE = NUM_PARAMETERS / 2 / N / 2


@pytest.fixture(scope="module")
def data() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(FEATURES, LATENTS, generator=generator)
    z = torch.randn(N, LATENTS, generator=generator)
    return z @ weights.T + 0.5 * torch.randn(N, FEATURES, generator=generator)


def best(x: Tensor) -> float:
    """The greatest mean log-likelihood of probabilistic PCA (Tipping & Bishop, 1999, eq. 8)."""
    centred = (x - x.mean(0)).double()
    values = torch.linalg.eigvalsh(centred.T @ centred / len(x)).flip(0)
    noise = values[LATENTS:].mean()
    log_det = values[:LATENTS].log().sum() + (FEATURES - LATENTS) * noise.log()
    return float(-0.5 * (FEATURES * math.log(2 * math.pi) + log_det + FEATURES))


def short_of_best(train: Any, x: Tensor, epochs: int) -> float:
    torch.manual_seed(1)
    model = models.ProbabilisticPCA((FEATURES,), LATENTS)
    train(model, x, epochs=epochs, **SETTINGS)
    with torch.no_grad():
        return best(x) - float(model.log_evidence(x).mean())


def test_wake_sleep_reaches_the_maximum(data: Tensor) -> None:
    """With the exact posterior for a guide, whose score under the model's dreams has mean zero."""
    assert 0 <= short_of_best(inference.wake_sleep, data, 150) < TOLERANCE


def test_awake_with_draws_of_the_prior_it_does_not(
    data: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(self: Any, model: Any, guide: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            latents = {"z": torch.randn(len(x), LATENTS)}
        seen = poutine.trace(poutine.condition(model, data=latents)).get_trace(x)
        return -seen.log_prob_sum()

    monkeypatch.setattr(WakeSleepEstimator, "differentiable_loss", blind)
    assert short_of_best(inference.wake_sleep, data, 150) > 5 * TOLERANCE


def inference_gap(data: Tensor) -> float:
    """Of a guide that slept beside a model that is right and does not move."""
    torch.manual_seed(0)
    right = models.ProbabilisticPCA((FEATURES,), LATENTS)
    inference.fit(right, data, epochs=40, **SETTINGS)
    pupil = models.ProbabilisticPCA((FEATURES,), LATENTS, models.FullNormal())
    models.SmallNormal(0.1).draw(pupil)  # from a start that is not lost in the tails
    for part in ("decoder", "noise"):
        getattr(pupil, part).load_state_dict(getattr(right, part).state_dict())
        getattr(pupil, part).requires_grad_(False)
    slowly = {"schedule": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.985)}
    inference.wake_sleep(pupil, data, epochs=300, **{**SETTINGS, **slowly})
    evidence = inference.importance_evidence(pupil.model, pupil.guide, data, num_samples=500)
    return float((pupil.log_evidence(data) - evidence.elbo).mean())


# What a guide of 30 parameters lacks, on average, that was fitted to the N dreams of one pass, is
# half of 30 / N nats; five times that.
GAP_TOLERANCE = 5 * 30 / 2 / N


def test_the_guide_learns_the_exact_posterior_from_dreams(data: Tensor) -> None:
    assert inference_gap(data) < GAP_TOLERANCE


def test_without_dreams_it_does_not(data: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleepless(self: Any, model: Any, guide: Any, *args: Any) -> Tensor:
        with torch.no_grad():
            trace = poutine.trace(guide).get_trace(*args)
        seen = poutine.trace(poutine.replay(model, trace=trace)).get_trace(*args)
        recognized = poutine.trace(poutine.replay(guide, trace=trace)).get_trace(*args)
        return -seen.log_prob_sum() + 0 * recognized.log_prob_sum()

    monkeypatch.setattr(WakeSleepEstimator, "differentiable_loss", sleepless)
    assert inference_gap(data) > 5 * GAP_TOLERANCE


def test_monte_carlo_em_reaches_the_maximum(data: Tensor) -> None:
    assert 0 <= short_of_best(inference.mcem, data, 150) < TOLERANCE


def test_with_chains_that_stand_still_it_does_not(
    data: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = mcem_module.kernel.step

    def step(state: Any, *rest: Any) -> Any:
        return state, still(state, *rest)[1]

    monkeypatch.setattr(mcem_module.kernel, "step", step)
    assert short_of_best(inference.mcem, data, 150) > 5 * TOLERANCE


def test_chains_accept_as_often_as_asked(data: Tensor) -> None:
    """The step size follows the acceptance rate, once the weights stand still."""
    rates = []
    step = mcem_module.kernel.step

    def recorded(*args: Any) -> Any:
        state, info = step(*args)
        rates.append(float(info.acceptance_rate.mean()))
        return state, info

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mcem_module.kernel, "step", recorded)
        inference.mcem(models.ProbabilisticPCA((FEATURES,), LATENTS), data, epochs=150, **SETTINGS)
    last = torch.tensor(rates[-200:])
    assert abs(float(last.mean()) - 0.9) < 5 * float(last.std()) / math.sqrt(len(last)) + 0.01


@pytest.mark.parametrize("train", [inference.wake_sleep, inference.mcem])
@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_resumed_runs_are_exact(train: Any, binarize: str, tmp_path: Path) -> None:
    from aevb import data as datasets

    digits = datasets.load("digits", binarize=binarize)
    likelihood = models.Bernoulli(relaxed=True)
    settings: dict[str, Any] = {"batch_size": 300, "compile": "traced", "seed": 3}

    def model() -> models.VAE:
        torch.manual_seed(0)
        return models.VAE(digits.shape, 2, [10], likelihood=likelihood)

    whole, parts = model(), model()
    train(whole, digits.train, steps=13, **settings)
    train(parts, digits.train, steps=7, out=tmp_path, **settings)
    again = model()
    train(again, digits.train, steps=13, out=tmp_path, resume=True, **settings)
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
        assert name.startswith("encoder") or not torch.equal(parts.state_dict()[name], value)


def test_levels_agree(data: Tensor) -> None:
    found = []
    for level in ("eager", "traced"):
        torch.manual_seed(0)
        model = models.ProbabilisticPCA((FEATURES,), LATENTS)
        run = inference.mcem(model, data, epochs=2, batch_size=150, compile=level)
        found.append(run.history[-1]["train_objective"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_constrained_latents_and_discrete_ones() -> None:
    """Chains move unconstrained latents; wake-sleep needs no gradient through draws at all."""
    x = torch.tensor([0.5, 1.0, 2.0, 4.0]).repeat(20)

    def scales(x: Tensor) -> None:
        rate = pyro.param("rate", torch.tensor(0.2), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            scale = pyro.sample("scale", dist.Gamma(2.0, rate))
            pyro.sample("x", dist.Exponential(1 / scale), obs=x)

    def scales_guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("scale", dist.LogNormal(pyro.param("loc", torch.tensor(0.0)), 1.0))

    program = inference.Program(scales, scales_guide)
    inference.mcem(program, x, epochs=30, batch_size=40, learning_rate=0.05)
    # E[scale] under the prior is 2/rate, and E[x] is E[scale]: the rate moves towards 2/mean
    rate = float(program.param_sites["site/rate"].detach().exp())
    assert 0.7 < rate < 1.6

    def coin(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            side = pyro.sample("side", dist.Bernoulli(pyro.param("p", torch.tensor(0.5))))
            pyro.sample("x", dist.Normal(4 * side, 1.0), obs=x)

    def coin_guide(x: Tensor) -> None:
        weight = pyro.param("weight", torch.tensor(0.1))
        with pyro.plate("data", len(x)):
            pyro.sample("side", dist.Bernoulli(logits=weight * (x - 2.0)))

    program = inference.Program(coin, coin_guide)
    inference.wake_sleep(program, x, epochs=200, batch_size=40, learning_rate=0.02)
    # the exact posterior's log-odds are 4 (x − 2) for p = 1/2
    assert float(program.param_sites["site/weight"].detach()) > 1.0


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (inference.wake_sleep, r"discrete latent 'k' \(Cat.*objective=EnumeratedELBO\(\) in fit"),
        (inference.mcem, r"discrete latents, \['k'\].*fit with objective=EnumeratedELBO\(\)"),
    ],
)
def test_a_discrete_latent_that_nobody_draws_is_refused_with_the_remedy(
    train: Any, said: str
) -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])))
            z = pyro.sample("z", dist.Normal(pyro.param("m", torch.tensor(0.0)) + k, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(0.5)) * x, 1.0))

    program = inference.Program(model, guide)
    with pytest.raises(ValueError, match=said):
        train(program, torch.randn(8), epochs=1, batch_size=4)


def test_what_cannot_be_dreamt_or_moved_is_refused() -> None:
    x = torch.randn(20)

    def hidden(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(pyro.param("m", torch.tensor(0.0)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=2 * x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("a", torch.tensor(0.5)) * x, 1.0))

    with pytest.raises(ValueError, match="observe what is no argument"):
        inference.wake_sleep(inference.Program(hidden, guide), x, epochs=1, batch_size=10)
    with pytest.raises(ValueError, match="objective: has no meaning"):
        inference.mcem(
            inference.Program(hidden, guide),
            x,
            epochs=1,
            batch_size=10,
            objective=inference.IWAE(2),
        )
    with pytest.raises(ValueError, match="batch_size: chains need minibatches"):
        inference.mcem(inference.Program(hidden, guide), x, steps=1)
    with pytest.raises(ValueError, match="target_accept: must be in"):
        inference.mcem(
            inference.Program(hidden, guide), x, epochs=1, batch_size=10, target_accept=1.5
        )


@pytest.mark.parametrize(
    ("posterior", "said"),
    [(models.PlanarFlow(2), "can score only its own draws"), (models.Delta(), "point mass")],
)
def test_guides_without_a_density_cannot_learn_from_dreams(posterior: Any, said: str) -> None:
    vae = models.VAE((4,), 2, [8], posterior=posterior)
    with pytest.raises(ValueError, match=said):
        inference.wake_sleep(vae, torch.ones(20, 4), epochs=1, batch_size=10)


def test_autoguides_cannot_learn_from_dreams() -> None:
    def mean(x: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    program = inference.Program(mean, pyro.infer.autoguide.AutoNormal(mean))
    with pytest.raises(ValueError, match="as in an autoguide"):
        inference.wake_sleep(program, torch.randn(20), steps=1)


def test_chains_that_hardly_move_are_told_of() -> None:
    """A likelihood a ten-thousandth as wide as the prior, from which chains start."""

    class Narrow(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = torch.nn.Parameter(torch.zeros(()))

        def model(self, y: Tensor) -> None:
            with pyro.plate("data", len(y)):
                z = pyro.sample("z", dist.Normal(self.mean, 1.0))
                pyro.sample("y", dist.Normal(z, 1e-4), obs=y)

        def guide(self, y: Tensor) -> None:
            with pyro.plate("data", len(y)):
                pyro.sample("z", dist.Normal(y, 1e-4))

    y = torch.randn(200, generator=torch.Generator().manual_seed(0)) + 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mcem_module, "first_step_size", lambda *_: torch.ones(50))
        with pytest.warns(UserWarning, match="hardly move"):
            inference.mcem(Narrow(), y, epochs=5, batch_size=50, compile="eager")
    program = Narrow()
    inference.mcem(program, y, epochs=150, batch_size=50, learning_rate=0.05, compile="traced")
    assert abs(float(program.mean.detach()) - float(y.mean())) < 5 / 200**0.5


def test_the_chains_see_the_density_without_dropout() -> None:
    seen = []
    vae = models.VAE((4,), 2, [8])
    vae.decoder.register_forward_pre_hook(lambda module, _: seen.append(module.training))
    x = (torch.rand(40, 4) < 0.5).float()
    inference.mcem(vae, x, epochs=2, batch_size=20, compile="eager")
    assert seen.count(True) == 2 * 2 * 5  # the updates of the weights, and nothing else


def test_guides_that_look_at_nothing_are_refused() -> None:
    def model(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z + pyro.param("m", torch.tensor(0.0)), 1.0), obs=y)

    def guide(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            pyro.sample("z", dist.Normal(pyro.param("l", torch.tensor(0.0)), 1.0))

    with pytest.raises(ValueError, match="same density at other data"):
        inference.wake_sleep(inference.Program(model, guide), torch.randn(20), steps=1)
