"""Draws in ArviZ's form: names, functions of ArviZ's that run on it, files, both lines."""

import importlib
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyro
import pytest
import torch
import xarray as xr
from pyro import distributions as dist
from torch import Tensor

from aevb.evaluation import ess_bulk, ess_tail, guide_to_arviz, rhat, to_arviz
from aevb.inference import Draws, hmc, importance_evidence
from aevb.models import FactorAnalysis

from oracles import FALSE_ALARM_RATE, linear_gaussian, simulate

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import arviz as az

adapter = importlib.import_module("aevb.inference.process.arviz")
INSTALLED = int(az.__version__.split(".")[0])
STATS = {
    "lp", "acceptance_rate", "step_size", "diverging", "energy", "energy_error", "n_steps",
    "diverging_of_datapoint", "energy_of_datapoint",
}  # fmt: skip


def two_sites(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        shift = pyro.sample("net/shift", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(rate + shift.sum(-1), 0.3), obs=x)


def joint(y: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    with pyro.plate("groups", 3):
        theta = pyro.sample("theta", dist.Normal(mu, 1.0))
        pyro.sample("y", dist.Normal(theta, 1.0), obs=y)


@cache
def oracle() -> tuple[FactorAnalysis, Tensor, Draws]:
    fa = linear_gaussian()
    x = simulate(fa, 4)
    return fa, x, hmc(fa.model, x, num_chains=4, num_samples=100, num_warmup=200)


@cache
def tree() -> Any:
    fa, x, draws = oracle()
    evidence = importance_evidence(fa.model, fa.guide, x, num_samples=50)
    predictive = {"x": torch.randn(4, 100, 4, 6)}
    return to_arviz(
        draws,
        observed_data={"x": x},
        posterior_predictive=predictive,
        log_evidence=evidence,
        dims={"x": ["datapoint", "pixel"]},
    )


@pytest.fixture(params=[0, 1])
def line(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Both lines; trees need xarray alone, InferenceData the old ArviZ."""
    if request.param == 0 and INSTALLED > 0:
        pytest.skip("ArviZ 0.x is not installed")
    monkeypatch.setattr(adapter, "has_trees", lambda: request.param == 1)
    return request.param


def groups(found: Any) -> set[str]:
    names = found.children if isinstance(found, xr.DataTree) else found.groups()
    return {name.strip("/") for name in names}


# Names


def test_groups_variables_and_dimensions(line: int) -> None:
    fa, x, draws = oracle()
    evidence = fa.log_evidence(x).detach()
    found = to_arviz(
        draws,
        observed_data={"x": x},
        posterior_predictive={"x": torch.randn(4, 100, 4, 6)},
        log_evidence=evidence,
    )
    assert isinstance(found, xr.DataTree) == (line == 1)
    assert groups(found) == {
        "posterior", "sample_stats", "posterior_predictive", "observed_data", "constant_data",
    }  # fmt: skip
    assert found["posterior"]["z"].dims == ("chain", "draw", "datapoint", "latent")
    assert set(found["sample_stats"].data_vars) == STATS
    assert found["sample_stats"]["lp"].dims == ("chain", "draw", "datapoint")
    stats = found["sample_stats"]
    for name in ("energy", "diverging"):
        assert stats[name].dims == ("chain", "draw")
        assert stats[f"{name}_of_datapoint"].dims == ("chain", "draw", "datapoint")
    np.testing.assert_allclose(stats["energy"], stats["energy_of_datapoint"].sum("datapoint"))
    assert stats["diverging"].dtype == bool
    assert found["observed_data"]["x"].dims == ("datapoint", "x_dim_0")
    assert found["posterior_predictive"]["x"].dims == ("chain", "draw", "datapoint", "x_dim_0")
    assert found["constant_data"]["log_evidence"].dims == ("datapoint",)
    np.testing.assert_array_equal(found["posterior"]["z"], draws.samples["z"])
    np.testing.assert_array_equal(found["constant_data"]["log_evidence"], evidence)
    attrs = found["posterior"].attrs
    assert attrs["inference_library"] == "aevb"
    assert attrs["sample_dims"] == ["chain", "draw"]
    assert attrs["tuning_steps"] == 200


def test_several_sites_keep_their_own_dimensions(line: int) -> None:
    del line
    draws = hmc(
        two_sites, torch.ones(5), num_chains=2, num_samples=50, num_warmup=200,
        target_acceptance=0.95,
    )  # fmt: skip
    posterior = to_arviz(draws)["posterior"]
    assert posterior["rate"].dims == ("chain", "draw", "datapoint")
    assert posterior["net.shift"].dims == ("chain", "draw", "datapoint", "net.shift_dim_0")


def test_joint_posteriors_have_no_datapoints(line: int) -> None:
    del line
    y = torch.tensor([1.0, 2.0, 3.0])
    draws = hmc(joint, y, num_chains=2, num_samples=50, num_warmup=100)
    found = to_arviz(draws, observed_data={"y": y}, log_evidence=torch.tensor([-5.0]))
    assert found["posterior"]["mu"].dims == ("chain", "draw")
    assert found["posterior"]["theta"].dims == ("chain", "draw", "theta_dim_0")
    assert found["sample_stats"]["energy"].dims == ("chain", "draw")
    assert found["constant_data"]["log_evidence"].dims == ()
    assert rhat(draws).shape == ess_bulk(draws).shape == ()


def test_evidence_of_an_estimator_brings_its_error() -> None:
    constant = tree()["constant_data"]
    assert set(constant.data_vars) == {"log_evidence", "log_evidence_standard_error"}
    assert constant.attrs["log_evidence_estimator"] == "ImportanceEvidence"
    assert "log_likelihood" not in groups(tree())


def test_guide_draws_are_no_chains(line: int) -> None:
    found = guide_to_arviz(
        {"z": torch.randn(10, 4, 3)},
        observed_data={"x": torch.randn(4, 6)},
        posterior_predictive={"x": torch.randn(10, 4, 6)},
        log_evidence=torch.zeros(4),
    )
    samples = ("chain", "draw") if line == 0 else ("sample",)
    assert found["posterior"]["z"].dims == (*samples, "datapoint", "latent")
    assert found["posterior_predictive"]["x"].dims == (*samples, "datapoint", "x_dim_0")
    assert found["posterior"].attrs["sample_dims"] == list(samples)
    assert guide_to_arviz({"w": torch.randn(10, 3)}, is_local=False)["posterior"]["w"].dims == (
        *samples,
        "latent",
    )


@pytest.mark.parametrize("name", ["latent", "datapoint"])
def test_dimensions_are_never_named_like_variables(name: str) -> None:
    posterior = guide_to_arviz({name: torch.randn(10, 4, 3)})["posterior"]
    assert name not in posterior[name].dims
    assert f"{name}_dim" in posterior[name].dims


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observed_data": {"chain": torch.zeros(4)}}, "observed_data: chain is a dimension"),
        ({"dims": {"z": ["datapoint"]}}, r"dims: expected 2 names for 'z' of shape \(4, 3\)"),
        ({"log_evidence": torch.zeros(5)}, "log_evidence: expected 4 values; got 5"),
        ({"posterior_predictive": {"x": torch.zeros(4)}}, r"begin with \(chain, draw\)"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_arviz(oracle()[2], **change)


def test_guide_draws_need_samples() -> None:
    with pytest.raises(ValueError, match="samples: expected at least one latent site"):
        guide_to_arviz({})
    with pytest.raises(ValueError, match=r"samples: expected .* got shape \(3,\)"):
        guide_to_arviz({"z": torch.zeros(3)})


# ArviZ's own functions


def test_summary_has_a_row_for_each_number() -> None:
    summary = az.summary(tree())
    assert len(summary) == 4 * 3
    assert (summary["r_hat"].astype(float) < 1.1).all()


@pytest.mark.parametrize("name", ["plot_trace", "plot_rank", "plot_ess", "plot_forest"])
@pytest.mark.filterwarnings("ignore")  # of ArviZ, its backends and NumPy
def test_plots_run(name: str) -> None:
    backend = matplotlib.get_backend()
    matplotlib.use("agg")
    try:
        plot: Callable[..., Any] = getattr(az, name)
        assert plot(tree(), coords={"datapoint": [0, 2]}, backend="matplotlib") is not None
    finally:
        matplotlib.pyplot.close("all")
        matplotlib.use(backend)


def divergent_tree() -> Any:
    _, _, draws = oracle()
    diverging = draws.stats["diverging"].clone()
    diverging[1, 7, 2] = True
    return to_arviz(replace(draws, stats={**draws.stats, "diverging": diverging}))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plot_energy", {}),
        ("plot_trace", {"divergences": "bottom"}),
        ("plot_parallel", {}),
        ("plot_pair", {"divergences": True, "coords": {"datapoint": [0]}}),
        ("plot_autocorr", {}),
        ("plot_posterior", {}),
        ("plot_mcse", {}),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of ArviZ, its backends and NumPy
def test_plots_read_the_statistics_of_files(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    divergent_tree().to_netcdf(str(tmp_path / "draws.nc"), engine="h5netcdf")
    backend = matplotlib.get_backend()
    matplotlib.use("agg")
    try:
        for found in (divergent_tree(), az.from_netcdf(str(tmp_path / "draws.nc"))):
            assert getattr(az, name)(found, **options) is not None
            matplotlib.pyplot.close("all")
    finally:
        matplotlib.pyplot.close("all")
        matplotlib.use(backend)


def bfmi(energy: np.ndarray) -> np.ndarray:
    """Betancourt (2016), https://arxiv.org/abs/1604.00695, equation 3, of each chain."""
    steps = np.square(np.diff(energy, axis=1)).mean(1)
    # the lines of ArviZ differ in the correction of the variance, by one draw in a hundred
    return np.asarray(steps / energy.var(1))


@pytest.mark.filterwarnings("ignore")
def test_missing_information_is_that_of_all_energies_together(line: int, tmp_path: Path) -> None:
    _, _, draws = oracle()
    together = draws.stats["energy"].sum(-1).numpy()
    path = str(tmp_path / "draws.nc")
    found = to_arviz(draws)
    found.to_netcdf(path, engine="h5netcdf")
    if line == 0:
        values = [az.bfmi(found), az.bfmi(az.from_netcdf(path))]
    else:
        stats = pytest.importorskip("arviz_stats", reason="ArviZ 1.x is absent")
        again = xr.open_datatree(path, engine="h5netcdf")
        values = [stats.bfmi(tree)["energy"].to_numpy() for tree in (found, again)]
    for value in values:
        assert value.shape == (4,)
        np.testing.assert_allclose(value, bfmi(together), rtol=0.02)


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
def test_files_give_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "draws.nc"
    tree().to_netcdf(str(path), engine="h5netcdf")
    again = az.from_netcdf(str(path))
    assert groups(again) == groups(tree())
    for group in groups(tree()):
        ours, theirs = tree()[group], again[group]
        for name in ours.data_vars:
            xr.testing.assert_identical(ours[name].drop_attrs(), theirs[name].drop_attrs())
        assert theirs.attrs["inference_library"] == "aevb"


def test_trees_hold_for_the_new_line() -> None:
    """Its summary and diagnostics, as far as they are installed beside the old line."""
    stats = pytest.importorskip("arviz_stats", reason="ArviZ 1.x is absent")
    pytest.importorskip("arviz_base", reason="ArviZ 1.x is absent")
    _, _, draws = oracle()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapter, "has_trees", lambda: True)
        new = to_arviz(draws)
    found = stats.rhat(new)["z"].to_numpy().max(-1)
    np.testing.assert_allclose(found, rhat(draws), rtol=1e-6)
    found = stats.ess(new, method="bulk")["z"].to_numpy().min(-1)
    np.testing.assert_allclose(found, ess_bulk(draws), rtol=1e-6)
    assert len(stats.summary(new)) == 4 * 3


# Diagnostics


def with_values(unconstrained: Tensor) -> Draws:
    return replace(oracle()[2], unconstrained=unconstrained)


def test_diagnostics_of_independent_draws() -> None:
    chains, num, batch, dim = 4, 1000, 10, 3
    draws = with_values(torch.randn(chains, num, batch, dim))
    # R-hat² − 1 is close to an F ratio less 1 over the draws of a half chain: twice as many half
    # chains as chains, folded ranks besides, and a union bound over all numbers
    halves, length = 2 * chains, num / 2
    tail = 2 * math.log(2 * batch * dim / FALSE_ALARM_RATE)
    bound = 1 + (halves - 1 + tail + math.sqrt(2 * (halves - 1) * tail)) / (halves - 1) / length
    assert rhat(draws).shape == (batch,)
    assert bool((rhat(draws) < bound).all())
    assert bool((ess_bulk(draws) > 0.5 * chains * num).all())
    assert bool((ess_tail(draws) > 0.5 * chains * num).all())


def test_diagnostics_name_the_separated_datapoint() -> None:
    values = torch.randn(4, 200, 3, 2)
    values[0, :, 1, 0] += 3.0
    draws = with_values(values)
    assert [bool(r > 1.2) for r in rhat(draws)] == [False, True, False]
    assert ess_bulk(draws)[1] < 0.1 * min(ess_bulk(draws)[0], ess_bulk(draws)[2])


def test_chains_that_never_moved_do_not_look_converged() -> None:
    values = torch.randn(4, 50, 3, 1)
    values[:, :, 0] = torch.arange(4.0).reshape(4, 1, 1)
    values[:, :, 1] = 1.0
    found = rhat(with_values(values))
    assert not found[0] < 1.01
    assert np.isnan(found[1])
    assert found[2] < 1.2
