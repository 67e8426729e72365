"""`EnumeratedELBO` against Pyro's own loss, sums written by hand, and what it refuses."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from discrete_programs import (
    LENGTHS,
    SEQUENCES,
    X,
    markov,
    markov_by_hand,
    mixture,
    mixture_by_hand,
    no_guide,
    two_means,
)
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoDelta, AutoNormal
from torch import Tensor, nn

from aevb import inference
from aevb.inference import EnumeratedELBO
from aevb.inference.process import patches
from benchmarks.steps import enumerated_worker
from benchmarks.steps.enumerated_programs import PROGRAMS, annotation, hidden_markov
from benchmarks.steps.enumerated_worker import compare

from graph_programs import needs_compiler

BRIEF = {"mixture-subsampled", "lda", "scanvi-labelled"}


def loss(objective: EnumeratedELBO, model: Callable[..., Any], *args: Tensor) -> float:
    return float(objective.estimator().loss(model, no_guide, *args))


@pytest.fixture
def _in_float64() -> Any:
    torch.set_default_dtype(torch.float64)  # put back for every test
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_in_float64")
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in BRIEF else pytest.mark.slow) for n in PROGRAMS],
)
def test_traced_steps_have_pyros_loss_and_gradient(name: str) -> None:
    """At the same draws, subsamples included."""
    difference, of_gradient = compare(name)
    assert difference < 1e-12
    assert of_gradient < 1e-12


COMPILED = ["mixture", "ss-vae", "hmm-subsampled", "lda", "scanvi", "scanvi-labelled"]


@needs_compiler
@pytest.mark.usefixtures("_in_float64")
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n == "mixture" else pytest.mark.slow) for n in COMPILED],
)
def test_compiled_steps_have_pyros_loss_and_gradient(name: str) -> None:
    difference, of_gradient = compare(name, "compiled")
    assert difference < 1e-12
    assert of_gradient < 1e-12


def test_another_draw_would_be_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    of_pyro = enumerated_worker._of_pyro

    def later(*args: Any) -> Any:
        torch.rand(())
        return of_pyro(*args)

    monkeypatch.setattr(enumerated_worker, "_of_pyro", later)
    difference, of_gradient = compare("mixture-subsampled")
    assert difference > 1e-3
    assert of_gradient > 1e-3


def test_a_loop_as_long_as_the_data_say_runs_eagerly() -> None:
    """As in Pyro's ``examples/hmm.py``."""

    def model(sequences: Tensor, lengths: Tensor) -> None:
        probs = pyro.sample("probs", dist.Dirichlet(torch.ones(2, 2)).to_event(1))
        with pyro.plate("sequences", len(sequences)):
            state: Any = 0
            for t in pyro.markov(range(lengths.max())):  # type: ignore[call-overload]
                with poutine.mask(mask=t < lengths):
                    state = pyro.sample(
                        f"state_{t}", dist.Categorical(probs[state]),
                        infer={"enumerate": "parallel"},
                    )  # fmt: skip
                    sounding = dist.Bernoulli(torch.tensor([0.1, 0.6])[state])
                    pyro.sample(f"y_{t}", sounding, obs=sequences[:, t])

    program = inference.Program(model, AutoDelta(poutine.block(model, expose=["probs"])))
    data = SEQUENCES.float(), LENGTHS
    with pytest.warns(UserWarning, match="run eagerly.*needs the value of a tensor.*a loop"):
        run = inference.fit(program, data, objective=EnumeratedELBO(), steps=3, compile="traced")
    assert run.level == "eager"
    assert run.step == 3


def test_a_mixture_is_summed_by_hand() -> None:
    exact = -float(mixture_by_hand(X).sum())
    with pyro.get_param_store().scope():
        assert loss(EnumeratedELBO(), mixture(), X) == pytest.approx(exact, rel=1e-12)
        shifted = loss(EnumeratedELBO(), mixture(), X + 0.01)
    assert abs(shifted - exact) > 1e-3


def test_chains_of_states_are_summed_over_their_paths() -> None:
    exact = -float(markov_by_hand(SEQUENCES, LENGTHS).sum())
    assert loss(EnumeratedELBO(), markov, SEQUENCES, LENGTHS) == pytest.approx(exact, rel=1e-12)
    whole = -float(markov_by_hand(SEQUENCES, torch.full((3,), 4)).sum())
    assert abs(whole - exact) > 0.1  # without the mask


def test_unmarked_sites_are_summed_out_where_pyro_draws_from_the_prior() -> None:
    exact = -float(mixture_by_hand(X).sum())
    with pyro.get_param_store().scope():
        for infer in (None, {"enumerate": "sequential"}, {"enumerate": "parallel"}):
            found = loss(EnumeratedELBO(), mixture(infer), X)
            assert found == pytest.approx(exact, rel=1e-12)
        pyros = TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)
        with pytest.warns(UserWarning, match="Found vars in model but not guide"):
            drawn = pyros.loss(mixture(), no_guide, X)
    assert abs(drawn - exact) > 1e-3


OTHERS: list[inference.Objective] = [
    inference.ELBO(),
    inference.ELBO(analytic_kl=True),
    inference.IWAE(),
    inference.StickingTheLanding(),
    inference.DReG(),
    inference.BetaELBO(),
    inference.FreeBits(),
]


@pytest.mark.parametrize("objective", OTHERS, ids=repr)
def test_no_other_objective_trains_a_site_that_nobody_draws(objective: Any) -> None:
    for model in (two_means, config_enumerate(two_means)):
        guide = AutoNormal(poutine.block(model, hide=["second"]))
        message = r"discrete latent 'second' \(Bernoulli\).*use objective=EnumeratedELBO\(\)"
        with pytest.raises(ValueError, match=message):
            inference.fit(inference.Program(model, guide), (X,), objective=objective, steps=1)


def test_pyros_loss_is_refused_where_it_would_draw_from_the_prior() -> None:
    guide = AutoNormal(poutine.block(two_means, hide=["second"]))
    with pytest.raises(ValueError, match="'second'.*EnumeratedELBO"):
        inference.fit(
            inference.Program(two_means, guide), (X,), objective=TraceEnum_ELBO(), steps=1
        )


def test_a_latent_with_values_without_end_is_refused() -> None:
    def model(x: Tensor) -> None:
        rate = pyro.sample("rate", dist.Gamma(4.0, 1.0))
        with pyro.plate("data", len(x)):
            crowd = pyro.sample("crowd", dist.Poisson(rate))
            pyro.sample("x", dist.Normal(crowd, 0.7), obs=x)

    guide = AutoNormal(poutine.block(model, hide=["crowd"]))
    with pytest.raises(ValueError, match=r"latent 'crowd' \(Poisson\): let the guide draw it"):
        inference.fit(
            inference.Program(model, guide), (X.float(),), objective=EnumeratedELBO(), steps=1
        )


def test_dimensions_without_a_plate_are_refused() -> None:
    """They would lie where the values of the enumerated site are."""

    def model(x: Tensor) -> None:
        loc = pyro.param("loc", lambda: torch.zeros(()))
        k = pyro.sample("k", dist.Categorical(torch.ones(5) / 5))
        pyro.sample("x", dist.Normal(loc + k, 1.0), obs=x)

    program = inference.Program(model, no_guide)
    with pytest.raises(ValueError, match="(?s)invalid log_prob shape.*pyro.plate"):
        inference.fit(program, (X.float(),), objective=EnumeratedELBO(), steps=1)


def test_particles_that_cannot_lie_side_by_side_are_refused_with_the_remedy() -> None:
    model = hidden_markov()
    guide = AutoNormal(poutine.block(model, expose=["probs_x", "probs_y"]))
    data = (0.75 * torch.rand(4, 3, 5)).round(), torch.tensor([3, 2, 3, 1])
    program = inference.Program(model, guide)
    with pytest.raises(ValueError, match=r"EnumeratedELBO\(num_particles=..., vectorize_par"):
        inference.fit(
            program, data, objective=EnumeratedELBO(2, vectorize_particles=True), steps=1
        )
    run = inference.fit(program, data, objective=EnumeratedELBO(2), steps=2)
    assert run.step == 2


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="num_particles"):
        EnumeratedELBO(0)
    with pytest.raises(ValueError, match="max_plate_nesting"):
        EnumeratedELBO(max_plate_nesting=-1)


class Labelled(nn.Module):
    """A label of each datapoint, which the guide enumerates, and which may be impossible."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Linear(1, 3)

    def model(self, x: Tensor) -> None:
        pyro.module("labelled", self)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.5, 0.5, 0.0])))
            pyro.sample("x", dist.Normal(k.to(x), 1.0), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("labelled", self)
        with pyro.plate("data", len(x)):
            logits = self.logits(x.unsqueeze(-1)) + torch.tensor([0.0, 0.0, -torch.inf])
            pyro.sample("k", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})


def labelled_bounds(level: str) -> list[float]:
    torch.manual_seed(3)
    module = Labelled()
    program = inference.Program(module.model, module.guide)
    step = inference.compiled_step(
        program, partial(torch.optim.SGD, lr=0.1), EnumeratedELBO(), X.float(), compile=level
    )
    bounds = [float(step(X.float())) for _ in range(4)]
    assert step.level == level
    return bounds


def test_values_of_probability_zero_cost_nothing_in_a_graph() -> None:
    assert labelled_bounds("traced") == pytest.approx(labelled_bounds("eager"), rel=1e-6)


def test_without_zeros_in_their_place_they_would_spoil_the_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def keep(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.all, torch.Tensor.masked_select):
            return False if func is torch.Tensor.all else args[0]
        return func(*args, **(kwargs or {}))

    monkeypatch.setattr(patches._ZeroInPlaceOfSelection, "__torch_function__", keep)
    with (
        pytest.warns(UserWarning, match="training steps run eagerly: its graph is not the prog"),
        pytest.raises(AssertionError),
    ):
        labelled_bounds("traced")


def mixture_program() -> inference.Program:
    start = {"share": torch.tensor(0.5), "locs": torch.tensor([-1.0, 1.0])}
    init = pyro.infer.autoguide.init_to_value(values=start)
    hidden = poutine.block(two_means, hide=["second"])
    return inference.Program(two_means, AutoNormal(hidden, init_loc_fn=init))


def points(num: int) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    centres = torch.tensor([-2.0, 2.0])[torch.arange(num) % 2]
    return centres + 0.7 * torch.randn(num, generator=generator)


def trained(level: str, **kwargs: Any) -> inference.Run:
    return inference.fit(
        mixture_program(), (points(60),), objective=EnumeratedELBO(), batch_size=20, seed=3,
        learning_rate=0.05, compile=level, device="cpu", validation=(points(20),),
        progress=False, **kwargs,
    )  # fmt: skip


@pytest.mark.parametrize("level", ["eager", "traced"])
def test_a_resumed_run_is_the_whole_one_to_the_last_bit(level: str, tmp_path: Path) -> None:
    whole = trained(level, epochs=5)
    trained(level, epochs=2, out=tmp_path)
    resumed = trained(level, epochs=5, out=tmp_path, resume=True)
    assert resumed.level == whole.level == level
    pairs = zip(whole.program.parameters(), resumed.program.parameters(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)
    bounds = [[row["validation_elbo"] for row in run.history] for run in (whole, resumed)]
    assert bounds[0] == bounds[1]


def test_minibatches_stand_for_the_data_beside_the_means() -> None:
    """The posterior is as narrow as that of all the data, not of a minibatch."""
    run = trained("eager", epochs=60)
    assert run.unit == "nats per datapoint"
    fitted: Any = run.program.guide_program
    with pyro.get_param_store().scope():
        loc, scale = fitted.locs.locs.detach(), fitted.scales.locs.detach()
    of_all, of_minibatch = 0.7 / 30**0.5, 0.7 / 10**0.5  # 30, or 10, points in each component
    assert float((loc - torch.tensor([-2.0, 2.0])).abs().max()) < 5 * of_all
    assert bool((scale < (of_all * of_minibatch) ** 0.5).all())


def test_validation_sums_out_what_training_does() -> None:
    program = inference.Program(mixture(), no_guide)
    found = inference.mean_elbo(program, (X,), batch_size=None)
    assert found == pytest.approx(float(mixture_by_hand(X).mean()), rel=1e-9)


def test_a_factor_of_the_guide_counts_in_training_alone() -> None:
    torch.manual_seed(0)
    model, guide, args = annotation(known=True)
    program = inference.Program(model, guide)
    plain = inference.mean_elbo(program, args, batch_size=None)
    hidden = inference.Program(model, poutine.block(guide, hide=["classification"]))
    assert plain == inference.mean_elbo(hidden, args, batch_size=None)
    program.eval()
    with pytest.raises(ValueError, match="factor 'classification' belongs to no density"):
        inference.importance_evidence(program.model, program.guide, *args, num_samples=2)
    with pytest.raises(ValueError, match="factor 'classification'.*EnumeratedELBO"):
        inference.fit(program, args, objective=inference.IWAE(), steps=1)


def test_traced_steps_of_a_mixture_are_the_eager_ones() -> None:
    found = []
    for level in ("eager", "traced"):
        torch.manual_seed(5)
        program = inference.Program(
            two_means, AutoDelta(poutine.block(two_means, hide=["second"]))
        )
        step = inference.compiled_step(
            program, partial(torch.optim.Adam, lr=0.01), EnumeratedELBO(), points(30),
            compile=level,
        )  # fmt: skip
        found.append([float(step(points(30))) for _ in range(4)])
        assert step.level == level
    assert found[0] == pytest.approx(found[1], rel=1e-6)
