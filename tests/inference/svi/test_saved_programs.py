"""Programs saved and loaded: fresh ones, foreign ones and broken files."""

from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.distributions import constraints

from aevb import inference, models
from aevb.inference.programs.program import Program

X = torch.linspace(-1.0, 2.0, 40).unsqueeze(-1) * torch.tensor([1.0, -0.5])


def regression(x: Tensor) -> None:
    noise = pyro.param("noise", torch.tensor(1.0), constraint=constraints.positive)
    weight = pyro.sample("weight", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(weight[0] + weight[1] * x[:, 0], noise), obs=x[:, 1])


def by_hand(x: Tensor) -> None:
    del x
    loc = pyro.param("loc", lambda: torch.randn(3))
    scale = pyro.param("scale.of.it", torch.ones(3), constraint=constraints.positive)
    pyro.sample("weight", dist.Normal(loc, scale).to_event(1))


class Lazy(PyroModule):
    """A module whose parameters are made by its first call, and a network beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.network = PyroModule[nn.Linear](2, 2)
        self.register_buffer("offset", torch.zeros(2))

    def forward(self, x: Tensor) -> None:
        if not hasattr(self, "scale"):
            self.scale = PyroParam(torch.ones(2), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            loc = self.network(z) + self.offset
            pyro.sample("x", dist.Normal(loc, self.scale).to_event(1), obs=x)


MAKERS: dict[str, Any] = {
    "params": lambda: Program(regression, by_hand),
    "AutoNormal": lambda: Program(regression, AutoNormal(regression)),
    "AutoMultivariateNormal": lambda: Program(regression, AutoMultivariateNormal(regression)),
    "PyroModule": lambda: (lambda m: Program(m, AutoNormal(m)))(Lazy()),
    "VAE": lambda: models.VAE((2,), 2, [4], likelihood=models.Normal()),
    "LatentWeights": lambda: models.VAE(
        (2,), 2, [4], likelihood=models.Normal(), weights=models.LatentWeights()
    ),
}


def trained(name: str, steps: int = 20) -> Any:
    torch.manual_seed(1)
    return inference.fit(MAKERS[name](), X, steps=steps, learning_rate=0.05).program


def drawn(program: Any) -> dict[str, Tensor]:
    """What one run of the guide, and of the model given it, would show."""
    torch.manual_seed(7)
    guide = pyro.poutine.trace(program.guide).get_trace(X)
    model = pyro.poutine.trace(pyro.poutine.replay(program.model, trace=guide)).get_trace(X)
    sites = {**guide.nodes, **model.nodes}
    found = {n: s["value"].detach() for n, s in sites.items() if s["type"] == "sample"}
    return found | {"log_prob": model.log_prob_sum().detach()}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("at_once", [False, True])
def test_a_fresh_program_is_the_trained_one(name: str, at_once: bool, tmp_path: Path) -> None:
    program = trained(name)
    inference.save(program, tmp_path / "weights.safetensors")
    torch.manual_seed(2)
    fresh = MAKERS[name]()
    loaded = inference.load(fresh, tmp_path / "weights.safetensors", *([X] if at_once else []))
    assert loaded is fresh
    for key, value in drawn(program).items():
        assert torch.equal(drawn(loaded)[key], value), key
    assert loaded.state_dict().keys() == program.state_dict().keys()
    assert not loaded.training


def test_without_the_file_a_fresh_program_is_another() -> None:
    program, fresh = trained("AutoNormal"), MAKERS["AutoNormal"]()
    assert not torch.equal(drawn(fresh)["log_prob"], drawn(program)["log_prob"])


def test_the_first_call_may_be_traced_and_leaves_the_random_state(tmp_path: Path) -> None:
    program = trained("AutoNormal")
    inference.save(program, tmp_path / "w")
    loaded = inference.load(MAKERS["AutoNormal"](), tmp_path / "w")
    torch.manual_seed(3)
    first = pyro.poutine.trace(loaded.guide).get_trace(X).nodes["weight"]["value"]
    torch.manual_seed(3)
    assert torch.equal(
        pyro.poutine.trace(program.guide).get_trace(X).nodes["weight"]["value"], first
    )


@pytest.mark.parametrize("name", ["params", "AutoNormal", "PyroModule"])
def test_training_goes_on_from_what_was_loaded(name: str, tmp_path: Path) -> None:
    program = trained(name)
    inference.save(program, tmp_path / "w")
    loaded = inference.load(MAKERS[name](), tmp_path / "w")
    again = [
        inference.fit(p, X, steps=3, learning_rate=0.01).history[-1]["train_objective"]
        for p in (program, loaded)
    ]
    assert again[0] == again[1]


def test_evidence_of_a_loaded_program_is_that_of_the_trained_one(tmp_path: Path) -> None:
    program = trained("params", steps=200)
    inference.save(program, tmp_path / "w")
    loaded = inference.load(MAKERS["params"](), tmp_path / "w")
    first, second = (
        inference.importance_evidence(p.model, p.guide, X, num_samples=200).log_evidence
        for p in (program, loaded)
    )
    assert torch.equal(first, second)


# What does not fit


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    inference.save(trained("VAE"), tmp_path / "w")
    with pytest.raises(ValueError, match="holds the weights of another program, a VAE"):
        inference.load(models.VAE((2,), 3, [4], likelihood=models.Normal()), tmp_path / "w")
    with pytest.raises(ValueError, match="holds the weights of another program"):
        inference.load(MAKERS["AutoNormal"](), tmp_path / "w", X)


def test_what_no_call_creates_is_refused_at_the_call(tmp_path: Path) -> None:
    inference.save(trained("AutoNormal"), tmp_path / "w")
    loaded = inference.load(Program(regression, by_hand), tmp_path / "w")
    with pytest.raises(RuntimeError, match="loaded, but this program has no such parameters"):
        drawn(loaded)
    inference.save(trained("params"), tmp_path / "w")
    loaded = inference.load(MAKERS["AutoNormal"](), tmp_path / "w")
    with pytest.raises(RuntimeError, match=r"no such parameters: \['param_sites.site/loc"):
        drawn(loaded)


def test_another_shape_is_refused_at_the_call(tmp_path: Path) -> None:
    def wide(x: Tensor) -> None:
        del x
        loc = pyro.param("loc", torch.zeros(5))
        scale = pyro.param("scale.of.it", torch.ones(5), constraint=constraints.positive)
        pyro.sample("weight", dist.Normal(loc, scale).to_event(1))

    inference.save(trained("params"), tmp_path / "w")
    loaded = inference.load(Program(regression, wide), tmp_path / "w")
    with pytest.raises(RuntimeError, match=r"loc: expected shape \(5,\).*loaded was \(3,\)"):
        loaded.guide(X)


def test_what_awaits_its_first_call_is_not_saved(tmp_path: Path) -> None:
    inference.save(trained("AutoNormal"), tmp_path / "w")
    loaded = inference.load(MAKERS["AutoNormal"](), tmp_path / "w")
    with pytest.raises(ValueError, match="was loaded and not called since"):
        inference.save(loaded, tmp_path / "again")
    with pytest.raises(ValueError, match="has no parameters yet"):
        inference.save(MAKERS["params"](), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_broken_files_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "w"
    inference.save(trained("params"), path)
    whole = path.read_bytes()
    for number, content in enumerate(
        [b"", whole[:9], whole[:-3], whole[: len(whole) // 2], b"\xff" * 80, b"{}" + whole[2:]]
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="truncated or corrupt") as caught:
            inference.load(MAKERS["params"](), path)
        assert "\n" not in str(caught.value), number
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        inference.load(MAKERS["params"](), tmp_path / "none")
    inference.save_checkpoint(path, {"weights": {}, "epoch": 3})
    with pytest.raises(ValueError, match="is no saved program"):
        inference.load(MAKERS["params"](), path)


def test_a_crash_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, program = tmp_path / "w", trained("params")
    inference.save(program, path)
    before = path.read_bytes()

    def crash(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("aevb.inference.svi.checkpoint.save_file", crash)
    with pytest.raises(KeyboardInterrupt):
        inference.save(trained("params", steps=5), path)
    assert path.read_bytes() == before
