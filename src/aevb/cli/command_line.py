"""The ``aevb`` command: its words understood, its result printed, its errors in one line."""

import argparse
import inspect
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, Namespace

from aevb.cli.configurations import reopen, with_saved_config, write_config
from aevb.cli.errors import explain
from aevb.cli.files import as_json
from aevb.cli.jsonargparse_hooks import hooked
from aevb.cli.parser import COMMANDS, Parser, command_line
from aevb.cli.runs import open_run
from aevb.cli.trust import TrustError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Words of the command line; by default those of the process.

    Returns:
        Exit code: 0, 1 if the work failed, 2 if the command was not understood, and 130 or 143
        after Ctrl-C or SIGTERM.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser, parsers = command_line()
    try:
        trusted, words = _trusted(words)
        if (trusted or _names_own(words)) and str(Path.cwd()) not in sys.path:
            # last, so that nothing installed is replaced by a file that happens to lie here
            sys.path.append(str(Path.cwd()))
        for child in parsers.values():
            child.trusted = trusted
        with hooked():
            return _run(parser.parse_args(with_saved_config(words)), parsers)
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


def _run(config: Namespace, parsers: dict[str, Parser]) -> int:
    parser, settings = parsers[config.command], config[config.command]
    wants_json = settings.pop("json")
    settings.pop("config", None)
    settings.pop("trust", None)
    command, _ = COMMANDS[config.command]
    needed, values = inspect.signature(command).parameters, vars(parser.instantiate(settings))
    if "write_config" in needed:
        values["write_config"] = lambda path: write_config(parser, settings, path)
    if "saved" in needed:
        opening = {key: values.pop(key) for key in values.keys() - needed.keys()}
        values["saved"] = open_run(reopen(parsers["train"], opening["run"]), **opening)
    if "reopen" in needed:
        values["reopen"] = lambda run: open_run(reopen(parsers["train"], run), run, device="cpu")
    result = command(**values)
    print(as_json(result) if wants_json else _shown(result))  # noqa: T201
    if isinstance(result, dict) and result.get("outside"):
        return 1
    stopped = result.get("stopped", "") if isinstance(result, dict) else ""
    return {"SIGINT": 130, "SIGTERM": 143}.get(stopped, 0)


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
