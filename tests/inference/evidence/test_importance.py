"""Importance-sampled evidence against closed forms, a naive loop and its own chunks."""

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from aevb import models
from aevb.inference import importance_evidence, pareto_khat
from aevb.inference.evidence import weights as weights_room
from aevb.inference.evidence.importance import estimates_from_log_weights
from aevb.inference.graphs.compile import graph_function
from aevb.inference.programs.joint import Joint

from oracles import (
    STANDARD_ERRORS,
    linear_gaussian,
    mean_field_gap,
    mean_field_guide,
    naive_log_weights,
    simulate,
)


def test_exact_posterior_gives_the_evidence_at_every_draw() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 9)
    evidence = importance_evidence(fa.model, fa.guide, x, num_samples=40)
    exact = fa.log_evidence(x).detach()
    torch.testing.assert_close(evidence.log_evidence, exact, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(evidence.elbo, exact, rtol=1e-10, atol=1e-10)
    assert bool((evidence.standard_error < 1e-10).all())
    torch.testing.assert_close(evidence.ess, torch.full((9,), 40.0, dtype=torch.float64))
    assert bool((evidence.khat == 0).all())


def covers(scale_factor: float = 1.0, drop_entropy: bool = False) -> Tensor:
    """Error of the evidence of a mean-field guide in standard errors, ``(B,)``."""
    fa = linear_gaussian()
    x = simulate(fa, 50)
    guide = mean_field_guide(fa, scale_factor)
    evidence = importance_evidence(fa.model, guide, x, num_samples=20_000, seed=1)
    estimate = evidence.log_evidence
    if drop_entropy:  # the broken twin: weights without a constant of log q
        estimate = estimate - 0.5 * math.log(2 * math.pi)
    assert float(evidence.ess.min()) > 1000, "too few effective samples to test with"
    error: Tensor = (estimate - fa.log_evidence(x).detach()) / evidence.standard_error
    return error


def test_mean_field_guide_covers_the_exact_evidence() -> None:
    # a wider guide has bounded weights, so that the delta-method error is valid
    assert float(covers(scale_factor=1.5).abs().max()) < STANDARD_ERRORS


def test_standard_error_has_the_size_of_the_errors() -> None:
    # z-scores of 50 datapoints: their sum of squares is chi-squared with 50 degrees of freedom,
    # which lies in [19.2, 106] with probability 1 - 1e-6 or more
    squares = float(covers(scale_factor=1.5).square().sum())
    assert 19.2 < squares < 106.0


def test_evidence_with_a_missing_constant_is_found_out() -> None:
    assert float(covers(scale_factor=1.5, drop_entropy=True).abs().max()) > STANDARD_ERRORS


def test_elbo_of_the_draws_is_below_the_evidence_by_the_closed_form_gap() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 20)
    evidence = importance_evidence(fa.model, mean_field_guide(fa), x, num_samples=20_000)
    gap = (fa.log_evidence(x) - mean_field_gap(fa, x)).detach()
    error = (evidence.elbo - gap) / evidence.elbo_standard_error
    assert float(error.abs().max()) < STANDARD_ERRORS
    broken = (evidence.elbo - fa.log_evidence(x).detach()) / evidence.elbo_standard_error
    assert float(broken.abs().max()) > STANDARD_ERRORS


def test_vectorized_weights_follow_the_same_law_as_a_naive_loop() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 3)
    guide = mean_field_guide(fa, 1.5)
    with torch.no_grad():
        slow = naive_log_weights(fa.model, guide, x, 400)
        joint = Joint(fa.model, x, guide=guide)
        latents, log_q = joint.draw(4000)
        fast = joint.log_joint(latents) - log_q
    error = (slow.var(0) / 400 + fast.var(0) / 4000).sqrt()
    assert bool(((slow.mean(0) - fast.mean(0)).abs() < STANDARD_ERRORS * error).all())


@pytest.mark.parametrize("budget", [1, 20_000, 10**9])
def test_memory_budget_does_not_change_the_result(budget: int) -> None:
    fa = linear_gaussian()
    x = simulate(fa, 300)  # two blocks of datapoints, two of samples
    arguments = {"num_samples": 600, "seed": 3}
    reference = importance_evidence(fa.model, mean_field_guide(fa), x, **arguments)
    small = importance_evidence(
        fa.model, mean_field_guide(fa), x, **arguments, memory_budget=budget
    )
    for name in ("log_evidence", "standard_error", "ess", "elbo"):
        torch.testing.assert_close(
            getattr(small, name), getattr(reference, name), rtol=1e-10, atol=1e-10
        )


def test_cost_of_a_draw_counts_memory_and_products() -> None:
    vae = models.VAE((28, 28), latent_dim=5, hidden=[50])
    x = torch.ones(20, 28, 28)
    joint = Joint(vae.model, x, guide=vae.guide)
    latents, _ = joint.draw(100)
    cost = joint.cost(latents)
    assert cost.num_flops == 2 * 20 * (5 * 50 + 50 * 784)
    pixels = 20 * 784 * 4  # bytes of the logits, besides which there are the terms of log p
    assert 2 * pixels < cost.num_bytes < 30 * pixels


def test_a_graph_gives_the_same_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    vae = models.VAE((28, 28), latent_dim=5, hidden=[200])
    x = (torch.rand(20, 28, 28) > 0.5).float()
    monkeypatch.setattr(weights_room, "_DATAPOINTS_PER_BLOCK", 8)
    estimates = []
    for level in ("", "traced", "compiled"):
        monkeypatch.setattr(weights_room, "_WORTH_A_GRAPH", {level: 0.0} if level else {})
        calls = _count_calls(monkeypatch)
        estimates.append(importance_evidence(vae.model, vae.guide, x, num_samples=600))
        assert calls == [level] * 2 * bool(level)  # for blocks of 8, 8 and 4 datapoints
    for name in ("log_evidence", "elbo"):
        eager, *graphs = (getattr(estimate, name) for estimate in estimates)
        for graph in graphs:
            torch.testing.assert_close(graph, eager, rtol=1e-6, atol=1e-4)


def test_a_program_that_looks_at_its_data_has_no_graph_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it saw in the first block would stand in the graph for all."""

    def model(x: Tensor) -> None:
        shift = float(np.asarray(x.detach().cpu()).max())
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            mean = (z @ torch.ones(2, 300)) + shift
            pyro.sample("x", dist.Normal(mean.mean(-1), 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))

    # a block of its own sees another largest value, so that blocks must not be cut here
    x = torch.tensor([1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr(weights_room, "_same_when_cut", lambda *_: True)
    monkeypatch.setattr(weights_room, "_DATAPOINTS_PER_BLOCK", 2)
    found = []
    for worth in ({}, {"traced": 0.0}):
        monkeypatch.setattr(weights_room, "_WORTH_A_GRAPH", worth)
        found.append(importance_evidence(model, guide, x, num_samples=200).log_evidence)
    torch.testing.assert_close(*found)


def test_data_are_cut_only_where_every_block_is_the_same_alone() -> None:
    """Times divided by their maximum: the last block alone has the maximum of all."""
    x = torch.randn(600, generator=torch.Generator().manual_seed(0)).double()
    times = torch.linspace(0, 10, 600).double()

    def model(x: Tensor, times: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(times / times.max(), 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x: Tensor, times: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((times / times.max() + 4 * x) / 5, math.sqrt(0.2)))

    evidence = importance_evidence(model, guide, x, times, num_samples=50)
    exact = dist.Normal(times / times.max(), math.sqrt(1.25)).log_prob(x)
    torch.testing.assert_close(evidence.log_evidence, exact, rtol=0, atol=1e-9)


def _count_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []

    def counted(*args: Any, level: str) -> Any:
        graph = graph_function(*args, level=level)
        calls.append(level)
        return graph

    monkeypatch.setattr(weights_room, "graph_function", counted)
    return calls


def test_seed_decides_the_draws_and_nothing_else_does() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 4)
    state = torch.get_rng_state()
    one, two, other = (
        importance_evidence(fa.model, mean_field_guide(fa), x, num_samples=50, seed=seed)
        for seed in (1, 1, 2)
    )
    assert torch.equal(one.log_evidence, two.log_evidence)
    assert not torch.equal(one.log_evidence, other.log_evidence)
    assert torch.equal(state, torch.get_rng_state())


def test_neighbours_in_the_batch_have_independent_draws() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 1).expand(600, 6)
    evidence = importance_evidence(fa.model, mean_field_guide(fa), x, num_samples=30)
    assert evidence.log_evidence.unique().numel() == 600


def test_float32_weights_are_summed_in_float64() -> None:
    """Summed in float32, 100,000 equal terms of a site would be off by far more than 1e-9."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample(
                "x", dist.Normal(z.unsqueeze(-1) * 0, 1.0).expand_by([]).to_event(1), obs=x
            )

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    x = torch.full((1, 100_000), 0.1)
    evidence = importance_evidence(model, guide, x, num_samples=2)
    term = float(dist.Normal(torch.zeros(()), 1.0).log_prob(torch.tensor(0.1)))
    assert float(evidence.log_evidence) == pytest.approx(100_000 * term, rel=1e-12)


@pytest.mark.parametrize("num_samples", [1, 2, 24])
def test_few_samples_leave_undefined_figures_undefined(num_samples: int) -> None:
    fa = linear_gaussian()
    x = simulate(fa, 2)
    evidence = importance_evidence(fa.model, mean_field_guide(fa), x, num_samples=num_samples)
    assert bool(torch.isnan(evidence.khat).all())
    assert bool(torch.isnan(evidence.standard_error).all()) == (num_samples == 1)
    assert bool(torch.isfinite(evidence.log_evidence).all())


def test_khat_of_weights_that_are_partly_zero_is_not_zero() -> None:
    weights = torch.randn(1000, 3, dtype=torch.float64)
    weights[:995, 0] = -math.inf
    weights[::2, 1] = -math.inf
    weights[:, 2] = -math.inf
    khat = pareto_khat(weights)
    assert khat[0] > 0.7
    assert math.isfinite(khat[1])
    assert khat[2] == math.inf


def test_khat_recovers_the_tail_of_pareto_weights() -> None:
    """The log-weights of Pareto variables with shape 1/k have tail index k."""
    torch.manual_seed(0)
    shapes = torch.tensor([0.2, 0.5, 1.0])
    uniform = torch.rand(100_000, 3, dtype=torch.float64)
    khat = torch.from_numpy(pareto_khat(-shapes * torch.log(uniform)))
    # asymptotic sd of the generalized Pareto shape from n exceedances: (1 + k)/√n,
    # with n = 3√S of the S weights
    error = (1 + shapes) / math.sqrt(3 * math.sqrt(100_000))
    assert bool(((khat - shapes).abs() < STANDARD_ERRORS * error).all())
    assert bool(((khat - shapes.flip(0)).abs()[[0, 2]] > STANDARD_ERRORS * error[[0, 2]]).all())


def test_both_arviz_lines_give_the_same_khat() -> None:
    array_stats = pytest.importorskip("arviz_stats.base", reason="ArviZ 1.x is absent").array_stats
    torch.manual_seed(0)
    shapes = torch.tensor([0.2, 0.5, 0.8, 1.2])
    weights = -shapes * torch.log(torch.rand(2000, 4, dtype=torch.float64))
    old = pareto_khat(weights)
    new = [float(array_stats.psislw(-weights[:, i].numpy())[1]) for i in range(4)]
    # two fits of the same tail: closer than one asymptotic sd of either, (1 + k)/√n
    error = (1 + old) / math.sqrt(3 * math.sqrt(2000))
    assert bool((abs(old - new) < error).all())
    # 1.x takes log-likelihoods: with the sign of 0.x it would fit the other tail
    flipped = [float(array_stats.psislw(weights[:, i].numpy())[1]) for i in range(4)]
    assert bool((abs(old - flipped) > error).all())


def test_estimates_are_shift_invariant_and_survive_extreme_weights() -> None:
    weights = torch.tensor([[-1e5, 3.0], [-1e5 + 1, -math.inf], [-1e5 - 2, -math.inf]])
    estimates = estimates_from_log_weights(weights.double())
    shifted = estimates_from_log_weights(weights.double() + 1000)
    torch.testing.assert_close(estimates["ess"], shifted["ess"])
    assert float(estimates["ess"][1]) == pytest.approx(1.0)
    assert float(estimates["log_evidence"][1]) == pytest.approx(3.0 - math.log(3))


def test_scaled_sites_are_refused() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 4)
    with pytest.raises(ValueError, match="site 'z' is scaled by 10"):
        importance_evidence(pyro.poutine.scale(fa.model, 10.0), fa.guide, x, num_samples=5)


def test_a_guide_without_a_latent_is_refused() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 4)
    with pytest.raises(ValueError, match=r"no site for the model's latents \['z'\]"):
        importance_evidence(fa.model, lambda x: None, x, num_samples=5)


def test_nan_names_its_site() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 4)
    x[1, 2] = math.nan
    with pytest.raises(ValueError, match="site 'x' observes values outside the support"):
        importance_evidence(fa.model, mean_field_guide(fa), x, num_samples=5)


@pytest.mark.parametrize("num_samples", [0, -3])
def test_num_samples_must_be_positive(num_samples: int) -> None:
    fa = linear_gaussian()
    with pytest.raises(ValueError, match="num_samples: must be at least 1"):
        importance_evidence(fa.model, fa.guide, simulate(fa, 2), num_samples=num_samples)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of /proc")
def test_peak_memory_does_not_grow_with_the_number_of_samples() -> None:
    script = """
import torch
from aevb import inference, models
vae = models.VAE((784,), 20, [200])
x = (torch.rand(20, 784) < 0.3).float()
for num_samples in (1000, 8000):
    inference.importance_evidence(
        vae.model, vae.guide, x, num_samples=num_samples, memory_budget=16 * 2**20
    )
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(int(peak.split()[1]) // 1024)
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True
    )
    few, many = map(int, result.stdout.split())
    assert many - few < 100, (few, many)
