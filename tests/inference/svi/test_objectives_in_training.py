"""Objectives as training uses them: every level, resumption, and what is refused."""

import math
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

from aevb import data, inference, models
from aevb.inference import (
    ELBO,
    IWAE,
    BetaELBO,
    DReG,
    EnumeratedELBO,
    FreeBits,
    Objective,
    StickingTheLanding,
    WakeSleep,
)

from objective_programs import X, estimator, vae

DIGITS = data.load("digits", binarize="dynamic")


OBJECTIVES: list[Objective] = [
    ELBO(),
    ELBO(3),
    ELBO(analytic_kl=True),
    EnumeratedELBO(),
    IWAE(4),
    StickingTheLanding(2),
    DReG(4),
    BetaELBO(2.0, warmup_steps=7),
    FreeBits(0.1),
    WakeSleep(),
]


def trained(objective: Objective, level: str, **kwargs: Any) -> inference.Run:
    torch.manual_seed(1)
    program = models.VAE((8, 8), latent_dim=3, hidden=[16])
    return inference.fit(
        program, DIGITS.train, objective=objective, compile=level, seed=3, device="cpu",
        **{"steps": 12, "batch_size": 50, "progress": False, **kwargs},
    )  # fmt: skip


def test_every_exported_objective_is_listed() -> None:
    exported = {
        getattr(inference, name)
        for name in inference.__all__
        if isinstance(getattr(inference, name), type)
        and issubclass(getattr(inference, name), Objective)
        and name != "Objective"
    }
    assert exported == {type(objective) for objective in OBJECTIVES}


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_traced_steps_are_the_eager_ones(objective: Objective) -> None:
    eager, traced = (trained(objective, level) for level in ("eager", "traced"))
    assert traced.level == "traced"
    for first, second in zip(eager.program.parameters(), traced.program.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("level", ["eager", "traced"])
def test_warm_up_goes_on_after_a_resume(level: str, tmp_path: Any) -> None:
    objective = BetaELBO(warmup_steps=9)
    trained(objective, level, steps=5, out=tmp_path)
    resumed = trained(objective, level, steps=12, out=tmp_path, resume=True)
    whole = trained(objective, level)
    for first, second in zip(
        resumed.program.parameters(), whole.program.parameters(), strict=True
    ):
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("objective", "posterior", "message"),
    [
        (ELBO(analytic_kl=True), models.InverseAutoregressiveFlow(), "no closed form: use ELBO"),
        (BetaELBO(analytic_kl=True), models.PlanarFlow(), "no closed form: use ELBO"),
        (StickingTheLanding(), models.PlanarFlow(), "only its own draws.*use ELBO"),
        (DReG(), models.Delta(), "point mass.*use ELBO"),
        (IWAE(), models.Delta(), "point mass.*use ELBO"),
    ],
)
def test_incompatible_swaps_are_refused_before_any_step(
    objective: Objective, posterior: models.Posterior, message: str
) -> None:
    program = vae(posterior=posterior)
    with pytest.raises(ValueError, match=message):
        inference.fit(program, X, objective=objective, steps=1, device="cpu", progress=False)


def test_draws_without_gradients_are_refused() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        p = pyro.param("p", torch.tensor(0.3), constraint=dist.constraints.unit_interval)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Bernoulli(p))

    program = inference.Program(model, guide)
    with pytest.raises(ValueError, match="Bernoulli at site 'z' cannot be reparameterized"):
        inference.fit(program, torch.zeros(4), objective=IWAE(), steps=1, progress=False)


def test_weights_of_a_subsample_are_refused() -> None:
    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 40, subsample=torch.arange(len(x))):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    program = inference.Program(model, AutoNormal(model))
    with pytest.raises(ValueError, match=r"\['x'\] are scaled.*use ELBO"):
        inference.fit(
            program, torch.randn(40), objective=IWAE(), steps=1, batch_size=8, progress=False
        )


def test_joint_posteriors_are_weighed_as_one() -> None:
    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("mean", dist.Normal(0.2, 0.7))

    x = torch.linspace(-1, 2, 5)
    torch.manual_seed(4)
    bound = -float(estimator(IWAE(9)).differentiable_loss(model, guide, x))
    torch.manual_seed(4)
    with pyro.plate("particles", 9, dim=-2):
        trace = poutine.trace(guide).get_trace(x)
    z = trace.nodes["mean"]["value"].squeeze(-1)
    log_w = (
        dist.Normal(0.0, 1.0).log_prob(z)
        + dist.Normal(z.unsqueeze(-1), 1.0).log_prob(x).sum(-1)
        - dist.Normal(0.2, 0.7).log_prob(z)
    )
    assert bound == pytest.approx(float(torch.logsumexp(log_w, 0)) - math.log(9), rel=1e-5)


@pytest.mark.parametrize("make", [lambda: IWAE(0), lambda: BetaELBO(-1.0), lambda: FreeBits(0.0)])
def test_impossible_settings_are_refused(make: Callable[[], Objective]) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()
