"""What a configuration file may name: the classes are code, and the file may be a stranger's."""

import hashlib
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.abc import SourceLoader
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import yaml
from jsonargparse import get_loader
from platformdirs import user_state_path
from torch import nn, optim

from aevb.cli.files import write_json
from aevb.cli.jsonargparse_hooks import hooked
from aevb.cli.parts import FAMILIES

__all__ = ["Config", "TrustError", "guarded", "read_config", "refuse_links", "remember"]

PACKAGES = ("aevb", "torch.nn", "torch.optim", "torchvision")
# A class of these packages that is none of these might write files or fetch them when it is made.
_KINDS = (
    nn.Module,
    optim.Optimizer,
    optim.lr_scheduler.LRScheduler,
    *(base for _, base in FAMILIES.values()),
)
_PATHS = {"data", "data_root", "out", "resume"}  # flags whose words are no import paths
_MAX_BYTES, _MAX_NODES, _MAX_DEPTH = 2**18, 10_000, 50


class TrustError(ValueError):
    """A file that is not opened, and why."""


class Config(NamedTuple):
    """A configuration file that names nothing but what it may.

    Attributes:
        text: Its text.
        content: Of the file, by flag.
        trusted: Modules beyond :data:`PACKAGES` that it may name.
    """

    text: str
    content: dict[str, Any]
    trusted: tuple[str, ...]


def read_config(path: Path, trusted: Sequence[str] = ()) -> Config:
    """Read a configuration file and check every class that it names, before any is used.

    Args:
        path: A YAML file.
        trusted: Modules whose code may run beside that of :data:`PACKAGES`.

    Raises:
        FileNotFoundError: If there is no such regular file.
        TrustError: If it names anything else, is no YAML, or is too large or too deep to be a
            configuration.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "config.yaml"
        >>> _ = path.write_text("model: aevb.models.VAE")
        >>> read_config(path).content
        {'model': 'aevb.models.VAE'}
        >>> _ = path.write_text("model: {class_path: os.system, init_args: {command: date}}")
        >>> read_config(path)
        Traceback (most recent call last):
        aevb.cli.trust.TrustError: ...config.yaml names os.system, which is of none of aevb, ...
    """
    if not path.is_file():  # nor a pipe or a device, which might never end
        raise FileNotFoundError(f"{path}: no such configuration file")
    with path.open("rb") as file:
        raw = file.read(_MAX_BYTES + 1)
    if len(raw) > _MAX_BYTES:
        raise TrustError(f"{path} is no configuration: it has more than {_MAX_BYTES} bytes")
    try:
        text = raw.decode()
        content = _load(text)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise TrustError(f"{path} is no configuration: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise TrustError(
            f"{path} is no configuration: expected flags with values, as in epochs: 3"
        )
    recalled, note = _recall(raw)
    trusted = (*trusted, *recalled)
    for key, value in content.items():
        # another file would be read unchecked, and trust is not the file's to give
        if value is not None and str(key).partition(".")[0].rstrip("+") in ("config", "trust"):
            raise TrustError(f"{path}: {key} is for the command line alone, as --{key}")
    for name in _names(content, str(path)):
        if problem := _problem(name, trusted):
            raise TrustError(f"{path} names {name}, which {problem}{note}")
    return Config(text, content, trusted)


def guarded(trusted: Sequence[str]) -> AbstractContextManager[None]:
    """Hold whatever jsonargparse imports by name against the same rule: the second line.

    Args:
        trusted: As in :class:`Config`.
    """

    def check(name: str) -> None:
        if problem := _problem(name, trusted):
            raise TrustError(f"refused to import {name}, which {problem}")

    return hooked(check)


def refuse_links(folder: Path) -> None:
    """Refuse a run folder through which results would be written elsewhere.

    Args:
        folder: Run folder.

    Raises:
        TrustError: If something in it is a symbolic link.
    """
    for path in folder.iterdir():
        if path.is_symlink():
            raise TrustError(
                f"{folder}: {path.name} is a symbolic link, and results might be written to where "
                "it points; replace it by a copy"
            )


def remember(path: Path) -> None:
    """Note which of the user's own files made a run, so that it opens without ``--trust``.

    Args:
        path: The configuration file of a run that this process has trained or trains.
    """
    raw = path.read_bytes()
    names = _names(_load(raw.decode()), str(path))
    tops = {
        name.partition(".")[0] for name in names if not _package(name, ())
    } & sys.modules.keys()
    homes = {file.parent for top in tops if (file := _source(top)) and file.name != "__init__.py"}
    files = {
        name: (str(file), _digest(file.read_bytes()))
        for name in list(sys.modules)
        if (file := _source(name)) and (name.partition(".")[0] in tops or file.parent in homes)
    }
    if tops and tops <= files.keys():
        try:
            record = _record(raw)
            record.parent.mkdir(parents=True, exist_ok=True)
            write_json(record, files)
        except OSError:  # a run that cannot be noted still opens with --trust
            return


def _names(content: Mapping[str, Any], where: str) -> Iterator[str]:
    """Every string of a configuration that an import could come of."""
    nodes = ((key, node) for key, value in content.items() for key, node in _nodes(key, value))
    for count, (key, node) in enumerate(nodes):
        if count == _MAX_NODES:  # a few lines of aliases are enough
            raise TrustError(f"{where} is no configuration: it has more than {count} values")
        if isinstance(node, str) and "." in node and all(map(str.isidentifier, node.split("."))):
            top = node.partition(".")[0]
            if key.rpartition(".")[2] == "class_path" or _importable(top):
                yield node


def _nodes(key: str, node: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every node of a tree with its key, also of YAML within strings, as jsonargparse reads it."""
    if depth > _MAX_DEPTH:
        raise TrustError(f"{key}: nested more than {_MAX_DEPTH} deep")
    yield key, node
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _nodes(str(name), value, depth + 1)
    elif isinstance(node, list | tuple | set):
        for value in node:
            yield from _nodes(key, value, depth + 1)
    elif isinstance(node, str) and (depth or key not in _PATHS):
        try:
            inner = _load(node)
        except yaml.YAMLError:
            return
        if not isinstance(inner, str):
            yield from _nodes(key, inner, depth + 1)


def _load(text: str) -> Any:
    """What jsonargparse makes of YAML, unless that is so deep that it would crash."""
    depth = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise TrustError(f"YAML nested more than {_MAX_DEPTH} deep")
    try:
        return get_loader("yaml")(text)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # of tags beside the mark
        raise yaml.YAMLError(str(error)) from error


def _importable(top: str) -> bool:
    try:
        return top in sys.modules or importlib.util.find_spec(top) is not None
    except ValueError:  # loaded, but not from where modules are found
        return True


def _package(name: str, trusted: Sequence[str]) -> str | None:
    """Which package a name lies in by its words."""
    return next((p for p in (*PACKAGES, *trusted) if f"{name}.".startswith(f"{p}.")), None)


def _problem(name: str, trusted: Sequence[str]) -> str | None:
    """What is wrong with an import path, if anything is."""
    package = _package(name, trusted)
    if package is None:
        top = name.partition(".")[0]
        return f"is of none of {', '.join(PACKAGES)}; if you trust that code, add --trust {top}"
    found = _find(name, package, own=package not in PACKAGES)
    kind = found if inspect.isclass(found) or inspect.isroutine(found) else type(found)
    home = getattr(kind, "__module__", None) or ""
    if package not in PACKAGES:
        if _package(home, trusted):
            return None
        return f"is not defined in {package}, which --trust named"
    if inspect.isclass(found) and issubclass(found, _KINDS) and _package(home, ()):
        return None
    return (
        f"is no part, module, optimizer or schedule of {package}; --trust is for other modules, "
        "such as your own"
    )


def _find(name: str, package: str, *, own: bool) -> Any:
    """What a name stands for in the very module that it says, of ours a loaded one; or None."""
    place, _, last = name.rpartition(".")
    try:
        importlib.import_module(place if own else package)
    except ImportError as error:
        where = f"run from the folder of {package.partition('.')[0]}.py, or add it to PYTHONPATH"
        raise TrustError(f"{name}: {error} ({where})") from error
    module = sys.modules.get(place)
    return vars(module).get(last) if module and module.__name__ == place else None


def _record(raw: bytes) -> Path:
    """Where it is noted whose modules a configuration names."""
    state = Path(os.environ.get("AEVB_STATE") or user_state_path("aevb"))
    return state / "runs" / f"{_digest(raw)}.json"


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _source(name: str) -> Path | None:
    """The Python file of a loaded module."""
    file = getattr(sys.modules[name], "__file__", None)
    return Path(file).resolve() if file and file.endswith(".py") and Path(file).is_file() else None


def _recall(raw: bytes) -> tuple[set[str], str]:
    """The user's own modules that made this very configuration; or why they are not these."""
    record = _record(raw)
    if not record.is_file():
        return set(), ""
    written = json.loads(record.read_text())
    files = {name: (Path(file), digest) for name, (file, digest) in written.items()}
    for file, digest in files.values():
        if not file.is_file() or _digest(file.read_bytes()) != digest:
            return set(), f" ({file} is not what it was when the run was trained)"
    sys.meta_path.insert(0, _Remembered(files))
    return {name.partition(".")[0] for name in files}, ""


class _Remembered(SourceLoader):
    """Imports modules from the files of a record, from nowhere else and only if unchanged."""

    def __init__(self, files: Mapping[str, tuple[Path, str]]) -> None:
        self._files = files

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See :class:`importlib.abc.MetaPathFinder`."""
        if fullname not in self._files:
            return None
        file = self._files[fullname][0]
        # a package has no path, since what lies in its folder and is not in the record is unknown
        folders: list[str] | None = [] if file.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname, file, loader=self, submodule_search_locations=folders
        )

    def get_filename(self, fullname: str) -> str:
        """See :class:`importlib.abc.ExecutionLoader`."""
        return str(self._files[fullname][0])

    def get_data(self, path: str | bytes) -> bytes:
        """The bytes that are checked are those that run; no cache of compiled code is read."""
        raw = Path(os.fsdecode(path)).read_bytes()
        if (Path(os.fsdecode(path)), _digest(raw)) not in self._files.values():
            raise ImportError(f"{os.fsdecode(path)} has changed")
        return raw
