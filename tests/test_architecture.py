"""The layering of the folders, read from their imports."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "data": {"models", "inference", "evaluation", "experiments"},
    "models": {"inference", "evaluation", "experiments"},
    "inference": {"models", "evaluation", "experiments"},
    "evaluation": {"experiments"},
}
SHELL = {
    path.stem
    for path in (ROOT / "src" / "aevb").iterdir()
    if path.suffix == ".py" or path.is_dir()
} - {"__init__", "__pycache__"}
# Rooms of `inference`, each with those that it may look into.
ROOMS: dict[str, set[str]] = {
    "process": set(),
    "graphs": {"process"},
    "programs": {"process", "graphs"},
    "svi": {"process", "graphs", "programs", "mcmc"},
    "mcmc": {"process", "graphs", "programs"},
    "evidence": {"process", "graphs", "programs", "mcmc"},
}


def imported(path: Path) -> set[str]:
    """Names of all modules that a file imports, wherever the import stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def violations(layer: str, names: set[str]) -> set[str]:
    """Imports of a layer that its place forbids."""
    forbidden = {f"aevb.{other}" for other in FORBIDDEN[layer] | SHELL}
    bare = set(FORBIDDEN)
    return {
        name
        for name in names
        if any(name == f or name.startswith(f + ".") for f in forbidden)
        or name.split(".")[0] in bare
    }


@pytest.mark.parametrize("layer", sorted(FORBIDDEN))
def test_layer_imports_only_what_lies_below_it(layer: str) -> None:
    files = sorted((ROOT / layer).rglob("*.py"))
    assert len(files) > 1
    found = {str(file): violations(layer, imported(file)) for file in files}
    assert not {file: names for file, names in found.items() if names}


def rooms_entered(names: set[str]) -> set[str]:
    """Rooms of `inference` that imports lead into."""
    inside = {name.split(".")[2] for name in names if name.startswith("aevb.inference.")}
    return inside & ROOMS.keys()


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_looks_only_into_those_below_it(room: str) -> None:
    files = sorted((ROOT / "inference" / room).glob("*.py"))
    assert len(files) > 1
    for file in files:
        names = imported(file)
        assert rooms_entered(names) <= ROOMS[room] | {room}, file
        # not by the front door, behind which is everything
        assert "aevb.inference" not in names, file


def test_every_module_of_inference_has_a_room() -> None:
    assert {path.name for path in (ROOT / "inference").glob("*.py")} == {"__init__.py"}
    assert {path.parent.name for path in (ROOT / "inference").glob("*/*.py")} == ROOMS.keys()


def test_a_step_into_a_room_above_would_be_found(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text("from aevb.inference.svi.fit import fit\n")
    assert not rooms_entered(imported(file)) <= ROOMS["programs"]


def test_a_forbidden_import_would_be_found(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text("def f():\n    from aevb.inference import fit\n    import models\n")
    assert violations("models", imported(file)) >= {"aevb.inference", "models"}


def test_the_shell_is_out_of_bounds_with_all_that_lies_in_it() -> None:
    assert {"__main__", "cli", "explore", "opening", "sklearn"} == SHELL
    assert violations("evaluation", {"aevb.cli.runs"}) == {"aevb.cli.runs"}


def test_every_command_has_a_file_of_its_name() -> None:
    from aevb.cli.commands import COMMANDS, command

    for name in COMMANDS:
        function = command(name)
        assert (function.__module__, function.__name__) == (f"aevb.cli.{name}", name)


def test_every_public_name_is_exported_and_documented() -> None:
    import aevb

    for layer in FORBIDDEN:
        module = getattr(aevb, layer)
        for name in module.__all__:
            value = getattr(module, name)
            if callable(value):
                assert value.__doc__, f"aevb.{layer}.{name} has no docstring"


def test_packaging_lists_every_package_folder() -> None:
    import tomllib

    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    homes = [(ROOT, layer) for layer in (*FORBIDDEN, "experiments")] + [(ROOT / "src", "aevb")]
    folders = {
        path.parent.relative_to(root).as_posix().replace("/", ".").removeprefix("aevb.")
        for root, home in homes
        for path in (root / home).rglob("__init__.py")
    }
    assert {f"aevb.{folder}" for folder in folders - {"aevb"}} | {"aevb"} == set(setup["packages"])
    assert setup["packages"] == list(setup["package-dir"])


def test_packaging_lists_every_file_that_is_no_module() -> None:
    import tomllib

    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    for layer in FORBIDDEN:
        for path in (ROOT / layer).rglob("*.*"):
            if path.suffix not in (".py", ".pyc") and path.is_file():
                package = ".".join(("aevb", *path.parent.relative_to(ROOT).parts))
                patterns = setup["package-data"].get(package, [])
                assert any(map(path.match, patterns)), f"{path} would not be in the wheel"
