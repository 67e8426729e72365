"""Full variational Bayes: the weights' terms count once, the datapoints' N / M times."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from pyro import poutine
from torch import Tensor

from aevb import data, inference, models
from aevb.inference import ELBO, IWAE

DIGITS = data.load("digits", binarize="dynamic")
X = (torch.rand(12, 3, 3, generator=torch.Generator().manual_seed(1)) > 0.5).float()


def bayesian(**kwargs: Any) -> models.VAE:
    torch.manual_seed(0)
    return models.VAE((3, 3), 2, [4], weights=models.LatentWeights(**kwargs))


def bayesian_dlgm(shape: tuple[int, ...] = (3, 3), **kwargs: Any) -> models.DLGM:
    torch.manual_seed(0)
    return models.DLGM(shape, [3, 2], [4], weights=models.LatentWeights(**kwargs))


def bayesian_hierarchy(shape: tuple[int, ...] = (3, 3), **kwargs: Any) -> models.HierarchicalVAE:
    torch.manual_seed(0)
    return models.HierarchicalVAE(
        shape, [3, 2], [[4], [3]], weights=models.LatentWeights(**kwargs)
    )


BAYESIAN: dict[str, Any] = {
    "VAE": bayesian,
    "DLGM": bayesian_dlgm,
    "HierarchicalVAE": bayesian_hierarchy,
}


def traces(program: Any, x: Tensor, seed: int = 0) -> tuple[poutine.Trace, poutine.Trace]:
    torch.manual_seed(seed)
    guide = poutine.trace(program.guide).get_trace(x)
    model = poutine.trace(poutine.replay(program.model, trace=guide)).get_trace(x)
    for trace in (guide, model):
        trace.compute_log_prob()
    return model, guide


@pytest.mark.parametrize("kind", list(BAYESIAN))
def test_minibatches_stand_for_all_datapoints(kind: str) -> None:
    program = BAYESIAN[kind](initial_scale=0.5)
    program.tell_num_datapoints(60)
    model, guide = traces(program, X)
    latents = {name for name in guide.nodes if name in ("z", "z1", "z2")}
    assert latents
    for trace, local in ((model, {*latents, "x"}), (guide, latents)):
        for name, site in trace.nodes.items():
            if site["type"] == "sample" and name != "data":
                assert site["scale"] == (5.0 if name in local else 1.0)
    weights = {name for name in guide.nodes if name.startswith("decoder.")}
    assert weights == {f"decoder.{name}" for name, _ in program.weights.decoder.named_parameters()}
    expected = sum(model.nodes[n]["log_prob"] - guide.nodes[n]["log_prob"] for n in weights)
    local = model.nodes["x"]["unscaled_log_prob"]
    for name in latents:
        local = local + model.nodes[name]["unscaled_log_prob"]
        local = local - guide.nodes[name]["unscaled_log_prob"]
    expected = expected + 5 * local.sum()
    estimator = ELBO().estimator()
    estimator.max_plate_nesting = 1
    torch.manual_seed(0)
    with torch.no_grad():
        bound = -estimator.differentiable_loss(program.model, program.guide, X)
    assert float(bound) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_the_prior_of_the_weights_is_theirs() -> None:
    program = bayesian(prior_scale=2.0)
    model, _ = traces(program, X)
    for name, site in model.nodes.items():
        if name.startswith("decoder."):
            assert bool((site["fn"].base_dist.scale == 2).all())


def test_sum_over_a_minibatch_alone_would_be_found() -> None:
    program = bayesian_dlgm()
    model, _ = traces(program, X)
    assert model.nodes["x"]["scale"] == 1.0


def test_what_a_minibatch_stands_for_is_forgotten_after_training() -> None:
    program = bayesian()
    inference.fit(program, X, steps=1, batch_size=6, device="cpu", progress=False)
    assert program.stands_for is None
    with pytest.raises(ValueError, match="one draw of its weights"):
        inference.fit(program, X, objective=ELBO(3), steps=1, batch_size=6, device="cpu")
    assert program.stands_for is None


def dense() -> models.VAE:
    torch.manual_seed(0)
    return models.VAE((8, 8), 2, [6], weights=models.LatentWeights())


@pytest.mark.parametrize(
    ("make", "objective"),
    [
        (dense, ELBO()),
        (dense, ELBO(analytic_kl=True)),
        (partial(bayesian_dlgm, (8, 8)), ELBO()),
        (partial(bayesian_hierarchy, (8, 8)), ELBO()),
    ],
)
def test_eager_and_traced_train_the_same_posterior(
    make: Callable[[], Any], objective: inference.Objective
) -> None:
    runs = []
    for level in ("eager", "traced"):
        program = make()
        start = {name: p.detach().clone() for name, p in program.named_parameters()}
        run = inference.fit(
            program, DIGITS.train, objective=objective, steps=10, batch_size=100, compile=level,
            device="cpu", progress=False,
        )  # fmt: skip
        assert run.level == level
        moved = {n for n, p in program.named_parameters() if not torch.equal(p, start[n])}
        assert moved == {n for n, p in program.named_parameters() if p.requires_grad}
        assert any("log_scale" in name for name in moved)
        runs.append(list(program.parameters()))
    for first, second in zip(*runs, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", list(BAYESIAN))
def test_mean_weights_make_a_model_that_can_be_evaluated(kind: str) -> None:
    program = BAYESIAN[kind]()
    inference.fit(program, X, steps=3, batch_size=6, device="cpu", progress=False)
    plain = program.at_mean_weights()
    evidence = inference.importance_evidence(plain.model, plain.guide, X, num_samples=50)
    assert bool(torch.isfinite(evidence.log_evidence).all())
    assert program.weights is not None
    assert plain.weights is None
    inputs: dict[str, tuple[Any, ...]] = {
        "VAE": (torch.randn(5, 2),),
        "DLGM": (torch.randn(5, 2), torch.randn(5, 3)),
        "HierarchicalVAE": (torch.randn(5, 2), 1),
    }
    means = {n.replace("/", "."): p for n, p in program.weights.loc.items()}
    expected = program.weights.at(means, *inputs[kind]).mean
    torch.testing.assert_close(plain.decoder(*inputs[kind]).mean, expected)
    assert models.VAE((3, 3)).at_mean_weights().weights is None


def test_spread_of_the_weights_grows_to_the_prior_without_data() -> None:
    program = bayesian(prior_scale=0.3, initial_scale=0.1)
    program.tell_num_datapoints(1)
    estimator = ELBO(analytic_kl=True).estimator()
    estimator.max_plate_nesting = 1
    optimizer = torch.optim.Adam([p for p in program.parameters() if p.requires_grad], lr=0.02)
    with poutine.block():
        for _ in range(600):
            loss = estimator.differentiable_loss(program.model, program.guide, X[:1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert program.weights is not None
    scales = torch.cat([p.detach().exp().flatten() for p in program.weights.log_scale.values()])
    assert float(scales.median()) == pytest.approx(0.3, rel=0.1)


def test_several_draws_of_the_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="one draw of its weights at a time"):
        inference.fit(bayesian(), X, objective=ELBO(3), steps=1, device="cpu", progress=False)
    with pytest.raises(ValueError, match="are scaled"):
        inference.fit(
            bayesian(), X, objective=IWAE(3), steps=1, batch_size=6, device="cpu", progress=False
        )
    looped = ELBO(3, vectorize_particles=False)
    run = inference.fit(bayesian(), X, objective=looped, steps=2, device="cpu", progress=False)
    assert math.isfinite(run.history[-1]["train_objective"])


@pytest.mark.parametrize("name", ["prior_scale", "initial_scale"])
def test_scales_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: must be positive"):
        models.LatentWeights(**{name: 0.0})
