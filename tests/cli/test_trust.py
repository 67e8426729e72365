"""What a run folder from anywhere can do: nothing but be evaluated."""

import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from safetensors.torch import save_file

from aevb.cli import main, trust
from aevb.cli.configurations import NEEDED
from aevb.cli.families import FLAGS
from aevb.cli.parts import members
from aevb.cli.trust import TrustError, _Remembered, read_config

BRIEF = "--model.hidden [4] --batch_size 600 --epochs 1 --num_samples 2 --limit 5 --device cpu"
MARKER = "executed"
TOUCH = f"touch {MARKER}"

# A module whose import is the attack, and which would go on to be a fine part.
EVIL = f"""
from dataclasses import dataclass
from pathlib import Path
from aevb.models import StandardNormal
from torch import nn
Path({MARKER!r}).touch()

@dataclass(frozen=True)
class Flat(StandardNormal):
    scale: float = 1.0

class Act(nn.Tanh):
    pass
"""
MINE = EVIL.replace(f"Path({MARKER!r}).touch()", "import os")


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder with an empty memory, and forget paths and modules."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AEVB_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield
    for name in ("evil_of_trust", "mine_of_trust", "help_of_trust"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module", name="finished")
def fixture_finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", *BRIEF.split(), "--out", str(folder)]) == 0
    return folder


@pytest.fixture(name="run")
def fixture_run(finished: Path) -> Path:
    return Path(shutil.copytree(finished, "run"))


@pytest.fixture(name="aevb")
def fixture_aevb(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def call(*words: object) -> tuple[int, str]:
        capfd.readouterr()
        return main([str(word) for word in words]), capfd.readouterr().err

    return call


def change(run: Path, changes: dict[str, Any]) -> None:
    """Put other values into the configuration of a run."""
    path = run / "config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))


def spec(class_path: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": arguments}


def vae(**arguments: Any) -> dict[str, Any]:
    return {"model": spec("aevb.models.VAE", **arguments)}


def encoder(class_path: str, **arguments: Any) -> dict[str, Any]:
    return vae(network=spec("aevb.models.UserNetwork", encoder=spec(class_path, **arguments)))


FLAT, ACT = "evil_of_trust.Flat", "evil_of_trust.Act"
LAMBDA = spec("torch.optim.lr_scheduler.LambdaLR", lr_lambda="os.system")
# What a configuration is changed to, and what the refusal names.
ATTACKS: dict[str, tuple[dict[str, Any], str]] = {
    "model": ({"model": spec("os.system", command=TOUCH)}, "os.system"),
    "model by its name alone": ({"model": "os.system"}, "os.system"),
    "schedule": ({"schedule": spec("subprocess.getoutput", cmd=TOUCH)}, "subprocess.getoutput"),
    "argument of a schedule": ({"schedule": LAMBDA}, "os.system"),
    "part": (vae(prior={"class_path": FLAT}), FLAT),
    "part by its name alone": (vae(prior=FLAT), FLAT),
    "class": (vae(activation=ACT), ACT),
    "class within a part": (vae(likelihood=spec("aevb.models.Normal", mean=ACT)), ACT),
    "argument of a part that has no such argument": (vae(prior={"init_args": {"x": FLAT}}), FLAT),
    "key with dots": ({"model.init_args.prior.class_path": FLAT}, FLAT),
    "YAML in a string": (vae(prior=f"{{class_path: {FLAT}}}"), FLAT),
    "escaped JSON in a string": (vae(prior='{"class_path": "evil_of_trust\\u002eFlat"}'), FLAT),
    "string in a string": (vae(prior=f"{{init_args: '{{x: {{class_path: {FLAT}}}}}'}}"), FLAT),
    "keyword arguments": ({"model": {**vae()["model"], "dict_kwargs": {"prior": FLAT}}}, FLAT),
    "list": ({"model": spec("aevb.models.DLGM", network=["MLP", FLAT])}, FLAT),
    "callable": (encoder("os.system", command=TOUCH), "os.system"),
    "what one of our modules imports": ({"model": "aevb.cli.trust.sys.exit"}, "trust.sys.exit"),
    "what torch imports": (vae(activation="torch.nn.modules.module.OrderedDict"), "OrderedDict"),
    "function of torch": ({"model": "torch.nn.init.normal_"}, "torch.nn.init.normal_"),
    "class of ours that is no part": (
        {"model": "aevb.cli.runs.SavedRun"},
        "aevb.cli.runs.SavedRun",
    ),
    "class that downloads": (encoder("torchvision.datasets.MNIST", root=MARKER), "datasets.MNIST"),
    "rest of torch": ({"model": "torch.hub.load"}, "torch.hub.load"),
    "sibling by the look of it": ({"model": "torchvision_of_mine.Model"}, "torchvision_of_mine"),
    "argument of nothing": (vae(shape=[{"class_path": FLAT}]), FLAT),
    "trust": ({"trust": ["evil_of_trust"], **vae(prior=FLAT)}, "trust is for the command line"),
    "another file": ({"config": "other.yaml"}, "config is for the command line"),
}


@pytest.fixture(name="evil")
def fixture_evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module of the attacks, where Python finds it."""
    (tmp_path / "evil_of_trust.py").write_text(EVIL)
    Path("other.yaml").write_text(yaml.safe_dump(vae(prior=FLAT)))
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("evil")
@pytest.mark.parametrize("words", [["evaluate", "run"], ["train", "--resume", "run"]])
@pytest.mark.parametrize("attack", list(ATTACKS))
def test_attack_is_refused_by_name(attack: str, words: list[str], run: Path, aevb: Any) -> None:
    changes, named = ATTACKS[attack]
    change(run, changes)
    code, error = aevb(*words)
    assert code == 2
    assert not Path(MARKER).exists()
    assert named in error
    assert "--trust" in error or "command line alone" in error
    assert error.count("\n") == 1


# Of these, jsonargparse runs or imports what they name if it is let.
LIVE = ["model", "part", "class", "key with dots", "YAML in a string", "escaped JSON in a string"]
LIVE += ["part by its name alone", "class within a part", "keyword arguments", "list"]


@pytest.mark.usefixtures("evil")
@pytest.mark.parametrize("attack", LIVE)
def test_second_line_holds_alone_and_without_it_the_attack_succeeds(
    attack: str, run: Path, aevb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(run, ATTACKS[attack][0])
    with monkeypatch.context() as patch:
        patch.setattr(trust, "_names", lambda *_: iter(()))
        assert aevb("evaluate", run)[0] == 2
    assert not Path(MARKER).exists()
    monkeypatch.setattr(trust, "_problem", lambda *_: None)
    with suppress(TypeError):  # what a command returns is no model
        aevb("evaluate", run)
    assert Path(MARKER).exists()


@pytest.mark.usefixtures("evil")
def test_text_of_an_error_imports_nothing(run: Path, aevb: Any) -> None:
    change(run, {"seed": f"Option 'a' is not accepted. class_path='{FLAT}'"})
    assert aevb("evaluate", run)[0] == 2
    assert not Path(MARKER).exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"model: !!python/object/apply:os.system ['{TOUCH}']", "could not determine"),
        (f"a: &a [{'x,' * 99}]\nb: &b [{'*a,' * 99}]\nc: [{'*b,' * 99}]", "more than 10000"),
        (f"model: {'[' * 99}{']' * 99}", "more than 50 deep"),
        (f"model: {'[' * 99_999}{']' * 99_999}", "more than 50 deep"),
        ("model: &a [*a]", "more than 50 deep"),
        (f'model: "{"[" * 99_999}{"]" * 99_999}"', "more than 50 deep"),
        (f"model: {'x' * 2**18}", "bytes"),
        ("- model", "expected flags"),
        ("1:", "is no configuration"),
        ("seed: !!bool x", "is no configuration"),
        ("seed: !!timestamp x", "is no configuration"),
        ("\x00", "is no configuration"),
    ],
)
def test_file_that_is_no_configuration_is_refused(text: str, why: str, run: Path) -> None:
    (run / "config.yaml").write_text(text)
    with pytest.raises(TrustError, match=why):
        read_config(run / "config.yaml")
    assert not Path(MARKER).exists()


def test_pipe_is_not_waited_for(run: Path, aevb: Any) -> None:
    os.mkfifo("pipe.npy")
    for path in ("pipe.npy", "/dev/zero", "http://127.0.0.1:9/x.npy", "file:///etc/passwd"):
        change(run, {"data": str(Path(path).absolute()) if path == "pipe.npy" else path})
        code, error = aevb("evaluate", run)
        assert (code, "does not exist" in error) == (2, True)
    (run / "config.yaml").unlink()
    os.mkfifo(run / "config.yaml")
    for words in (["evaluate", run], ["train", "--config", run / "config.yaml"]):
        assert aevb(*words)[0] == 2


def test_pickles_in_the_data_are_not_opened(run: Path, aevb: Any) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return os.system, (TOUCH,)

    np.save("pickled.npy", np.array([Attack()] * 20, dtype=object), allow_pickle=True)
    np.savez("pickled.npz", x=np.array([Attack()] * 20, dtype=object))
    Path("plain.npy").write_bytes(pickle.dumps(Attack()))
    torch.save(Attack(), "torch.npz")
    for name in ("pickled.npy", "pickled.npz", "plain.npy", "torch.npz"):
        change(run, {"data": str(Path(name).absolute())})
        assert aevb("evaluate", run)[0] == 2
    torch.save(Attack(), run / "checkpoint.safetensors")
    change(run, {"data": "digits"})
    assert aevb("evaluate", run)[0] == 2
    assert not Path(MARKER).exists()
    np.load("pickled.npy", allow_pickle=True)
    assert Path(MARKER).exists()  # it would have


STATE = '{"dict": [["weights", 3], ["history", %s], ["counters", {"dict": [["stopped", 1]]}]]}'
TREES = ["{}", "[]", "3", "{", '{"tensor": "x"}', '{"a": 1, "b": 2}', "[" * 99_999]
TREES += ['{"dict": [["weights", 3]]}', STATE % '{"list": [3]}', STATE % "null"]


@pytest.mark.parametrize("tree", TREES)
def test_strange_checkpoint_is_one_line(tree: str, run: Path, aevb: Any) -> None:
    metadata = {"format": "aevb-checkpoint-1", "tree": tree}
    save_file({}, run / "checkpoint.safetensors", metadata=metadata)
    code, error = aevb("evaluate", run)
    assert (code, error.count("\n")) == (2, 1)
    assert "checkpoint" in error


def test_checkpoint_is_not_as_large_as_it_says(run: Path, aevb: Any) -> None:
    header = b'{"x":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    for size, rest in ((len(header), header), (2**62, header), (2**40, b"")):
        (run / "checkpoint.safetensors").write_bytes(size.to_bytes(8, "little") + rest)
        code, error = aevb("evaluate", run)
        assert (code, "corrupt checkpoint" in error) == (2, True)


@pytest.mark.parametrize("command", ["evaluate", "compare", "embed", "impute", "sample", "resume"])
def test_results_are_not_written_through_a_link(command: str, run: Path, aevb: Any) -> None:
    Path("precious").write_text("mine")
    (run / ".evidence-test-5x2-seed0.json.partial").symlink_to(Path("precious").absolute())
    words = ["train", "--resume"] if command == "resume" else [command]
    code, error = aevb(*words, run)
    assert (code, "is a symbolic link" in error) == (2, True)
    assert Path("precious").read_text() == "mine"


def test_all_parts_and_the_classes_of_torch_are_let_through() -> None:
    families = [(module, members(module, base)) for module, base in FLAGS.values()]
    names = {f"{module.__name__}.{part.__name__}" for module, parts in families for part in parts}
    names |= {f"torch.nn.{name}" for name in ("Tanh", "ReLU", "Sigmoid", "Linear", "Sequential")}
    names |= {"torchvision.models.ResNet", "torch.optim.adam.Adam"}
    assert len(names) > 80
    assert {name: problem for name in names if (problem := trust._problem(name, ()))} == {}


def test_configuration_with_every_kind_of_class_trains(aevb: Any) -> None:
    normal = spec("Normal", mean="torch.nn.Sigmoid")
    flags = {
        **vae(hidden=[4], prior="VampPrior", likelihood=normal, activation="torch.nn.ReLU"),
        "objective": spec("IWAE", num_particles=2),
        "optimizer": "torch.optim.SGD",
        "schedule": spec("StepLR", step_size=3),
        "binarize": "none",
    }
    Path("mine.yaml").write_text(yaml.safe_dump(flags))
    words = BRIEF.replace("--model.hidden [4]", "").split()
    assert aevb("train", "--config", "mine.yaml", *words, "--out", "run") == (0, "")
    assert aevb("evaluate", "run", "--num_samples", 2, "--limit", 2) == (0, "")
    assert aevb("train", "--resume", "run", "--epochs", 2) == (0, "")


def test_evaluation_builds_model_and_data_alone(
    run: Path, aevb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    instantiate = ArgumentParser.instantiate

    def spy(self: ArgumentParser, namespace: Any, **options: Any) -> Any:
        made.append(set(vars(namespace)))
        return instantiate(self, namespace, **options)

    monkeypatch.setattr(ArgumentParser, "instantiate", spy)
    assert aevb("evaluate", run, "--limit", 2, "--num_samples", 2)[0] == 0
    assert next(keys for keys in made if "model" in keys) == set(NEEDED)
    data = {"data", "data_root", "binarize", "data_kind", "table"}
    assert set(NEEDED) == {*data, "model", "seed"}


# Modules of one's own


def own() -> tuple[str, ...]:
    """Write a module of one's own, and the words that train with it."""
    Path("mine_of_trust.py").write_text("import help_of_trust\n" + MINE)
    Path("help_of_trust.py").write_text("")
    return ("train", *BRIEF.split(), "--out", "run", "--model.prior", "mine_of_trust.Flat")


def forget() -> None:
    """Become another process: one that was not told of any module."""
    for name in ("mine_of_trust", "help_of_trust"):
        sys.modules.pop(name, None)
    sys.path[:] = [path for path in sys.path if path != str(Path.cwd())]
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Remembered)]


def evaluated(aevb: Any, *words: object) -> tuple[int, str]:
    forget()
    return aevb("evaluate", "run", "--limit", 2, "--num_samples", 2, *words)


def test_run_of_ones_own_opens_until_its_files_change(aevb: Any) -> None:
    assert aevb(*own()) == (0, "")
    assert evaluated(aevb) == (0, "")
    assert sys.modules["mine_of_trust"].__file__ == str(Path("mine_of_trust.py").absolute())
    for name in ("help_of_trust.py", "mine_of_trust.py"):
        before = Path(name).read_text()
        Path(name).write_text(before + "# changed\n")
        code, error = evaluated(aevb)
        assert (code, name in error) == (2, True)
        assert "add --trust mine_of_trust" in error
        assert evaluated(aevb, "--trust=mine_of_trust") == (0, "")
        Path(name).write_text(before)
    assert evaluated(aevb) == (0, "")


@pytest.mark.parametrize("forgotten", ["configuration", "memory"])
def test_run_of_unknown_origin_needs_trust(forgotten: str, aevb: Any) -> None:
    assert aevb(*own()) == (0, "")
    if forgotten == "memory":
        shutil.rmtree("state")
    else:
        change(Path("run"), {"seed": 0, "learning_rate": 0.5})
    code, error = evaluated(aevb)
    assert (code, "names mine_of_trust.Flat" in error) == (2, True)
    assert "--trust mine_of_trust" in error
    assert evaluated(aevb, "--trust", "mine_of_trust") == (0, "")
    forget()
    again = ("train", "--config", "run/config.yaml", "--out", "again")
    code, error = aevb(*again)
    assert (code, "--trust mine_of_trust" in error) == (2, True)
    assert aevb(*again, "--trust", "mine_of_trust") == (0, "")
    assert json.loads(next(Path("state/runs").glob("*.json")).read_text())["mine_of_trust"]


@pytest.mark.parametrize("name", ["os.system", "os", "np", "partial"])
def test_trust_in_a_module_is_none_in_what_it_imports(name: str, run: Path, aevb: Any) -> None:
    own()
    change(run, {"model": f"mine_of_trust.{name}"})
    code, error = aevb("evaluate", run, "--trust", "mine_of_trust")
    assert (code, f"mine_of_trust.{name}" in error) == (2, True)


def test_working_directory_is_not_searched_unasked(run: Path, aevb: Any) -> None:
    Path("evil_of_trust.py").write_text(EVIL)
    change(run, vae(prior=FLAT))
    for words in (["evaluate", run], ["train", "--resume", run], ["sample", run]):
        assert aevb(*words)[0] == 2
        assert str(Path.cwd()) not in sys.path
    assert aevb("train", "--model.prior", FLAT, "--epochs", "0")[0] == 2  # one's own word
    assert sys.path[-1] == str(Path.cwd())
    assert Path(MARKER).exists()


@pytest.mark.parametrize("words", [["../mine.py"], [""], ["mine.py/x"], []])
def test_trust_wants_the_name_of_a_module(words: list[str], aevb: Any) -> None:
    code, error = aevb("evaluate", "run", "--trust", *words)
    assert (code, error.count("\n"), "--trust" in error) == (2, 1, True)


def test_missing_trusted_module_is_one_line(run: Path, aevb: Any) -> None:
    change(run, vae(prior="nowhere_of_trust.Flat"))
    code, error = aevb("evaluate", run, "--trust", "nowhere_of_trust")
    assert (code, error.count("\n")) == (2, 1)
    assert "run from the folder of nowhere_of_trust.py" in error
