"""What a minibatch stands for, and how the terms of a program are counted."""

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.contrib import gp
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from pyro.nn import PyroSample
from torch import Tensor
from torch.distributions import kl_divergence

from aevb import inference
from aevb.inference.programs.arguments import Arguments
from aevb.inference.programs.program import prepare
from aevb.inference.svi.subsampling import Minibatch, StandsFor, read_minibatch

from normal_means import NUM, data, mean_and_local, mean_of_all, normal_guide


def without_plate(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(y.new_zeros(()), 10.0))
    pyro.sample("y", dist.Normal(mean, 1.0).expand([len(y)]).to_event(1), obs=y)


def of_one_size(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(y.new_zeros(()), 10.0))
    with pyro.plate("obs", 100):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def scaled_by_hand(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(y.new_zeros(()), 10.0))
    with pyro.plate("obs", len(y)), poutine.scale(scale=NUM / len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def narrow_guide(y: Tensor) -> None:
    loc = pyro.param("loc", lambda: y.new_full((), 2.0))
    scale = pyro.param("scale", lambda: y.new_full((), 0.1), constraint=dist.constraints.positive)
    pyro.sample("mean", dist.Normal(loc, scale))


def fitted_scale(model: Callable[..., Any], batch_size: int | None) -> tuple[float, float]:
    """Location and scale of the guide after many steps of a falling rate."""
    program = inference.Program(model, narrow_guide)
    inference.fit(
        program, (data(),), batch_size=batch_size, steps=1500, learning_rate=0.02,
        compile="traced", objective=inference.ELBO(num_particles=16),
        schedule=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.97),
    )  # fmt: skip
    trace = poutine.trace(program.guide).get_trace(data())
    fn = trace.nodes["mean"]["fn"]
    return float(fn.loc.detach()), float(fn.scale.detach())


@pytest.mark.parametrize("model", [mean_of_all, of_one_size])
def test_minibatches_beside_a_shared_latent_stand_for_all_data(
    model: Callable[..., Any],
) -> None:
    """The posterior of a mean is 1/√N wide, and not 1/√M: √10 apart."""
    loc, scale = fitted_scale(model, 100)
    exact = (NUM + 0.01) ** -0.5
    assert abs(scale / exact - 1) < 0.1
    assert abs(loc - float(data().sum()) / (NUM + 0.01)) < 0.5 * exact


def test_the_scaled_gradient_is_that_of_a_subsampled_plate() -> None:
    """One step equals Pyro's with ``plate(size, subsample)``."""

    def subsampled(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(y.new_zeros(()), 10.0))
        with pyro.plate("obs", NUM, subsample=torch.arange(len(y))):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    y = data()[:100]
    scaling = scaling_of(mean_of_all, normal_guide, y)
    assert scaling is not None
    with scaling:
        ours = poutine.trace(mean_of_all).get_trace(y)
    theirs = poutine.trace(
        poutine.condition(subsampled, data={"mean": ours.nodes["mean"]["value"]})
    ).get_trace(y)
    torch.testing.assert_close(ours.log_prob_sum(), theirs.log_prob_sum())
    plain = poutine.trace(
        poutine.condition(mean_of_all, data={"mean": ours.nodes["mean"]["value"]})
    ).get_trace(y)
    assert not torch.allclose(plain.log_prob_sum(), theirs.log_prob_sum())


def scaling_of(model: Any, guide: Any, y: Tensor) -> StandsFor | None:
    """What `fit` finds out from a minibatch of 100 and one of 50."""
    program = inference.Program(model, guide)
    traces = prepare(program, Arguments((y,)))
    return read_minibatch(program, traces, len(y), (Arguments((y[:50],)), 50), NUM).scaling


@pytest.mark.parametrize(
    ("model", "is_scaled"), [(mean_of_all, True), (mean_and_local, True), (scaled_by_hand, False)]
)
def test_programs_that_scale_themselves_are_left_alone(
    model: Callable[..., Any], is_scaled: bool
) -> None:
    def guide(y: Tensor) -> None:
        normal_guide(y)
        if model is mean_and_local:
            with pyro.plate("obs", len(y)):
                pyro.sample("z", dist.Normal(y, 1.0))

    scaling = scaling_of(model, guide, data()[:100])
    assert (scaling is not None) is is_scaled


def test_what_grows_outside_of_plates_is_refused_beside_shared_latents() -> None:
    program = inference.Program(without_plate, normal_guide)
    with pytest.raises(ValueError, match="batch_size: .* observe them in pyro.plate"):
        inference.fit(program, (data(),), batch_size=100, steps=1)


def test_validation_counts_a_shared_latent_once() -> None:
    """Batches of other sizes give the same validation ELBO, up to the one draw of each."""
    y = data()
    program = inference.Program(mean_of_all, normal_guide)
    run = inference.fit(
        program, (y,), batch_size=100, epochs=1, learning_rate=1e-9, validation=(y[:950],),
    )  # fmt: skip
    found = run.history[-1]["validation_elbo"]
    with torch.no_grad():
        total = -pyro.infer.Trace_ELBO(num_particles=4000, vectorize_particles=True).loss(
            program.model, program.guide, y[:950]
        )
    kl = float(kl_divergence(dist.Normal(0.0, 1.0), dist.Normal(0.0, 10.0)))
    per_point = (total + kl) / 950 - kl / NUM
    # one draw of the mean, N(0, 1): the log-likelihood of a point varies by 2 d + d²/2
    assert abs(found - per_point) < 5 * 3.0


def gaussian_process() -> Any:
    x = torch.linspace(0, 3, 8).double().unsqueeze(-1)
    kernel = gp.kernels.RBF(1, lengthscale=torch.tensor(1.0).double())
    process = gp.models.GPRegression(
        x, x.sin().squeeze(), kernel, noise=torch.tensor(0.1).double()
    ).double()
    kernel.lengthscale = PyroSample(dist.LogNormal(torch.tensor(0.0).double(), 1.0))
    kernel.autoguide("lengthscale", dist.Normal)
    return process


@pytest.mark.filterwarnings("ignore:training steps run eagerly")
def test_gaussian_processes_of_pyro_train_and_are_sampled() -> None:
    """Their parameters belong to the module whose methods the programs are."""
    process = gaussian_process()
    program = inference.Program(process.model, process.guide)
    before = {name: p.detach().clone() for name, p in process.named_parameters()}
    run = inference.fit(program, (), steps=20, learning_rate=0.05)
    assert run.step == 20
    changed = [
        n for n, p in process.named_parameters() if not torch.equal(p, before.get(n, p * 0))
    ]
    assert any("lengthscale" in name for name in changed)
    other = gaussian_process()
    model = inference.Program(other.model, other.guide).model
    draws = inference.hmc(model, num_chains=4, num_samples=20, num_warmup=20)
    assert draws.samples["kernel.lengthscale"].shape == (4, 20)


def grouped(y: Tensor, group: Tensor) -> None:
    with pyro.plate("groups", 10):
        b = pyro.sample("b", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(b[..., group], 1.0), obs=y)


def grouped_guide(y: Tensor, group: Tensor) -> None:
    with pyro.plate("groups", 10):
        pyro.sample("b", dist.Normal(pyro.param("loc", torch.zeros(10)), 1.0))


def entries(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
    with pyro.plate("obs", y.numel()):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y.reshape(-1))


def pairs(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
    with pyro.plate("a", len(y), dim=-2), pyro.plate("b", len(y), dim=-1):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y.unsqueeze(-1) - y)


def summed(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
    pyro.factor("likelihood", dist.Normal(mean, 1.0).log_prob(y).sum())
    with pyro.plate("obs", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def tempered(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
    with pyro.plate("obs", len(y)), poutine.scale(scale=0.9):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def plain_guide(y: Tensor) -> None:
    pyro.sample("mean", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0))


def counted(model: Any, guide: Any, *args: Tensor, num: int) -> Minibatch:
    program = inference.Program(model, guide)
    some = tuple(a[:num] for a in args)
    traces = prepare(program, Arguments(some))
    fewer = Arguments(tuple(a[: num // 2] for a in args))
    return read_minibatch(program, traces, num, (fewer, num // 2), len(args[0]))


def test_a_latent_plate_as_long_as_the_minibatch_is_none() -> None:
    y, group = torch.randn(1000), torch.arange(1000) % 10
    for num in (10, 20):
        found = counted(grouped, grouped_guide, y, group, num=num)
        assert found.total == 1000
        assert found.scaling is not None
        assert found.scaling.plates == {"data": 1.0}


def test_minibatches_are_counted_in_datapoints_and_not_in_entries() -> None:
    found = counted(entries, plain_guide, torch.randn(200, 5), num=20)
    assert found.scaling is not None
    with found.scaling:
        site = poutine.trace(entries).get_trace(torch.randn(20, 5)).nodes["y"]
    assert site["scale"] == 10.0


def test_a_constant_scale_is_not_taken_for_that_of_the_minibatch() -> None:
    found = counted(tempered, plain_guide, torch.randn(200), num=20)
    assert found.scaling is not None
    with found.scaling:
        site = poutine.trace(tempered).get_trace(torch.randn(20)).nodes["y"]
    assert site["scale"] == pytest.approx(9.0)


def test_bounds_of_programs_that_scale_themselves_are_counted_as_such() -> None:
    found = counted(scaled_by_hand, plain_guide, data(), num=100)
    assert found.scaling is None
    assert found.total == pytest.approx(NUM)


@pytest.mark.parametrize(
    ("model", "reason"), [(pairs, "two plates that grow"), (summed, "'likelihood'")]
)
def test_what_no_factor_can_scale_is_refused(model: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=f"batch_size: .*{reason}"):
        counted(model, plain_guide, torch.randn(200), num=20)


@pytest.mark.parametrize("family", [AutoNormal, AutoMultivariateNormal])
def test_guides_with_parameters_for_places_of_a_minibatch_are_refused(family: Any) -> None:
    program = inference.Program(mean_and_local, family(mean_and_local))
    with pytest.raises(ValueError, match="guide: takes minibatches of 100 datapoints only"):
        inference.fit(program, (data(),), batch_size=100, steps=1)


def subsampled(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
    with pyro.plate("obs", len(y), subsample_size=10) as chosen:
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y[chosen])


def subsampled_sum(y: Tensor) -> None:
    w = pyro.sample("mean", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("obs", len(y), subsample_size=10) as chosen:
        pyro.sample("y", dist.Normal(w.sum(), 1.0), obs=y[chosen])


def test_random_subsamples_are_not_taken_for_particles_that_do_not_broadcast() -> None:
    y, objective = torch.randn(100), inference.ELBO(num_particles=4)
    program = inference.Program(subsampled, AutoNormal(subsampled))
    assert inference.fit(program, (y,), steps=2, objective=objective).step == 2
    mixed = inference.Program(subsampled_sum, AutoNormal(subsampled_sum))
    with pytest.raises(ValueError, match="4 draws at once"):
        inference.fit(mixed, (y,), steps=2, objective=objective)
