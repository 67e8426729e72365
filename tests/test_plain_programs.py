"""Programs as Pyro's users write them, against their exact posteriors, in every function."""

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.ops.stats import effective_sample_size
from torch import Tensor

from aevb import evaluation, inference
from aevb.inference.programs.program import data_plate_size

from oracles import STANDARD_ERRORS
from plain_programs import PROGRAMS, PlainProgram, float64, named
from plain_truths import Truth

KNOWN = [program for program in PROGRAMS if program.known is not None]
REFUSED = [
    (program, function)
    for program in PROGRAMS
    if program.refused is not None
    for function in program.refused_by
]
# One program for each way of not being written for an outer plate; the others are slow tests.
BRIEF = frozenset(
    {
        "Bayesian regression",
        "keyword arguments",
        "reducing",
        "sum over a plate",
        "GP of pyro.contrib",
        "linear regression",
        "crossed effects",
        "coin by coin",
        "Dirichlet and multinomial",
        "pPCA by hand",
    }
)
# Evidence takes longer.
BRIEFEST = frozenset({"group intercepts", "reducing", "pPCA by hand"})
# Densities on which gradients do not lead: chains do not mix, and say so.
STUCK = frozenset({"change point"})


@pytest.fixture(autouse=True)
def _in_float64() -> Iterator[None]:
    with float64():
        yield


def some(programs: list[PlainProgram], brief: frozenset[str] = BRIEF) -> Any:
    """Parameters of a test: the brief programs, and the others with the mark ``slow``."""
    return pytest.mark.parametrize(
        "record",
        [
            pytest.param(p, id=p.name, marks=() if p.name in brief else pytest.mark.slow)
            for p in programs
        ],
    )


def every(programs: list[PlainProgram]) -> Any:
    return pytest.mark.parametrize("record", programs, ids=[p.name for p in programs])


# The truths themselves


@some(KNOWN)
def test_quadrature_does_not_change_with_its_points(record: PlainProgram) -> None:
    truth, finer = record.truth(), record.truth(1.3)
    for name in truth.means:
        torch.testing.assert_close(truth.means[name], finer.means[name], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(truth.sds[name], finer.sds[name], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(truth.log_evidence, finer.log_evidence, rtol=1e-6, atol=1e-6)


@every(KNOWN)
def test_truth_names_every_latent_site_with_its_size(record: PlainProgram) -> None:
    trace = poutine.trace(record.model).get_trace(*record.args)
    sizes = {
        name: site["value"].numel()
        for name, site in trace.nodes.items()
        if site["type"] == "sample"
        and not site["is_observed"]
        and type(site["fn"]).__name__ != "_Subsample"
    }
    truth = record.truth()
    assert {name: len(mean) for name, mean in truth.means.items()} == sizes
    assert {name: len(sd) for name, sd in truth.sds.items()} == sizes
    assert truth.log_evidence is not None


def test_reducing_by_hand() -> None:
    truth = named("reducing").truth()
    # w.sum() has variance 2 before and noise 1/4: means 4 / (2 + 1/4), variances 1 - 1 / (2 + 1/4)
    torch.testing.assert_close(truth.means["w"], torch.full((2,), 16 / 9))
    torch.testing.assert_close(truth.sds["w"], torch.full((2,), (5 / 9) ** 0.5))
    assert abs(float(truth.log_evidence) + 4.87996) < 1e-5  # type: ignore[arg-type]


# Hamiltonian Monte Carlo


def worst_errors(samples: dict[str, Tensor], truth: Truth) -> tuple[float, float]:
    """Largest errors of means and of standard deviations, in standard errors.

    Args:
        samples: ``(chains, draws, ...)`` for each site.
        truth: What they are compared with; its own errors count too.
    """
    mean_worst = sd_worst = 0.0
    for name, mean in truth.means.items():
        values = (
            samples[name].flatten(2) if samples[name].ndim > 2 else samples[name].unsqueeze(-1)
        )
        values, sd = values.double(), truth.sds[name]
        varies = sd > 0
        fixed = values[..., ~varies]
        torch.testing.assert_close(fixed, mean[~varies].expand_as(fixed))
        values, mean, sd = values[..., varies], mean[varies], sd[varies]
        spread = (values - mean).square()
        error = _standard_error(values).square()
        error = error + truth.mean_errors.get(name, torch.zeros(())) ** 2
        sd_error = (_standard_error(spread) / (2 * sd)).square()
        sd_error = sd_error + truth.sd_errors.get(name, torch.zeros(())) ** 2
        off = (values.mean((0, 1)) - mean).abs() / error.sqrt()
        sd_off = (spread.mean((0, 1)).sqrt() - sd).abs() / sd_error.sqrt()
        mean_worst = max(mean_worst, float(off.max()))
        sd_worst = max(sd_worst, float(sd_off.max()))
    return mean_worst, sd_worst


def _standard_error(values: Tensor) -> Tensor:
    effective = effective_sample_size(values, chain_dim=0, sample_dim=1)
    return values.std((0, 1)) / effective.clamp(max=float(values[..., 0].numel())).sqrt()


@functools.cache
def chains(name: str) -> dict[str, Tensor]:
    record = named(name)
    draws = inference.hmc(
        record.model, *record.args, num_chains=8, num_samples=300, num_warmup=300, seed=1
    )
    return draws.samples


@some(KNOWN)
def test_hmc_finds_the_exact_moments(record: PlainProgram) -> None:
    if record.name in STUCK:
        with pytest.warns(UserWarning, match="HMC: ") as caught:
            chains(record.name)
        assert any("R̂" in str(warning.message) for warning in caught)
        return
    means, sds = worst_errors(chains(record.name), record.truth())
    assert means < STANDARD_ERRORS
    assert sds < STANDARD_ERRORS


def test_a_mean_shifted_by_ten_standard_errors_is_found_out() -> None:
    record = named("pPCA by hand")
    samples, truth = chains(record.name), record.truth()
    error = _standard_error(samples["z"].flatten(2))
    wrong = Truth({"z": truth.means["z"] + 10 * error}, truth.sds, None, "broken")
    assert worst_errors(samples, wrong)[0] > STANDARD_ERRORS
    too_wide = Truth(truth.means, {"z": 1.3 * truth.sds["z"]}, None, "broken")
    assert worst_errors(samples, too_wide)[1] > STANDARD_ERRORS


# Evidence


def fitted(record: PlainProgram, steps: int = 600) -> inference.Program:
    """The program with a guide trained for a moment."""
    model = record.model
    program = inference.Program(model, record.guide(model))
    inference.fit(
        program, record.args, learning_rate=0.03, steps=steps, seed=0, device="cpu",
        objective=inference.ELBO(num_particles=1), compile="auto",
    )  # fmt: skip
    return program


@some(KNOWN, BRIEFEST)
def test_importance_evidence_is_the_exact_one(record: PlainProgram) -> None:
    program = fitted(record)
    found = inference.importance_evidence(
        program.model, program.guide, *record.args, num_samples=2000, seed=1
    )
    exact = record.truth().log_evidence
    if len(found.log_evidence) == 1:  # the guide is of all datapoints jointly
        exact = exact.sum()
    error = (found.log_evidence - exact) / found.standard_error
    assert bool((error < STANDARD_ERRORS).all())
    # heavy-tailed weights leave a bound and no more
    assert bool(((error > -STANDARD_ERRORS) | (found.khat > 0.7)).all())


@some(KNOWN, BRIEFEST)
def test_annealing_from_the_prior_gives_the_exact_evidence(record: PlainProgram) -> None:
    found = annealed(record)
    error = (found.log_evidence - record.truth().log_evidence) / found.standard_error
    assert bool((error.abs() < STANDARD_ERRORS).all())


def annealed(record: PlainProgram) -> inference.AISEvidence:
    return inference.ais_evidence(
        record.model, *record.args, num_chains=64, num_temperatures=200, num_leapfrog_steps=4,
        seed=1,
    )  # fmt: skip


def test_evidence_that_is_off_by_ten_standard_errors_is_found_out() -> None:
    record = named("pPCA by hand")
    found = annealed(record)
    wrong = record.truth().log_evidence + 10 * found.standard_error
    error = (found.log_evidence - wrong) / found.standard_error
    assert bool((error.abs() > STANDARD_ERRORS).all())


# Training


STEPS = 20


def expected_warning(record: PlainProgram) -> Any:
    """Steps without a graph run eagerly, with the reason."""
    if record.untraced is None:
        return contextlib.nullcontext()
    return pytest.warns(UserWarning, match=f"training steps run eagerly: .*{record.untraced}")


def trained(record: PlainProgram, level: str) -> tuple[dict[str, Tensor], Callable[[], Any]]:
    """Parameters after some steps, and a loop of Pyro's from where the first step began."""
    beginning: dict[str, Any] = {}

    def optimizer(parameters: list[Tensor], lr: float) -> torch.optim.Optimizer:
        # made after parameters and before the first step
        beginning["random"] = torch.get_rng_state()
        beginning["program"] = copy.deepcopy(program.state_dict())
        return torch.optim.Adam(parameters, lr=lr)

    model = record.model
    program = inference.Program(model, record.guide(model))
    run = inference.fit(
        program, record.args, optimizer=optimizer, learning_rate=0.02, steps=STEPS, seed=3,
        device="cpu", compile=level,
    )  # fmt: skip
    assert run.level == ("eager" if record.untraced else level)
    after = {name: value.detach().clone() for name, value in program.state_dict().items()}

    def by_pyro() -> dict[str, Tensor]:
        model = record.model
        guide = record.guide(model)
        guide(*record.args)  # an autoguide makes its parameters at the first call
        prefix = "guide_program."
        guide.load_state_dict(
            {
                name.removeprefix(prefix): value
                for name, value in beginning["program"].items()
                if name.startswith(prefix)
            }
        )
        # `fit` divides the bound by the number of datapoints; Adam feels that by its epsilon alone
        size, _ = data_plate_size(poutine.trace(model).get_trace(*record.args)) or (1, 1)
        adam = pyro.optim.Adam({"lr": 0.02, "eps": 1e-8 * size})
        svi = SVI(model, guide, adam, Trace_ELBO())
        torch.set_rng_state(beginning["random"])
        for _ in range(STEPS):
            svi.step(*record.args)
        found = {prefix + name: value.detach() for name, value in guide.state_dict().items()}
        pyro.clear_param_store()
        return found

    return after, by_pyro


def largest_difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Relative to the size of each tensor."""
    shared = [name for name in expected if name in found]
    assert shared
    return max(
        float((found[n] - expected[n]).abs().max() / expected[n].abs().max().clamp(min=1e-3))
        for n in shared
    )


@some(KNOWN)
def test_eager_steps_are_those_of_svi(record: PlainProgram) -> None:
    eager, by_pyro = trained(record, "eager")
    assert largest_difference(eager, by_pyro()) < 1e-10


@some(KNOWN)
def test_traced_steps_are_those_of_svi(record: PlainProgram) -> None:
    with expected_warning(record):
        traced, by_pyro = trained(record, "traced")
    assert largest_difference(traced, by_pyro()) < 1e-10


def test_steps_of_another_seed_are_found_out() -> None:
    record = named("reducing")
    eager, by_pyro = trained(record, "eager")
    expected = by_pyro()
    shifted = {name: value + 1e-8 for name, value in expected.items()}
    assert largest_difference(eager, shifted) > 1e-10


# A guide on trial


@some(KNOWN, BRIEFEST)
@pytest.mark.filterwarnings("ignore:HMC. trajectories:UserWarning")
def test_compare_takes_the_tuple_of_all_arguments(record: PlainProgram) -> None:
    trial = evaluation.compare(
        fitted(record), record.args, num_chains=8, num_samples=200, num_warmup=200,
        num_importance_samples=200, num_temperatures=20, max_steps=50, num_simulations=20,
        num_replications=20, seed=1,
    )  # fmt: skip
    verdict = trial.verdict()
    assert verdict
    assert all(isinstance(sentence, str) and sentence.endswith(".") for sentence in verdict)
    if trial.judged.all():
        means, _ = worst_errors(trial.draws.samples, record.truth())
        assert means < STANDARD_ERRORS
    else:
        assert "cannot be judged" in verdict[0]


def test_compare_takes_a_tensor_as_before() -> None:
    record = named("pPCA by hand")
    trial = evaluation.compare(
        fitted(record), record.args[0], num_chains=8, num_samples=200, num_warmup=200,
        num_importance_samples=200, num_temperatures=20, max_steps=50, num_simulations=20,
        num_replications=20, seed=1,
    )  # fmt: skip
    assert len(trial.khat) == 3
    assert trial.verdict()


# What has to be refused


@pytest.mark.parametrize(
    ("record", "function"), REFUSED, ids=[f"{p.name}: {function}" for p, function in REFUSED]
)
def test_what_cannot_be_evaluated_is_refused_with_the_reason(
    record: PlainProgram, function: str
) -> None:
    model = record.model
    run: Callable[..., Any] = getattr(inference, function)
    if function == "hmc":
        run = functools.partial(run, num_chains=4, num_samples=5, num_warmup=5)
    elif function == "ais_evidence":
        run = functools.partial(run, num_chains=4, num_temperatures=5)
    else:
        program = inference.Program(model, record.guide(model))
        run = functools.partial(run, num_samples=10)
        with pytest.raises(ValueError, match=record.refused):
            run(program.model, program.guide, *record.args)
        return
    with pytest.raises(ValueError, match=record.refused):
        run(model, *record.args)
