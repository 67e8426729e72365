"""Draws as ArviZ has them: as its data, and as its tables."""

import warnings

import numpy as np
import pytest
import torch

from aevb import evaluation, inference, models

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz as az


@pytest.fixture(scope="module", name="draws")
def fixture_draws() -> inference.Draws:
    fa, x = models.FactorAnalysis((5,), 2), torch.randn(3, 5)
    return inference.hmc(fa.model, x, num_chains=4, num_samples=200, num_warmup=100, seed=1)


def test_a_summary_agrees_with_arviz(draws: inference.Draws) -> None:
    own = draws.summary()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = az.summary(draws.to_arviz(), round_to="none")
    assert own.index.to_list() == theirs.index.to_list()
    for name in ("mean", "sd", "mcse_mean", "ess_bulk", "ess_tail", "r_hat"):
        np.testing.assert_allclose(own[name], theirs[name].astype(float), rtol=2e-3, err_msg=name)
    flat = draws.samples["z"].flatten(0, 1).double().numpy()
    np.testing.assert_allclose(own.loc["z[2, 1]", "q95"], np.quantile(flat[:, 2, 1], 0.95))


def test_rows_are_named_after_datapoints(draws: inference.Draws) -> None:
    assert draws.summary(index=["a", "b", "c"]).index[-1] == "z[c, 1]"
    with pytest.raises(ValueError, match="expected one for each of 3 datapoints; got 2"):
        draws.summary(index=["a", "b"])


def test_a_joint_posterior_has_rows_without_datapoints() -> None:
    draws = inference.hmc(
        log_density=lambda u: -0.5 * u.square().sum(-1), start=torch.zeros(4, 3), num_samples=50
    )
    assert draws.summary().index.to_list() == ["u[0]", "u[1]", "u[2]"]
    with pytest.raises(ValueError, match="share one joint posterior"):
        draws.summary(index=[1])


def test_the_method_is_the_function(draws: inference.Draws) -> None:
    evidence = torch.zeros(3)
    first = draws.to_arviz(log_evidence=evidence)
    second = evaluation.to_arviz(draws, log_evidence=evidence)
    assert (
        first["posterior"].to_dataset().equals(second["posterior"].to_dataset())
        if hasattr(first["posterior"], "to_dataset")
        else first["posterior"].equals(second["posterior"])
    )
