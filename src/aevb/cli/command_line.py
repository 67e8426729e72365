"""The command line: flags and YAML from the commands' type hints, errors in one line."""

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import (
    ArgumentError,
    ArgumentParser,
    Namespace,
    _actions,
    _typehints,
    set_parsing_settings,
)

import aevb
from aevb.cli import train as commands
from aevb.cli.errors import explain
from aevb.cli.runs import CONFIG, as_json, write_text
from aevb.cli.trust import TrustError, guarded, read_config, refuse_links, remember
from aevb.data.locations import data_root
from aevb.data.sources import DATASETS

__all__ = ["main"]

_HELP = {
    "train": "train a model, evaluate it and draw its pictures",
    "evaluate": "estimate the evidence of a run",
    "compare": "put the posterior of a run on trial against chains",
    "embed": "posterior means of the data of a run, and the units in use",
    "impute": "hide values of the data of a run and fill them in",
    "sample": "draw from the model of a run",
    "parts": "list what models can be made of",
}
# Arguments that the commands get from here and not from the user.
_WIRED = {"write_config", "reopen"}
# Flags that may differ between the parts of one run; with any other, it would be another run.
_CHANGEABLE = {
    "compile",
    "data_root",
    "device",
    "epochs",
    "limit",
    "log_every",
    "num_samples",
    "patience",
}
# What a run is rebuilt from; nothing else of its configuration is made into objects.
_NEEDED = ("data", "data_root", "binarize", "model", "seed")

# A class that stands where any value may stand is left as text: nothing asks for it.
set_parsing_settings(instantiate_subclass_spec_in_any=False)


class _Parser(ArgumentParser):
    """Takes flags by their full names alone, here and in the parsers of the parts."""

    trusted: Sequence[str] = ()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "allow_abbrev": False})


class _ConfigFile(_actions.ActionConfigFile):
    """A YAML file of flags, checked before anything that it names is imported."""

    def __call__(
        self, parser: Any, cfg: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Merge the flags of the file."""
        del option_string
        config = read_config(Path(values), parser.trusted)
        with guarded(config.trusted):
            # so long a line is no file's name: what was checked is what is used
            self.apply_config(parser, cfg, self.dest, f"#{' ' * 4096}\n{config.text}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Words of the command line; by default those of the process.

    Returns:
        Exit code: 0, 1 if the work failed, 2 if the command was not understood, and 130 or 143
        after Ctrl-C or SIGTERM.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser, parsers = _parser()
    _typehints.discard_init_args_on_class_path_change = _own_defaults
    try:
        trusted, words = _trusted(words)
        if (trusted or _names_own(words)) and str(Path.cwd()) not in sys.path:
            # last, so that nothing installed is replaced by a file that happens to lie here
            sys.path.append(str(Path.cwd()))
        for child in parsers.values():
            child.trusted = trusted
        config = parser.parse_args(_with_saved_config(words))
        return _run(config, parsers)
    except (ArgumentError, ValueError, OSError) as error:
        print(f"aevb: error: {_shielded(explain(error, words, parsers))}", file=sys.stderr)  # noqa: T201
        return 2
    except (ArithmeticError, RuntimeError) as error:
        print(f"aevb: error: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print("aevb: interrupted", file=sys.stderr)  # noqa: T201
        return 130


def _trusted(words: list[str]) -> tuple[list[str], list[str]]:
    """The modules that the command line trusts, and its other words; no file may add to them."""
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    reader.add_argument("--trust", action="append", default=[])
    found, others = reader.parse_known_args(words)
    for module in found.trust:
        if not all(part.isidentifier() for part in module.split(".")):
            raise TrustError(
                f"--trust: {module!r} is no module; expected a name, such as mine for mine.py"
            )
    return found.trust, others


def _names_own(words: list[str]) -> bool:
    """Whether flags name a module that lies in the working directory."""
    names = {name for word in words for name in re.findall(r"([^\W\d]\w*)\.[^\W\d]", word)}
    return any(Path(f"{name}.py").is_file() or Path(name).is_dir() for name in names)


def _parser() -> tuple[_Parser, dict[str, _Parser]]:
    parser = _Parser(prog="aevb", description="Deep latent-variable models, trained and judged.")
    parser.exit_on_error = False
    parser.add_argument("--version", action="version", version=f"aevb {aevb.__version__}")
    subcommands = parser.add_subcommands(required=True, dest="command")
    parsers = {}
    for name, text in _HELP.items():
        child = _Parser(description=text, exit_on_error=False)
        child.add_argument(
            "--config", action=_ConfigFile, help="YAML file with any of these flags"
        )
        child.add_argument(
            "--trust",
            metavar="MODULE",
            help="a module beyond aevb and torch whose classes a run or YAML file may name, found "
            "from the working directory; may be repeated",
        )
        child.add_argument("--json", action="store_true", help="print one JSON object, no more")
        command: Callable[..., Any] = getattr(commands, name)
        child.add_function_arguments(command, as_positional=True, skip=set(_WIRED))
        subcommands.add_subcommand(name, child, help=text)
        parsers[name] = child
    return parser, parsers


def _own_defaults(parser: Any, before: Any, now: Any) -> None:
    """Let a class that is named begin with its own defaults, not with those of the class before.

    jsonargparse keeps arguments that both happen to have: IWAE would get ELBO's one particle.
    """
    del parser
    if before and "init_args" in before and before["class_path"] != now["class_path"]:
        before.pop("init_args")


def _with_saved_config(words: list[str]) -> list[str]:
    """Put the configuration of the run to be resumed in front of the flags that change it."""
    if words[:1] != ["train"]:
        return words
    for position, word in enumerate(words):
        flag, _, value = word.partition("=")
        if flag == "--resume" and (value or len(words) > position + 1):
            folder = Path(value or words[position + 1])
            saved = folder / CONFIG
            if not saved.is_file():
                raise FileNotFoundError(f"--resume: {folder} is no run folder: it has no {CONFIG}")
            refuse_links(folder)
            return ["train", "--config", str(saved), *words[1:]]
    return words


def _run(config: Namespace, parsers: dict[str, _Parser]) -> int:
    name = config.command
    parser, settings = parsers[name], config[name]
    wants_json = settings.pop("json")
    settings.pop("config", None)
    settings.pop("trust", None)
    wired = {
        "write_config": lambda path: _write_config(parser, settings, path),
        "reopen": lambda folder: _reopen(parsers["train"], folder),
    }
    command: Callable[..., Any] = getattr(commands, name)
    used = {key: wired[key] for key in _WIRED & set(command.__annotations__)}
    result = command(**vars(parser.instantiate(settings)), **used)
    print(as_json(result) if wants_json else _shown(result))  # noqa: T201
    stopped = result.get("stopped", "") if isinstance(result, dict) else ""
    return {"SIGINT": 130, "SIGTERM": 143}.get(stopped, 0)


def _write_config(parser: _Parser, settings: Namespace, path: Path) -> None:
    """Save the resolved configuration so that it works from any folder."""
    saved = settings.clone()
    saved.resume = saved.out = None
    if saved.data_root is not None or saved.data in DATASETS:
        saved.data_root = str(data_root(saved.data_root).resolve())
    if saved.data not in DATASETS and Path(saved.data).exists():
        saved.data = str(Path(saved.data).resolve())
    if settings.resume is not None:
        config = read_config(path, parser.trusted)
        with guarded(config.trusted):
            _refuse_changes(parser.parse_object(config.content), saved, path.parent)
    write_text(path, parser.dump(saved, skip_unset=False))
    remember(path)


def _refuse_changes(old: Namespace, new: Namespace, folder: Path) -> None:
    before, after = (dict(settings.items()) for settings in (old, new))
    for key in before | after:
        known = key in _CHANGEABLE or key in ("json", "config", "trust")
        if not known and before.get(key) != after.get(key):
            flag = key.replace(".init_args", "").removesuffix(".class_path")
            raise ValueError(
                f"--{flag}: the run in {folder} was started with {before.get(key)!r}; "
                f"got {after.get(key)!r}"
            )


def _reopen(parser: _Parser, folder: Path) -> Any:
    """What a run folder is rebuilt from: the part of its configuration that evaluation needs."""
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no run folder: it has no {CONFIG}")
    refuse_links(folder)
    config = read_config(path, parser.trusted)
    with guarded(config.trusted):
        content = {
            key: value for key, value in config.content.items() if key.partition(".")[0] in _NEEDED
        }
        settings = parser.parse_object(content)
        return parser.instantiate(Namespace({key: settings[key] for key in _NEEDED}))


def _shielded(text: str) -> str:
    """Without what a terminal would obey: the text may quote a stranger's file."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _shown(result: dict[str, Any] | list[dict[str, str]]) -> str:
    """A table: a line for each entry of a dict, or a row for each dict of a list."""
    if isinstance(result, list):
        return "\n\n".join(_part(row) for row in result)
    if "table" in result:
        return str(result["table"])
    width = max(map(len, result))
    return "\n".join(f"{name:<{width}}  {_number(value)}" for name, value in result.items())


def _part(row: dict[str, str]) -> str:
    lines = [f"{row['family']}  {row['name']}({row['parameters']})", row["summary"], row["source"]]
    return "\n    ".join(line for line in lines if line)


def _number(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"  # not defined, as the error of a mean over one datapoint is
    return f"{value:z.3f}" if isinstance(value, float) else str(value)
