"""The estimator keeps scikit-learn's contracts, and its scores are log-densities."""

import math
import pickle
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from aevb import inference
from aevb.sklearn import VAE

QUICK: dict[str, Any] = {"hidden": (8,), "epochs": 3}
# One of each kind; the others take a minute.
BRIEF = {
    "check_estimators_nan_inf",
    "check_fit_idempotent",
    "check_methods_subset_invariance",
    "check_no_attributes_set_in_init",
    "check_transformer_general",
    "check_n_features_in_after_fitting",
}


def rows(num: int = 200, seed: int = 0) -> NDArray[np.float64]:
    """Three columns around a line, in other units."""
    random = np.random.default_rng(seed)
    z = random.normal(size=(num, 1))
    noise = random.normal(size=(num, 3))
    return 100.0 + 10.0 * (z * [1.0, -1.0, 0.5] + 0.3 * noise)


def run_checks(only: set[str] | None) -> int:
    count = 0
    for estimator, check in estimator_checks_generator(VAE(**QUICK)):
        name = getattr(check, "func", check).__name__
        if (only is None or name in only) and name != "check_array_api_input":
            check(estimator)
            count += 1
    return count


def test_some_of_the_contracts_are_kept() -> None:
    assert run_checks(BRIEF) >= len(BRIEF)


@pytest.mark.slow
def test_all_contracts_are_kept() -> None:
    assert run_checks(None) >= 40


@pytest.fixture(scope="module", name="vae")
def fixture_vae() -> VAE:
    return VAE(latent_dim=1, hidden=(20,), epochs=100, random_state=0).fit(rows())


def test_scores_are_log_densities_in_the_units_of_the_data(vae: VAE) -> None:
    """Below the entropy bound of the true normal, and above what knows no correlation."""
    test = rows(400, seed=1)
    loading = np.array([[10.0, -10.0, 5.0]])
    covariance = loading.T @ loading + 9.0 * np.eye(3)
    away = test - 100.0
    inverse = np.linalg.inv(covariance)
    squares = np.einsum("ni,ij,nj->n", away, inverse, away)
    true = -0.5 * (squares + np.linalg.slogdet(2 * math.pi * covariance)[1])
    variance = covariance.diagonal()
    apart = -0.5 * (away**2 / variance + np.log(2 * math.pi * variance)).sum(1)
    difference = vae.score_samples(test) - true
    error = difference.std() / math.sqrt(len(test))
    assert difference.mean() < 5 * error
    assert vae.score(test) > apart.mean()
    assert vae.score(test) == vae.score_samples(test).mean()


def test_scores_are_those_of_importance_evidence(vae: VAE) -> None:
    x = vae._rows(rows(20, seed=2))
    evidence = inference.importance_evidence(vae.model_.model, vae.model_.guide, x)
    jacobian = np.log(vae.scale_).sum()
    own = vae.set_params(num_samples=1000).score_samples(rows(20, seed=2)) + jacobian
    error = 5 * math.sqrt(2) * evidence.standard_error.numpy()
    assert (np.abs(own - evidence.log_evidence.numpy()) < error).all()
    forgotten = own - jacobian
    assert not (np.abs(forgotten - evidence.log_evidence.numpy()) < error).all()


def test_samples_resemble_the_data(vae: VAE) -> None:
    drawn, data = vae.sample(4000, random_state=0), rows(4000, seed=3)
    assert np.array_equal(drawn, vae.sample(4000, random_state=0))
    assert not np.array_equal(drawn, vae.sample(4000, random_state=1))
    assert np.abs(drawn.mean(0) - data.mean(0)).max() < 3.0  # a third of a standard deviation
    assert np.corrcoef(drawn.T)[0, 1] < -0.7


def test_there_and_back_comes_near(vae: VAE) -> None:
    x = rows(100, seed=4)
    back = vae.inverse_transform(vae.transform(x))
    assert ((back - x) ** 2).mean() < 0.3 * x.var(0).mean()
    with pytest.raises(ValueError, match=r"Z: expected shape \(N, 1\); got \(5, 3\)"):
        vae.inverse_transform(np.zeros((5, 3)))


def test_seeds(vae: VAE) -> None:
    same = [VAE(random_state=7, **QUICK).fit(rows()).transform(rows(5)) for _ in range(2)]
    assert np.array_equal(*same)
    fresh = [VAE(**QUICK).fit(rows()) for _ in range(2)]
    assert fresh[0].seed_ != fresh[1].seed_
    again = VAE(random_state=7, **QUICK).fit(rows())
    assert vae.seed_ != again.seed_


def test_counts_and_bits_have_their_likelihoods() -> None:
    counts = np.random.default_rng(0).poisson(3.0, size=(60, 4))
    for likelihood in ("poisson", "negative_binomial"):
        vae = VAE(likelihood=likelihood, random_state=0, **QUICK).fit(counts)
        assert (vae.score_samples(counts) < 0).all()  # probabilities
        assert (vae.sample(20) >= 0).all()
        assert (vae.scale_ == 1).all()
    VAE(likelihood="bernoulli", **QUICK).fit(counts > 3)
    with pytest.raises(ValueError, match="Bernoulli needs values in"):
        VAE(likelihood="bernoulli", **QUICK).fit(counts)
    with pytest.raises(ValueError, match="likelihood: expected 'normal'"):
        VAE(likelihood="gaussian", **QUICK).fit(counts)


def test_it_goes_into_pipelines_searches_and_pickles(vae: VAE) -> None:
    pipeline = make_pipeline(StandardScaler(), VAE(random_state=0, **QUICK)).fit(rows())
    assert pipeline.transform(rows(5)).shape == (5, 2)
    assert list(pipeline[-1].get_feature_names_out()) == ["vae0", "vae1"]
    search = GridSearchCV(VAE(random_state=0, **QUICK), {"latent_dim": [1, 2]}, cv=2).fit(rows())
    assert search.best_params_["latent_dim"] in (1, 2)
    again = pickle.loads(pickle.dumps(vae))
    assert np.array_equal(again.score_samples(rows(5)), vae.score_samples(rows(5)))
