"""Discrete latents summed out, against brute force; and programs that would sum something else."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyro
import pytest
import torch
from discrete_programs import LENGTHS, SEQUENCES, X, local, markov, two_means
from pyro import distributions as dist
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

from aevb import inference
from aevb.inference import EnumeratedELBO
from aevb.inference.programs import assignments, joint, named_dims
from aevb.inference.programs.guide_checks import sites
from aevb.inference.programs.joint import Joint
from aevb.inference.svi import enumeration

Y = torch.tensor([[0.3, -1.0], [1.2, 0.4], [-0.7, 0.9]], dtype=torch.float64)
K = torch.tensor(1.4, dtype=torch.float64)
HALF = torch.tensor(0.3, dtype=torch.float64)
LINE = torch.arange(4, dtype=torch.float64)

Expression = Callable[[Tensor], Any]


def coins(expression: Expression) -> Callable[[Tensor], None]:
    """A count of four coins, or whatever of them is observed."""

    def model(k: Tensor) -> None:
        s = pyro.sample("s", dist.Gamma(2.0, torch.ones_like(k)))
        with pyro.plate("coins", 4):
            c = pyro.sample("c", dist.Bernoulli(HALF))
        pyro.sample("k", dist.Normal(expression(c), s), obs=k)

    return model


def scale_alone(k: Tensor) -> None:
    pyro.sample("s", dist.LogNormal(torch.full_like(k, 0.3), 0.8))


def by_brute_force(model: Callable[..., Any], args: Any, values: dict[str, Tensor]) -> Tensor:
    """Log of the sum over all values of the discrete latents, by as many plain runs."""
    with torch.no_grad():
        plain = poutine.trace(poutine.condition(model, data=values)).get_trace(*args)
        discrete = {name: site for name, site in sites(plain) if not site["is_observed"]}
        kept = {  # of a masked latent one value, since they sum to one
            name: torch.ones(site["value"].shape, dtype=torch.bool)
            if site["mask"] is None
            else torch.as_tensor(site["mask"]).expand(site["value"].shape)
            for name, site in discrete.items()
        }
        spaces = [
            itertools.product(
                range(len(site["fn"].enumerate_support(expand=False))),
                repeat=int(kept[name].sum()),
            )
            for name, site in discrete.items()
        ]
        terms = []
        for combination in itertools.product(*map(list, spaces)):
            chosen = {}
            for (name, site), places in zip(discrete.items(), combination, strict=True):
                value = torch.zeros_like(site["value"])
                value[kept[name]] = torch.tensor(places, dtype=value.dtype)
                chosen[name] = value
            run = poutine.condition(model, data={**values, **chosen})
            terms.append(poutine.trace(run).get_trace(*args).log_prob_sum())
    return torch.stack([torch.as_tensor(term) for term in terms]).logsumexp(0)


def as_elements(x: Tensor) -> None:
    """A switch of rows, cells that depend on it in an inner plate, and a switch of all."""
    w = pyro.sample("w", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
    every = pyro.sample("every", dist.Categorical(torch.tensor([0.2, 0.3, 0.5]).to(x)))
    columns = pyro.plate("columns", 2, dim=-1)
    with pyro.plate("rows", len(x), dim=-2):
        row = pyro.sample("row", dist.Bernoulli(HALF))
        with columns:
            cell = pyro.sample("cell", dist.Bernoulli(0.2 + 0.5 * row))
            pyro.sample("x", dist.Normal(w * cell + row - 0.3 * every, 0.7), obs=x)


def of_one_element(x: Tensor) -> None:
    """A sum over a plate of one is its element; one over an event is of the event."""
    w = pyro.sample("w", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
    with pyro.plate("one", 1):
        c = pyro.sample("c", dist.Bernoulli(HALF))
    k = pyro.sample("k", dist.Categorical(torch.ones(3).to(x) / 3))
    both = torch.arange(6.0).reshape(3, 2).to(x)[k].sum(-1)
    with pyro.plate("rows", len(x), dim=-2), pyro.plate("columns", 2, dim=-1):
        pyro.sample("x", dist.Normal(w * c.sum(-1, keepdim=True) + both, 2.0), obs=x)


def over_a_loop(k: Tensor) -> None:
    """The remedy: coins that are sites of their own."""
    s = pyro.sample("s", dist.Gamma(2.0, torch.ones_like(k)))
    total: Any = 0.0
    for i in pyro.plate("coins", 4):
        total = total + pyro.sample(f"c_{i}", dist.Bernoulli(HALF))
    pyro.sample("k", dist.Normal(total, s), obs=k)


def markov_and_more(sequences: Tensor, lengths: Tensor) -> None:
    pyro.sample("unrelated", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
    markov(sequences[:2, :3], lengths[:2])


RIGHT: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "elements": (as_elements, (Y[:2],)),
    "one": (of_one_element, (Y,)),
    "loop": (over_a_loop, (K,)),
    "two means": (two_means, (X,)),
    "a latent that depends": (local, (X[:4],)),
    "chain": (markov_and_more, (SEQUENCES, LENGTHS - 1)),
    "of each coin": (coins(lambda c: torch.tensor(0.5).to(K)), (K,)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_programs_are_their_sum_over_all_assignments(name: str) -> None:
    model, args = RIGHT[name]
    joint = Joint(model, *args)
    latents = joint.prior_draws(2)
    found = joint.log_joint(latents).sum(-1)
    for number, total in enumerate(found):
        natural = joint._natural(latents)
        values = {site: value[number] for site, value in natural.items()}
        torch.testing.assert_close(
            total, by_brute_force(model, args, values).double(), rtol=1e-6, atol=1e-6
        )


REDUCED: dict[str, Expression] = {
    "sum": lambda c: c.sum(),
    "mean": lambda c: c.mean(),
    "maximum": lambda c: c.max(),
    "product": lambda c: c.prod(),
    "weighted": lambda c: (c * LINE).sum(),
    "of the first dimension": lambda c: c.sum(0).sum(),
    "kept": lambda c: c.sum(-1, keepdim=True),
    "two": lambda c: c[0] + c[1],
    "one": lambda c: c[-1],
    "equal neighbours": lambda c: (c[1:] == c[:-1]).sum().to(K),
    "deterministic": lambda c: pyro.deterministic("total", c.sum()),
}


def guide_without_c(model: Callable[..., Any]) -> AutoNormal:
    return AutoNormal(poutine.block(model, hide=["c"]))


@contextmanager
def unchecked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        for module in (joint, enumeration):
            patch.setattr(module, "refuse_other_factors", lambda *_: None)
        yield


@pytest.mark.parametrize("name", REDUCED)
def test_reductions_over_a_plate_are_refused_with_site_latent_plate_and_remedy(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = coins(REDUCED[name])
    message = (
        "model: site 'k' has another log-probability.*discrete 'c'.*plate 'coins' of 4.*"
        "element by element.*loop.*let the guide draw 'c'"
    )
    with pytest.raises(ValueError, match=message):
        inference.importance_evidence(model, scale_alone, K, num_samples=10)
    program = inference.Program(model, guide_without_c(model))
    with pytest.raises(ValueError, match=message):
        inference.fit(program, (K,), objective=EnumeratedELBO(), steps=1, progress=False)
    s = torch.ones((), dtype=torch.float64)
    exact = by_brute_force(model, (K,), {"s": s})
    with unchecked(monkeypatch), suppress(ValueError):  # and rightly so
        found = Joint(model, K).log_joint({"s": s.reshape(1, 1)})
        assert abs(float(found - exact)) > 0.01


def test_everything_that_sums_out_refuses() -> None:
    model = coins(REDUCED["sum"])
    program = inference.Program(model, guide_without_c(model))
    program.guide(K)
    settings: dict[str, Any] = {"num_chains": 2, "seed": 1}
    ways: list[Callable[[], Any]] = [
        lambda: inference.hmc(model, K, num_samples=2, num_warmup=2, **settings),
        lambda: inference.ais_evidence(model, K, num_temperatures=3, **settings),
        lambda: inference.posterior(program, K),
        lambda: inference.mean_elbo(program, (K,), batch_size=None),
        lambda: inference.compiled_step(program, torch.optim.Adam, EnumeratedELBO(), K),
    ]
    for way in ways:
        with pytest.raises(ValueError, match=r"site 'k'.*plate 'coins' of 4"):
            way()


def test_a_guide_that_draws_the_coins_or_a_loop_over_them_finds_the_evidence() -> None:
    def drawing(k: Tensor) -> None:
        scale_alone(k)
        with pyro.plate("coins", 4):
            pyro.sample("c", dist.Bernoulli(torch.full_like(k, 0.4)))

    s = torch.linspace(1e-3, 60.0, 30001, dtype=torch.float64)
    weight = dist.Binomial(4, HALF).log_prob(LINE.new_tensor(range(5)))
    normal = dist.Normal(torch.arange(5.0).double().unsqueeze(-1), s).log_prob(K)
    density = (weight.unsqueeze(-1) + normal).logsumexp(0) + dist.Gamma(2.0, 1.0).log_prob(s)
    exact = torch.trapezoid(density.exp(), s).log()
    for model, guide in ((coins(REDUCED["sum"]), drawing), (over_a_loop, scale_alone)):
        found = inference.importance_evidence(model, guide, K, num_samples=8000, seed=1)
        error = (found.log_evidence - exact) / found.standard_error
        assert float(error.abs()) < 5
    assert abs(float(exact) + 1.323) > 0.2  # of the sum over a dimension of size 1


COVARIATES = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def spike_and_slab(mean: Callable[[Tensor], Tensor]) -> Callable[[Tensor], None]:
    def model(y: Tensor) -> None:
        with pyro.plate("coefficients", 3):
            b = pyro.sample("b", dist.Normal(torch.zeros((), dtype=y.dtype), 1.0))
            g = pyro.sample("g", dist.Bernoulli(HALF))
        with pyro.plate("data", 5):
            pyro.sample("y", dist.Normal(mean(g * b), 0.5), obs=y)

    return model


def test_matrix_products_over_a_plate_are_refused_where_torch_has_an_error_or_none() -> None:
    forms: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
        "silent": (lambda w: w @ COVARIATES.T, "site 'y' has another.*'coefficients' of 3"),
        "left": (lambda w: COVARIATES @ w, r"\['g'\] have all their values at once \(RuntimeErr"),
        "mv": (lambda w: torch.mv(COVARIATES, w), r"at once \(RuntimeError.*single ones"),
        "dot": (lambda w: torch.dot(w, COVARIATES[0]), r"at once \(RuntimeError.*single ones"),
    }
    y = COVARIATES[:, 0] * 2
    for mean, message in forms.values():
        model = spike_and_slab(mean)
        with pytest.raises(ValueError, match=message):
            inference.hmc(model, y, num_chains=2, num_samples=2, num_warmup=2)
        program = inference.Program(model, AutoNormal(poutine.block(model, hide=["g"])))
        with pytest.raises(ValueError, match=message):
            inference.fit(program, (y,), objective=EnumeratedELBO(), steps=1, progress=False)


def test_errors_of_the_program_itself_stay_as_they_are() -> None:
    def model(k: Tensor) -> None:
        s = pyro.sample("s", dist.Gamma(2.0, torch.ones_like(k)))
        c = pyro.sample("c", dist.Bernoulli(HALF))
        pyro.sample("k", dist.Normal(torch.dot(c, s), 1.0), obs=k)

    with pytest.raises(RuntimeError, match="1D tensors expected"):
        Joint(model, K, guide=scale_alone)


@pytest.mark.parametrize("kind", ["parallel", "sequential", None])
def test_discrete_latents_that_the_guide_enumerates(kind: str | None) -> None:
    def pair(expression: Expression, size: int) -> tuple[inference.Program, Tensor]:
        def model(x: Tensor) -> None:
            with pyro.plate("coins", 4):
                c = pyro.sample("c", dist.Bernoulli(HALF))
                if size:
                    pyro.sample("x", dist.Normal(expression(c), 1.0), obs=x)
            if not size:
                pyro.sample("x", dist.Normal(expression(c), 1.0), obs=x)

        def guide(x: Tensor) -> None:
            del x
            with pyro.plate("coins", 4):
                probs = pyro.param("probs", lambda: torch.full((4,), 0.4, dtype=torch.float64))
                pyro.sample("c", dist.Bernoulli(probs), infer={"enumerate": kind} if kind else {})

        return inference.Program(model, guide), LINE[:size] if size else K

    def fitted(expression: Expression, size: int) -> int:
        program, x = pair(expression, size)
        run = inference.fit(
            program, (x,), objective=EnumeratedELBO(), steps=2, progress=False, compile="eager"
        )
        return run.step

    assert fitted(lambda c: 2 * c, 4) == 2
    if kind is None:  # it is drawn, and a sum over a draw is one
        assert fitted(lambda c: c.sum(), 0) == 2
        return
    for wrong, size in ((REDUCED["sum"], 0), (lambda c: c + c.roll(1, -1), 4)):
        with pytest.raises(ValueError, match=r"site 'x'.*out of the guide, which then draws 'c'"):
            fitted(wrong, size)


def test_a_guide_whose_draws_depend_on_what_it_enumerates() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(HALF))
            z = pyro.sample("z", dist.Normal(c, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guided(shift: Expression) -> inference.Program:
        def guide(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                probs = pyro.param("probs", lambda: torch.full((5,), 0.4, dtype=torch.float64))
                c = pyro.sample("c", dist.Bernoulli(probs), infer={"enumerate": "parallel"})
                pyro.sample("z", dist.Normal(x / 2 + shift(c), 1.0))

        return inference.Program(model, guide)

    settings: dict[str, Any] = {
        "objective": EnumeratedELBO(), "steps": 1, "progress": False, "compile": "eager",
    }  # fmt: skip
    assert inference.fit(guided(lambda c: c), (X,), **settings).step == 1
    with pytest.raises(ValueError, match="guide: site 'z' has another.*'c'.*plate 'data' of 5"):
        inference.fit(guided(lambda c: c - c.mean(-1, True)), (X,), **settings)


def test_particles_side_by_side_are_compared_as_they_lie() -> None:
    def of(expression: Expression) -> Callable[[Tensor], None]:
        def model(x: Tensor) -> None:
            loc = pyro.sample("loc", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
            with pyro.plate("data", len(x)):
                c = pyro.sample("c", dist.Bernoulli(HALF))
                pyro.sample("x", dist.Normal(loc + expression(c), 1.0), obs=x)

        return model

    objective = EnumeratedELBO(3, vectorize_particles=True)
    for expression, is_right in ((lambda c: c, True), (lambda c: c - c.mean(-1, True), False)):
        program = inference.Program(of(expression), guide_without_c(of(expression)))
        if is_right:
            assert inference.fit(program, (X,), objective=objective, steps=1).step == 1
            continue
        with pytest.raises(ValueError, match="site 'x' has another.*plate 'data' of 5"):
            inference.fit(program, (X,), objective=objective, steps=1)


def test_sums_over_all_dimensions_take_the_values_of_a_latent_without_a_plate() -> None:
    table = torch.arange(15.0, dtype=torch.float64).reshape(3, 5)

    def of(total: Callable[[Tensor], Tensor]) -> Callable[[Tensor], None]:
        def model(k: Tensor) -> None:
            s = pyro.sample("s", dist.Gamma(2.0, torch.ones_like(k)))
            c = pyro.sample("c", dist.Categorical(torch.ones(3).to(k) / 3))
            pyro.sample("k", dist.Normal(total(table[c]), s), obs=k)

        return model

    assert Joint(of(lambda row: row.sum(-1)), K).way
    message = "site 'k' has another.*sum, index or reshape over all dimensions.*'c'"
    with pytest.raises(ValueError, match=message):
        _ = Joint(of(lambda row: row.sum()), K).way


def test_one_assignment_of_equal_values_would_not_find_a_product(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Broken twin: values that are all the first."""

    def first(self: Any, number: int, device: Any) -> named_dims.Named:
        del number
        sizes = list(self.plates.values())
        return named_dims.Named(
            torch.zeros(sizes, dtype=torch.long, device=device), (*self.plates,)
        )

    model = coins(REDUCED["product"])
    with pytest.raises(ValueError, match="site 'k'"):
        _ = Joint(model, K).way
    monkeypatch.setattr(assignments._Choice, "drawn", first)
    assert Joint(model, K).way


def test_noise_that_is_no_site_is_not_taken_for_a_reduction() -> None:
    def model(x: Tensor) -> None:
        loc = pyro.sample("loc", dist.Normal(torch.zeros((), dtype=x.dtype), 1.0))
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(HALF))
            pyro.sample("x", dist.Normal(loc + c + torch.rand(()), 1.0), obs=x)

    with pytest.raises(ValueError, match="another at each call"):
        _ = Joint(model, X).way


def test_data_of_another_precision_than_the_model_have_a_message() -> None:
    def model(x: Tensor) -> None:
        locs = pyro.sample("locs", dist.Normal(torch.zeros(2), 3.0).to_event(1))
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Bernoulli(torch.tensor(0.3)))
            pyro.sample("x", dist.Normal(locs[c.long()], 1.0), obs=x)

    program = inference.Program(model, guide_without_c(model))
    message = r"float32 at \['locs', 'c'\] and float64 at \['x'\].*x.float\(\)"
    with pytest.raises(ValueError, match=message):
        inference.fit(program, (X,), objective=EnumeratedELBO(), steps=1)
    assert inference.fit(program, (X.float(),), objective=EnumeratedELBO(), steps=1).step == 1


def test_parameters_made_of_integer_data_are_named_as_such() -> None:
    def model(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(torch.zeros_like(x[0]), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Poisson(z.exp()), obs=x)

    def guide(x: Tensor) -> None:
        loc = pyro.param("loc", lambda: torch.zeros(()))
        pyro.sample("z", dist.Normal(loc, torch.ones_like(x[0])))
        pyro.sample("w", dist.Normal(torch.zeros_like(x[0]), 1.0))

    counts = torch.tensor([1, 2, 3])
    with pytest.raises(ValueError, match=r"'z' \(Normal\) has integer parameters.*dtype=torch"):
        inference.hmc(model, counts, num_chains=2, num_samples=2, num_warmup=2)
    with pytest.raises(ValueError, match=r"'w' \(Normal\) has integer parameters"):
        inference.fit(inference.Program(model, guide), (counts,), steps=1)
    with pytest.raises(ValueError, match="a site has integer parameters"):
        inference.fit(inference.Program(model, AutoNormal(model)), (counts,), steps=1)
