"""Posterior predictive checks against closed forms, and on data that are not the model's."""

from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from aevb import models
from aevb.evaluation import predictive_check
from aevb.inference import simulate as simulation

from oracles import FALSE_ALARM_RATE, STANDARD_ERRORS, linear_gaussian, simulate

FIRST = {"first": lambda x: x[..., 0]}


@pytest.fixture(scope="module", name="oracle")
def fixture_oracle() -> tuple[models.FactorAnalysis, Tensor]:
    fa = linear_gaussian()
    return fa, simulate(fa, 50)


def exact_predictive(fa: models.FactorAnalysis, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and scale of the first feature of replicated data."""
    with torch.no_grad():
        exact, row = fa.posterior(x), fa.decoder.weight[0]
        noise = fa.noise(torch.zeros(3))[0].square()
        return fa.decoder(exact.loc)[:, 0], (row @ exact.covariance_matrix @ row + noise).sqrt()


def errors(check: Any, exact: Tensor) -> Tensor:
    """Of the p-values, in standard errors of the exact ones."""
    return (check.p_values["first"] - exact) / (exact * (1 - exact) / check.num_draws).sqrt()


def test_p_values_are_those_of_the_exact_predictive(oracle: Any) -> None:
    fa, x = oracle
    check = predictive_check(fa.model, fa.guide, x, statistics=FIRST, num_draws=4000)
    loc, scale = exact_predictive(fa, x)
    normal = dist.Normal(loc, scale)
    assert float(errors(check, 1 - normal.cdf(x[:, 0])).abs().max()) < STANDARD_ERRORS
    # the mean over datapoints is normal with the mean of their variances over their number
    of_mean = dist.Normal(loc.mean(), scale.square().sum().sqrt() / len(x))
    exact = float(1 - of_mean.cdf(x[:, 0].mean()))
    error = (exact * (1 - exact) / 4000) ** 0.5
    assert abs(check.overall["first"] - exact) < STANDARD_ERRORS * error
    torch.testing.assert_close(check.observed["first"], x[:, 0])
    z = (check.replicated["first"] - loc) / (scale / 4000**0.5)
    assert float(z.abs().max()) < STANDARD_ERRORS


def test_without_the_noise_of_the_posterior_they_are_not(oracle: Any) -> None:
    """The twin: a plug-in check at the posterior mean."""
    fa, x = oracle

    def point(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(fa.posterior(x).loc, 1e-6).to_event(1))

    check = predictive_check(fa.model, point, x, statistics=FIRST, num_draws=4000)
    loc, scale = exact_predictive(fa, x)
    exact = 1 - dist.Normal(loc, scale).cdf(x[:, 0])
    assert float(errors(check, exact).abs().max()) > 2 * STANDARD_ERRORS


def test_log_likelihood_is_a_chi_square_discrepancy(oracle: Any) -> None:
    """Of x at latents z: |(x - Wz - m)/σ|² of replicated data is χ² with 6 degrees of freedom."""
    fa, x = oracle
    check = predictive_check(fa.model, fa.guide, x, num_draws=4000)
    with torch.no_grad():
        z = fa.posterior(x).sample((4000,))
        scale = fa.noise(torch.zeros(3))
        squares = ((x - fa.decoder(z)) / scale).square().sum(-1)
        # log p is above where the square is below
        exact = dist.Chi2(torch.tensor(6.0).double())
        p = torch.special.gammainc(exact.concentration, squares / 2)
    error = (check.standard_error["log_likelihood"].square() + p.var(0) / 4000).sqrt()
    z_score = (check.p_values["log_likelihood"] - p.mean(0)) / error
    assert float(z_score.abs().max()) < STANDARD_ERRORS


def test_the_models_own_data_pass_and_others_do_not(oracle: Any) -> None:
    fa, x = oracle
    with torch.no_grad():
        noise = fa.noise(torch.zeros(3)) * torch.randn(x.shape, dtype=x.dtype)
    own = predictive_check(fa.model, fa.guide, x)
    other = predictive_check(fa.model, fa.guide, x + 4 * noise)
    assert 0.01 < own.overall["log_likelihood"] < 0.99
    assert own.extreme()["log_likelihood"] <= 2
    assert other.overall["log_likelihood"] == 1  # replicated data are always likelier
    assert other.extreme()["log_likelihood"] > 25
    assert "50 datapoints" in repr(own)


def test_ties_of_discrete_data_are_halves() -> None:
    """An image that the model always makes is no evidence against it."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Bernoulli(torch.ones(4)).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    check = predictive_check(model, guide, torch.ones(3, 4), num_draws=10)
    for p in check.p_values.values():
        assert p.tolist() == [0.5, 0.5, 0.5]


def test_images_and_several_layers_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    dlgm = models.DLGM((4, 4), latent_dims=[3, 2], hidden=[8]).eval()
    x = torch.rand(5, 4, 4).round()
    whole = predictive_check(dlgm.model, dlgm.guide, x, num_draws=400)
    assert set(whole.overall) == {"mean", "standard_deviation", "log_likelihood"}
    monkeypatch.setattr("aevb.evaluation.predictive.checks.BYTES_AT_ONCE", 100_000)
    parts = predictive_check(dlgm.model, dlgm.guide, x, num_draws=400)
    for name, p in whole.p_values.items():
        error = (whole.standard_error[name].square() + parts.standard_error[name].square()).sqrt()
        assert bool(((p - parts.p_values[name]).abs() <= STANDARD_ERRORS * error).all())


def test_one_joint_posterior_and_more_arguments() -> None:
    def model(y: Tensor, t: Tensor) -> None:
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(slope * t, 0.1), obs=y)

    def guide(y: Tensor, t: Tensor) -> None:
        precision = 1 + t.square().sum() / 0.01
        loc = (t * y).sum() / 0.01 / precision
        pyro.sample("slope", dist.Normal(loc, precision**-0.5))

    t = torch.linspace(-1, 1, 20)
    wrong = predictive_check(model, guide, t.square(), t)
    right = predictive_check(model, guide, 2 * t + 0.1 * torch.randn(20), t)
    assert wrong.overall["log_likelihood"] > 0.99
    assert 0.005 < right.overall["log_likelihood"] < 0.995


def test_same_seed_same_p_values(oracle: Any) -> None:
    fa, x = oracle
    before = torch.get_rng_state()
    first, again, other = (
        predictive_check(fa.model, fa.guide, x, num_draws=50, seed=seed).p_values["mean"]
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_draws": 0}, "num_draws: must be at least 1"),
        ({"statistics": {}, "discrepancies": {}}, "nothing to compare"),
        ({"statistics": {"log_likelihood": FIRST["first"]}}, "are names of statistics as well"),
        ({"statistics": {"all": lambda x: x}}, "'all' must return one value for each draw"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    settings: dict[str, Any], message: str, oracle: Any
) -> None:
    fa, x = oracle
    with pytest.raises(ValueError, match=message):
        predictive_check(fa.model, fa.guide, x, **{"num_draws": 5, **settings})


@pytest.mark.parametrize("num_draws", [20, 400])
def test_extreme_datapoints_of_a_right_model_are_within_the_bound(num_draws: int) -> None:
    fa = linear_gaussian()
    x = simulate(fa, 2000, seed=1)
    check = predictive_check(fa.model, fa.guide, x, num_draws=num_draws)
    bound = check.bound_on_extreme()
    most = bound + STANDARD_ERRORS * (bound * (1 - bound) / len(x)) ** 0.5
    assert max(check.extreme().values()) / len(x) < most
    assert min(check.surprise().values()) > FALSE_ALARM_RATE


def test_data_unlike_the_model_are_extreme_more_often() -> None:
    fa = linear_gaussian()
    check = predictive_check(fa.model, fa.guide, 3 * simulate(fa, 200), num_draws=400)
    assert check.surprise()["log_likelihood"] < FALSE_ALARM_RATE
    rows = check.summary()["statistics"]
    assert rows["log_likelihood"]["num_extreme"] == check.extreme()["log_likelihood"]
    assert rows["log_likelihood"]["observed"] < rows["log_likelihood"]["replicated"]


def test_a_mean_unlike_the_replications_is_surprising_where_no_datapoint_is() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 400)
    right = predictive_check(fa.model, fa.guide, x, num_draws=1000)
    # too little to be seen in one datapoint, but not in 400
    check = predictive_check(fa.model, fa.guide, x + 0.3, num_draws=1000)
    assert min(right.surprise().values()) > 0.05
    assert check.extreme()["mean"] <= 2 * check.bound_on_extreme() * len(x)
    # no replication is so low: its chance is 4 / 1001, over 3 statistics and both ways
    assert check.overall["mean"] < 0.001
    assert check.surprise()["mean"] == pytest.approx(6 * 4 / 1001)


def test_data_at_several_sites_are_told_by_the_first_argument() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    def guide(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x + y) / 3, 3**-0.5))

    x, y = torch.zeros(4), torch.full((4,), 2.0)
    statistics = {"value": lambda x: x}
    check = predictive_check(model, guide, x, y, statistics=statistics, discrepancies={})
    assert check.observed["value"].tolist() == [0.0] * 4
    with pytest.raises(ValueError, match="observed at one site"):
        predictive_check(lambda x, y: model(x + 1, y + 1), lambda x, y: guide(x + 1, y + 1), x, y)


def test_replications_leave_deterministic_sites_as_they_are() -> None:
    """Pyro would draw such a site once for each entry of its plate."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            shown = pyro.deterministic("shown", 2 * z)
            pyro.sample("x", dist.Normal(shown, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(2 * x / 5, 5**-0.5))

    x = torch.tensor([0.5, -1.0, 2.0])
    statistics = {"value": lambda x: x}
    check = predictive_check(model, guide, x, statistics=statistics, discrepancies={})
    # replications of x given x: N(4x/5, 1 + 4/5)
    exact = 1 - dist.Normal(4 * x / 5, 1.8**0.5).cdf(x)
    error = (exact * (1 - exact) / check.num_draws).sqrt()
    assert bool(((check.p_values["value"] - exact).abs() < STANDARD_ERRORS * error).all())
    assert simulation(model, x).data["x"].shape == (3,)
