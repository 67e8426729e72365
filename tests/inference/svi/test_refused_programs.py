"""Programs that `fit` refuses because it would train another."""

from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import SVI, TraceGraph_ELBO, config_enumerate
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch import Tensor

from aevb import inference
from aevb.inference.process import randomness

from normal_means import NUM, data, mean_and_local, mean_of_all, normal_guide


def mixture(x: Tensor) -> None:
    weights = pyro.sample("weights", dist.Dirichlet(x.new_ones(2)))
    with pyro.plate("components", 2):
        means = pyro.sample("means", dist.Normal(x.new_zeros(()), 5.0))
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(means[a], 1.0), obs=x)


def clusters() -> Tensor:
    return torch.cat([torch.randn(30) - 3, torch.randn(30) + 3])


def test_discrete_latents_that_nobody_draws_are_refused() -> None:
    model = config_enumerate(mixture)
    program = inference.Program(model, AutoNormal(poutine.block(model, hide=["a"])))
    with pytest.raises(ValueError, match="discrete latent 'a' .*EnumeratedELBO"):
        inference.fit(program, (clusters(),), steps=5)


def test_the_remedy_of_that_refusal_finds_the_clusters() -> None:
    torch.manual_seed(1)
    model = config_enumerate(mixture)
    guide = AutoDelta(
        poutine.block(model, hide=["a"]),
        init_loc_fn=pyro.infer.autoguide.init_to_value(
            values={"means": torch.tensor([-1.0, 1.0]), "weights": torch.full((2,), 0.5)}
        ),
    )
    x = clusters()
    program = inference.Program(model, guide)
    inference.fit(
        program, (x,), steps=300, learning_rate=0.1,
        objective=inference.EnumeratedELBO(),
    )  # fmt: skip
    found = poutine.trace(program.guide).get_trace(x).nodes["means"]["value"].detach()
    assert bool((found - torch.tensor([-3.0, 3.0])).abs().max() < 5 / 30**0.5)


def test_a_continuous_latent_that_nobody_draws_is_refused() -> None:
    def guide(y: Tensor) -> None:
        normal_guide(y)

    with pytest.raises(ValueError, match="has no site for the model's latent 'z'"):
        inference.fit(inference.Program(mean_and_local, guide), (data(),), steps=1)


def test_a_latent_that_only_the_guide_has_is_refused() -> None:
    def guide(y: Tensor) -> None:
        normal_guide(y)
        pyro.sample("other", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="draws 'other', which the model lacks"):
        inference.fit(inference.Program(mean_of_all, guide), (data(),), steps=1)


def subsample_given(y: Tensor, index: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(y.new_zeros(()), 10.0))
    with pyro.plate("obs", NUM, subsample=index) as chosen:
        z = pyro.sample("z", dist.Normal(mean, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y[chosen])


def test_an_autoguide_with_a_subsample_of_its_own_is_refused() -> None:
    arguments = data(), torch.arange(10)
    program = inference.Program(subsample_given, AutoNormal(subsample_given))
    with pytest.raises(ValueError, match="subsample of its own for .*obs.*create_plates"):
        inference.fit(program, arguments, steps=1)

    def plates(y: Tensor, index: Tensor) -> Any:
        return pyro.plate("obs", NUM, subsample=index)

    program = inference.Program(subsample_given, AutoNormal(subsample_given, create_plates=plates))
    assert inference.fit(program, arguments, steps=2).step == 2


def reducing(y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(y.new_zeros(2), 1.0).to_event(1))
    pyro.sample("y", dist.Normal(w.sum(), 0.5), obs=y)


@pytest.mark.parametrize("objective", [inference.ELBO(num_particles=4), inference.IWAE(4)])
def test_particles_of_programs_that_do_not_broadcast_are_refused(
    objective: inference.Objective,
) -> None:
    """They would be summed over particles: another bound, without an error."""
    y = torch.tensor(4.0)
    with pytest.raises(ValueError, match="4 draws at once .* vectorize_particles=False"):
        inference.fit(
            inference.Program(reducing, AutoNormal(reducing)), (y,), steps=1, objective=objective
        )
    one_by_one = inference.ELBO(num_particles=4, vectorize_particles=False)
    run = inference.fit(
        inference.Program(reducing, AutoNormal(reducing)), (y,), steps=2, objective=one_by_one
    )
    assert run.step == 2


def test_units_say_whether_the_bound_is_of_a_datapoint() -> None:
    y = data()
    for model, batch_size, unit in (
        (mean_of_all, None, "nats"),
        (mean_of_all, 100, "nats per datapoint"),
    ):
        run = inference.fit(
            inference.Program(model, normal_guide), (y,), steps=1, batch_size=batch_size
        )
        assert run.unit == unit


def test_a_point_guide_has_no_elbo() -> None:
    y = data()
    run = inference.fit(
        inference.Program(mean_of_all, AutoDelta(mean_of_all)), (y,), epochs=1, batch_size=100,
        validation=(y,),
    )  # fmt: skip
    assert run.history[-1]["validation_elbo"] is None
    assert run.history[-1]["validation_log_joint"] < 0


def coins(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        a = pyro.sample("a", dist.Bernoulli(x.new_tensor(0.3)))
        pyro.sample("x", dist.Normal(6 * a - 3, 1.0), obs=x)


def coins_guide(x: Tensor) -> None:
    probability = pyro.param(
        "probability", lambda: 0.5 * torch.ones_like(x),
        constraint=dist.constraints.unit_interval,
    )  # fmt: skip
    with pyro.plate("data", len(x)):
        pyro.sample("a", dist.Bernoulli(probability))


@pytest.mark.filterwarnings("ignore:training steps run eagerly")
def test_pyros_own_losses_train_as_in_svi() -> None:
    """TraceGraph_ELBO has gradients by a surrogate; the first steps are those of SVI."""
    x = clusters()
    program = inference.Program(coins, coins_guide)
    inference.fit(
        program, (x,), steps=5, learning_rate=0.05, seed=3, objective=TraceGraph_ELBO(),
        optimizer=torch.optim.SGD,
    )  # fmt: skip
    ours = program.param_sites["site/probability"].detach().clone()

    pyro.clear_param_store()
    optimizer = pyro.optim.SGD({"lr": 0.05 / len(x)})
    with randomness.stream(3, "fit", torch.device("cpu")):
        poutine.trace(coins_guide).get_trace(x)  # as `fit` runs the guide once to see its sites
        svi = SVI(coins, coins_guide, optimizer, TraceGraph_ELBO())
        for _ in range(5):
            svi.step(x)
    theirs = pyro.get_param_store()._params["probability"].detach().clone()
    pyro.clear_param_store()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_what_is_no_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="objective: expected one of"):
        inference.fit(
            inference.Program(mean_of_all, normal_guide), (data(),), steps=1,
            objective=pyro.infer.ReweightedWakeSleep(),
        )  # fmt: skip


def test_keyword_arguments_are_cut_into_minibatches() -> None:
    program = inference.Program(mean_of_all, normal_guide)
    by_name = inference.fit(program, {"y": data()}, batch_size=100, steps=3, seed=1)
    other = inference.Program(mean_of_all, normal_guide)
    by_place = inference.fit(other, (data(),), batch_size=100, steps=3, seed=1)
    assert by_name.history[-1]["train_objective"] == by_place.history[-1]["train_objective"]
