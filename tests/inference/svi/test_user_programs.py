"""Parameters of a user's own programs, however Pyro lets them be made."""

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.distributions import constraints
from pyro.infer import autoguide
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn

from aevb import data
from aevb.inference import Program, fit

from small_trainings import BATCH, ROWS, differences, location, location_model, small_vae, train


def with_modules() -> Program:
    """Networks in closures, announced by ``pyro.module``."""
    decoder, encoder = nn.Linear(2, 3), nn.Linear(3, 2)

    def model(x: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 1.0).to_event(1))

    return Program(model, guide)


class Decoder(PyroModule):
    """A model as a PyroModule."""

    def __init__(self) -> None:
        super().__init__()
        self.linear: Any = PyroModule[nn.Linear](2, 3)  # type: ignore[call-arg, arg-type]
        self.scale: Any = PyroParam(torch.ones(3), constraints.positive)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.linear(z), self.scale).to_event(1), obs=x)


class Encoder(PyroModule):
    """A guide as a PyroModule."""

    def __init__(self) -> None:
        super().__init__()
        self.linear: Any = PyroModule[nn.Linear](3, 2)  # type: ignore[call-arg, arg-type]
        self.scale: Any = PyroParam(torch.ones(2), constraints.positive)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.linear(x), self.scale).to_event(1))


PROGRAMS: dict[str, Callable[[], Program]] = {
    "pyro.param": location,
    "pyro.module": with_modules,
    "PyroModule": lambda: Program(Decoder(), Encoder()),
    "AutoNormal": lambda: Program(location_model, autoguide.AutoNormal(location_model)),
    "AutoMultivariateNormal": lambda: Program(
        location_model, autoguide.AutoMultivariateNormal(location_model)
    ),
}


# loc 3 and scale 3; 2·3+3 and 3·2+2; these and a scale of 3 and of 2; loc, scale and tril 3×3
NUMBERS = {
    "pyro.param": 6,
    "pyro.module": 17,
    "PyroModule": 22,
    "AutoNormal": 6,
    "AutoMultivariateNormal": 15,
}


# Programs of a user


@pytest.mark.parametrize("kind", list(PROGRAMS))
def test_parameters_of_a_program_are_trained(kind: str) -> None:
    program = PROGRAMS[kind]()
    program.guide(ROWS)
    program.model(ROWS)
    before = {name: parameter.detach().clone() for name, parameter in program.named_parameters()}
    fit(program, ROWS, steps=3, device="cpu")
    after = dict(program.named_parameters())
    assert set(before) == set(after)
    assert not [name for name in before if torch.equal(before[name], after[name])]


@pytest.mark.parametrize("kind", list(PROGRAMS))
def test_parameters_of_a_program_are_found_once(kind: str) -> None:
    program = PROGRAMS[kind]()
    fit(program, ROWS, steps=1, device="cpu")
    assert sum(parameter.numel() for parameter in program.parameters()) == NUMBERS[kind]


@pytest.mark.parametrize("kind", list(PROGRAMS))
def test_training_leaves_the_global_store_empty(kind: str) -> None:
    fit(PROGRAMS[kind](), ROWS, steps=2, device="cpu")
    assert not list(pyro.get_param_store().keys())


@pytest.mark.parametrize("kind", list(PROGRAMS))
def test_programs_of_the_same_names_do_not_share_weights(kind: str) -> None:
    first, second = PROGRAMS[kind](), PROGRAMS[kind]()
    fit(first, ROWS, steps=1, device="cpu")
    fit(second, ROWS, steps=1, device="cpu")
    before = {name: value.clone() for name, value in second.state_dict().items()}
    fit(first, ROWS, steps=5, device="cpu")
    assert differences(before, dict(second.state_dict())) == []
    assert differences(dict(first.state_dict()), before) != []


@pytest.mark.parametrize("name", ["values", "a.b", "x y", "loc"])
def test_parameter_may_have_any_name(name: str) -> None:
    def guide(x: Tensor) -> None:
        pyro.sample("location", dist.Normal(pyro.param(name, torch.zeros(3)), 1.0).to_event(1))

    run = fit(Program(location_model, guide), ROWS, steps=2, device="cpu")
    assert [parameter.shape for parameter in run.program.parameters()] == [(3,)]


def test_constrained_parameter_stays_in_its_domain() -> None:
    program = location()
    fit(program, ROWS, steps=50, learning_rate=1.0, device="cpu")
    constrained = program.own_parameter("scale", None, constraints.positive)
    unconstrained = program.param_sites["site/scale"]
    assert constrained is not None
    assert bool((constrained > 0).all())
    assert bool((unconstrained < 0).any())


def test_parameter_of_the_global_store_is_refused() -> None:
    def guide(x: Tensor) -> None:
        pyro.sample("location", dist.Normal(pyro.param("loc"), 1.0).to_event(1))

    pyro.param("loc", torch.zeros(3))
    try:
        with pytest.raises(ValueError, match="parameter 'loc' belongs to Pyro's global store"):
            fit(Program(location_model, guide), ROWS, steps=1, device="cpu")
    finally:
        pyro.clear_param_store()


def test_program_without_trainable_parameters_is_refused() -> None:
    def guide(x: Tensor) -> None:
        pyro.sample("location", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    with pytest.raises(ValueError, match="program: has no trainable parameters"):
        fit(Program(location_model, guide), ROWS, steps=1, device="cpu")


def test_frozen_parameters_stay_as_they_are(digits: data.Dataset) -> None:
    vae = small_vae()
    vae.decoder[0].requires_grad_(False)
    before = {name: value.clone() for name, value in vae.decoder[0].state_dict().items()}
    train(digits, 1, program=vae, weight_prior_scale=1.0)
    assert differences(before, dict(vae.decoder[0].state_dict())) == []


def test_data_outside_the_support_are_refused_before_any_step(digits: data.Dataset) -> None:
    vae = small_vae()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    with pytest.raises(ValueError, match=r"Bernoulli needs values in \{0, 1\}"):
        fit(vae, data.load("digits").train, epochs=1, batch_size=BATCH, device="cpu")
    assert differences(before, dict(vae.state_dict())) == []


def test_validation_data_outside_the_support_are_refused(digits: data.Dataset) -> None:
    with pytest.raises(ValueError, match=r"Bernoulli needs values in \{0, 1\}"):
        train(digits, 1, validation=data.load("digits").validation)
