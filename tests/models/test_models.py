"""The models as Pyro programs, and the linear-Gaussian ones against their closed forms."""

import copy
import inspect
import math
import pickle
from collections.abc import Callable

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from torch import Tensor, nn
from torch.distributions import constraints

from aevb import models
from aevb.models import LatentVariableModel, posteriors

from oracles import linear_gaussian, simulate

# Built in the test, under its seed. The activations cannot die: a layer of a few ReLUs may start
# with all of them off, and then rightly has no gradient.
CONV = models.Conv([4, 6], hidden=8, activation=nn.ELU)

MODELS: dict[str, Callable[[], LatentVariableModel]] = {
    "VAE": lambda: models.VAE((4, 4), latent_dim=3, hidden=[8]),
    "VAE, no hidden layer": lambda: models.VAE((4, 4), latent_dim=1, hidden=[]),
    "VAE, two layers, Normal": lambda: models.VAE(
        (4, 4), latent_dim=3, hidden=[8, 5], likelihood=models.Normal(), activation=nn.ELU
    ),
    "FactorAnalysis": lambda: models.FactorAnalysis((4, 4), latent_dim=3),
    "FactorAnalysis, amortized": lambda: models.FactorAnalysis((4, 4), 3, models.DiagonalNormal()),
    "ProbabilisticPCA": lambda: models.ProbabilisticPCA((4, 4), latent_dim=3),
    "VAE, mixture": lambda: models.VAE((4, 4), 3, [8], prior=models.MixtureOfGaussians(4)),
    "VAE, VampPrior": lambda: models.VAE((4, 4), 3, [8], prior=models.VampPrior(4)),
    "VAE, simplex": lambda: models.VAE(
        (4, 4), 3, [8], models.Dirichlet(), posterior=models.FullNormal()
    ),
    "VAE, gamma meets normal": lambda: models.VAE((4, 4), 3, [8], posterior=posteriors.Gamma()),
    "VAE, convolutions": lambda: models.VAE(
        (4, 4),
        3,
        network=CONV,
        likelihood=models.Categorical(2),
    ),
    "VAE, gated": lambda: models.VAE((4, 4), 3, network=models.MLP([8], gated=True)),
    "DLGM": lambda: models.DLGM((4, 4), [3, 2], [8], posterior=models.RankOneNormal()),
    "DLGM, convolutions": lambda: models.DLGM(
        (4, 4), [3, 2], [6], network=[CONV, models.MLP([5])], activation=nn.ELU
    ),
    "HierarchicalVAE": lambda: models.HierarchicalVAE((4, 4), [3, 2], [[8, 7], [6]]),
    "HierarchicalVAE, convolutions": lambda: models.HierarchicalVAE(
        (4, 4), [3, 2], network=[CONV, models.MLP([5], gated=True)]
    ),
    "HierarchicalVAE, convolutions for all": lambda: models.HierarchicalVAE(
        (4, 4), [3, 2], network=CONV
    ),
}


@pytest.fixture(params=list(MODELS), name="program")
def fixture_program(request: pytest.FixtureRequest) -> LatentVariableModel:
    return MODELS[request.param]()


@pytest.fixture(name="x")
def fixture_x() -> Tensor:
    return (torch.rand(5, 4, 4) > 0.5).float()


def test_the_list_covers_every_exported_model() -> None:
    exported = [getattr(models, name) for name in models.__all__]
    concrete = {
        value.__name__
        for value in exported
        if inspect.isclass(value)
        and issubclass(value, LatentVariableModel)
        and value not in (LatentVariableModel, models.LinearGaussian)
    }
    assert concrete == {type(make()).__name__ for make in MODELS.values()}


def latent_sites(program: LatentVariableModel, x: Tensor) -> list[str]:
    return [name for name in poutine.trace(program.guide).get_trace(x).nodes if name[0] == "z"]


def test_sites_lie_in_one_data_plate(program: LatentVariableModel, x: Tensor) -> None:
    guide = poutine.trace(program.guide).get_trace(x)
    model = poutine.trace(poutine.replay(program.model, trace=guide)).get_trace(x)
    latents = latent_sites(program, x)
    assert sorted(latents) in (["z"], ["z1", "z2"])
    for trace, name in [(model, "x"), *((t, n) for t in (guide, model) for n in latents)]:
        trace.compute_log_prob()
        (frame,) = trace.nodes[name]["cond_indep_stack"]
        assert (frame.name, frame.dim, frame.size) == ("data", -1, 5)
        assert trace.nodes[name]["log_prob"].shape == (5,)
    assert model.nodes["x"]["is_observed"]


def test_gradients_reach_every_parameter(program: LatentVariableModel, x: Tensor) -> None:
    loss = Trace_ELBO().differentiable_loss(program.model, program.guide, x)
    loss.backward()
    missing = [name for name, p in program.named_parameters() if p.grad is None]
    assert not missing
    assert all(bool(p.grad.abs().sum() > 0) for p in program.parameters() if p.grad is not None)


def test_bare_svi_trains_every_parameter_and_leaves_the_store_empty(
    program: LatentVariableModel, x: Tensor
) -> None:
    before = copy.deepcopy(program.state_dict())
    svi = SVI(program.model, program.guide, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    losses = [svi.step(x) for _ in range(150)]
    assert sum(losses[-20:]) < sum(losses[:20])
    for name, parameter in program.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    assert len(pyro.get_param_store()) == 0


def test_two_models_in_one_svi_process_share_no_weights(x: Tensor) -> None:
    first, second = (models.VAE((4, 4), latent_dim=3, hidden=[8]) for _ in range(2))
    before = copy.deepcopy(second.state_dict())
    svi = SVI(first.model, first.guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    svi.step(x)
    second.model(x)
    assert all(torch.equal(value, before[name]) for name, value in second.state_dict().items())


def test_predictive_draws_from_prior_and_posterior(
    program: LatentVariableModel, x: Tensor
) -> None:
    prior = Predictive(program.model, num_samples=7)(size=5)
    assert prior["x"].shape == (7, 5, 4, 4)
    posterior = Predictive(program.model, guide=program.guide, num_samples=7)(x)
    assert all(posterior[name].shape[:2] == (7, 5) for name in latent_sites(program, x))


def test_outer_plates_broadcast(program: LatentVariableModel, x: Tensor) -> None:
    with pyro.plate("draws", 6, dim=-2):
        trace = poutine.trace(program.guide).get_trace(x)
    with pyro.plate("draws", 6, dim=-2):
        model = poutine.trace(poutine.replay(program.model, trace=trace)).get_trace(x)
    model.compute_log_prob()
    values = [trace.nodes[name]["value"] for name in latent_sites(program, x)]
    assert all(value.shape[:2] == (6, 5) for value in values)
    assert model.nodes["x"]["log_prob"].shape == (6, 5)


def test_float64_follows_the_module(program: LatentVariableModel, x: Tensor) -> None:
    program.double()
    trace = poutine.trace(program.guide).get_trace(x.double())
    latents = latent_sites(program, x.double())
    assert {trace.nodes[name]["value"].dtype for name in latents} == {torch.float64}
    assert program.model(size=2).dtype == torch.float64


def test_copy_and_pickle_keep_the_weights(program: LatentVariableModel, x: Tensor) -> None:
    poutine.trace(program.model).get_trace(x)
    for twin in (copy.deepcopy(program), pickle.loads(pickle.dumps(program))):
        assert all(
            torch.equal(value, program.state_dict()[name])
            for name, value in twin.state_dict().items()
        )


def test_wrong_datapoint_shape_names_both_shapes(program: LatentVariableModel) -> None:
    with pytest.raises(ValueError, match=r"expected shape \(B, 4, 4\); got \(5, 3\)"):
        program.guide(torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"expected shape \(B, 4, 4\); got \(5, 16\)"):
        program.check_data(torch.zeros(5, 16))


def test_repr_shows_parts_and_shapes(program: LatentVariableModel) -> None:
    text = repr(program)
    assert any(start in text for start in ("z     ~", "ξ     ~", "z1     ~"))
    assert "4×4" in text
    assert f"{sum(p.numel() for p in program.parameters()):,} parameters" in text


@pytest.mark.parametrize("kwargs", [{"latent_dim": 0}, {"hidden": [0]}, {"shape": ()}])
def test_impossible_sizes_are_refused(kwargs: dict[str, object]) -> None:
    arguments: dict[str, object] = {"shape": (4,), **kwargs}
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        models.VAE(**arguments)  # type: ignore[arg-type]


def test_elbo_plus_divergence_is_the_evidence() -> None:
    """For any guide, E_q[log p(x,z) − log q(z)] + KL(q‖p(z|x)) = log p(x), exactly per draw."""
    fa = linear_gaussian()
    x = simulate(fa, 4)
    q = torch.distributions.MultivariateNormal(
        torch.full((4, 3), 0.3, dtype=torch.float64), 0.5 * torch.eye(3, dtype=torch.float64)
    )
    z = q.rsample((11,))
    conditioned = poutine.condition(fa.model, data={"z": z})
    with pyro.plate("draws", 11, dim=-2):
        trace = poutine.trace(conditioned).get_trace(x)
    trace.compute_log_prob()
    log_joint = trace.nodes["z"]["log_prob"] + trace.nodes["x"]["log_prob"]
    elbo_terms = log_joint - q.log_prob(z)
    divergence_terms = q.log_prob(z) - fa.posterior(x).log_prob(z)
    evidence = fa.log_evidence(x).expand(11, 4)
    torch.testing.assert_close(elbo_terms + divergence_terms, evidence, rtol=1e-10, atol=1e-10)


def test_exact_evidence_agrees_with_quadrature() -> None:
    fa = linear_gaussian(features=3, latent_dim=1)
    x = simulate(fa, 4)
    grid = torch.linspace(-12, 12, 20001, dtype=torch.float64)[:, None, None].expand(-1, 4, 1)
    with pyro.plate("draws", len(grid), dim=-2):
        trace = poutine.trace(poutine.condition(fa.model, data={"z": grid})).get_trace(x)
    trace.compute_log_prob()
    log_joint = trace.nodes["z"]["log_prob"] + trace.nodes["x"]["log_prob"]
    log_sum = torch.logsumexp(log_joint, 0) + torch.log(grid[1, 0, 0] - grid[0, 0, 0])
    torch.testing.assert_close(log_sum, fa.log_evidence(x), rtol=1e-10, atol=1e-10)


def test_exact_guide_makes_the_bound_tight_at_every_draw() -> None:
    fa = linear_gaussian()
    x = simulate(fa, 6)
    exact = float(fa.log_evidence(x).detach().sum())
    bounds = [-Trace_ELBO().loss(fa.model, fa.guide, x) for _ in range(3)]
    assert bounds == pytest.approx([exact] * 3, rel=1e-10)


def test_probabilistic_pca_learns_the_eigenvectors() -> None:
    """At the optimum, noise variance = mean of the discarded eigenvalues (Tipping & Bishop)."""
    torch.manual_seed(3)
    basis = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    scales = torch.tensor([3.0, 2.0, 0.5, 0.5, 0.5], dtype=torch.float64)
    x = torch.randn(400, 5, dtype=torch.float64) @ (basis * scales).mT
    ppca = models.ProbabilisticPCA((5,), latent_dim=2).double()
    optimizer = torch.optim.LBFGS(
        ppca.parameters(), max_iter=500, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -ppca.log_evidence(x).mean()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.mT, correction=0))
    noise = float(ppca.noise(x)[0].detach() ** 2)
    assert noise == pytest.approx(float(eigenvalues[:3].mean()), rel=1e-4)


def set_exact(program: models.FactorAnalysis) -> None:
    """Give the amortized family the exact posterior's mean and, as far as it can, covariance."""
    head = program.encoder[1] if isinstance(program.encoder, nn.Sequential) else program.encoder
    assert head is not None
    scale = program._scale().detach()
    weight = program.decoder.weight.detach() / scale[:, None]
    precision = torch.eye(program.latent_dim, dtype=torch.float64) + weight.mT @ weight
    gain = torch.linalg.solve(precision, weight.mT) / scale
    covariance = torch.linalg.inv(precision)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
        head.loc.weight.copy_(gain)
        head.loc.bias.copy_(-gain @ program.decoder.bias)
        if isinstance(program.family, models.FullNormal):
            factor = torch.linalg.cholesky(covariance)
            head.log_diagonal.bias.copy_(factor.diagonal().log())
            rows, columns = torch.tril_indices(len(factor), len(factor), offset=-1)
            relative = len(factor) * factor / factor.diagonal()[:, None]
            head.relative_below.bias.copy_(relative[rows, columns])
        elif isinstance(program.family, models.RankOneNormal):
            # of one observed feature; D is the identity
            head.relative_factor.bias.copy_(program.latent_dim * weight[0])
        else:
            head.log_variance.bias.copy_(covariance.diagonal().log())


@pytest.mark.parametrize(
    ("posterior", "features", "exact"),
    [
        (models.FullNormal(), 6, True),
        (models.RankOneNormal(), 1, True),  # C⁻¹ = I + wwᵀ/ψ
        (models.RankOneNormal(), 6, False),
        (models.DiagonalNormal(), 6, False),
    ],
    ids=repr,
)
def test_families_that_hold_the_posterior_close_the_gap(
    posterior: models.Posterior, features: int, exact: bool
) -> None:
    simple = linear_gaussian(features=features)
    program = models.FactorAnalysis((features,), 3, posterior).double()
    program.load_state_dict(simple.state_dict(), strict=False)
    set_exact(program)
    x = simulate(simple, 5)
    with pyro.plate("draws", 40, dim=-2):
        guide = poutine.trace(program.guide).get_trace(x)
        model = poutine.trace(poutine.replay(program.model, trace=guide)).get_trace(x)
    guide.compute_log_prob()
    model.compute_log_prob()
    log_p = model.nodes["x"]["log_prob"] + model.nodes["z"]["log_prob"]
    log_weights = log_p - guide.nodes["z"]["log_prob"]
    gap = (log_weights - program.log_evidence(x)).abs().max()
    assert bool(gap < 1e-10) == exact


def test_what_is_no_part_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"prior: expected an object, such as VampPrior\(\)"):
        models.VAE((4, 4), prior=models.VampPrior)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"likelihood: expected a part derived from .*Likelihood"):
        models.VAE((4, 4), likelihood=models.StandardNormal())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="network: expected one for all, or one for each of 2"):
        models.DLGM((4, 4), [3, 2], network=[models.MLP()])
    with pytest.raises(ValueError, match="network: expected a part derived"):
        models.HierarchicalVAE((4, 4), [3, 2], network=[models.MLP(), nn.Linear(2, 2)])  # type: ignore[list-item]


class Reals(models.Posterior):
    """A posterior of one's own that names its support as torch does for single numbers."""

    support = constraints.real

    def build(self, in_features: int, latent_dim: int) -> nn.Module:
        return models.DiagonalNormal().build(in_features, latent_dim)


class Counts(models.Prior):
    support = constraints.nonnegative_integer

    def build(self, latent_dim: int) -> nn.Module:
        raise NotImplementedError


def test_supports_of_ones_own_parts_are_understood(x: Tensor) -> None:
    for program in (
        models.DLGM((4, 4), [3], posterior=Reals()),
        models.HierarchicalVAE((4, 4), [3, 2], posterior=Reals()),
        models.VAE((4, 4), posterior=Reals()),
    ):
        assert math.isfinite(Trace_ELBO().loss(program.model, program.guide, x))
    with pytest.raises(ValueError, match="Counts: lies on a discrete support"):
        models.VAE((4, 4), prior=Counts())
    with pytest.raises(ValueError, match="Gamma does not cover the real line"):
        models.DLGM((4, 4), posterior=posteriors.Gamma())
