"""One command, run: its words understood, its result printed, its errors in one line."""

import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, Namespace

from aevb.cli.commands import command
from aevb.cli.configurations import reopen, with_saved_config, write_config
from aevb.cli.errors import explain
from aevb.cli.files import as_json
from aevb.cli.help import help_asked
from aevb.cli.jsonargparse_hooks import hooked
from aevb.cli.parser import Parsers
from aevb.cli.run_page import write_page
from aevb.cli.runs import open_run
from aevb.cli.telling import Told
from aevb.inference.process.progress import showing_progress

__all__ = ["run"]


def run(name: str, words: Sequence[str], trusted: Sequence[str] = ()) -> int:
    """Run a command.

    Args:
        name: Of the command.
        words: Those after it.
        trusted: Modules beyond ours that a configuration file may name.

    Returns:
        Exit code, as of :func:`aevb.cli.main`.
    """
    parsers = Parsers(trusted)
    try:
        if (said := help_asked(name, words, parsers[name])) is not None:
            return _printed(Told({}, said), False)
        with hooked():
            settings = parsers[name].parse_args(with_saved_config(name, list(words)))
            return _printed(*_run(name, settings, parsers))
    except (ArgumentError, ValueError, OSError) as error:
        said = _shielded(explain(error, name, parsers))
        print(f"aevb: error: {said}", file=sys.stderr)  # noqa: T201
        return 2
    except (ArithmeticError, RuntimeError) as error:
        print(f"aevb: error: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print("aevb: interrupted", file=sys.stderr)  # noqa: T201
        return 130


def _run(name: str, settings: Namespace, parsers: Parsers) -> tuple[Any, bool]:
    parser, function = parsers[name], command(name)
    wants_json = settings.pop("json")
    settings.pop("config", None)
    settings.pop("trust", None)
    needed, values = inspect.signature(function).parameters, vars(parser.instantiate(settings))
    if "write_config" in needed:
        values["write_config"] = lambda path: write_config(parser, settings, path)
    if "saved" in needed:
        opening = {key: values.pop(key) for key in values.keys() - needed.keys()}
        values["saved"] = open_run(reopen(parsers["train"], opening["run"]), **opening)
    if "reopen" in needed:
        values["reopen"] = lambda run, **how: open_run(
            reopen(parsers["train"], run), run, **{"device": "cpu", **how}
        )
    with showing_progress(sys.stderr.isatty() and not wants_json):
        result = function(**values)
    if isinstance(result, Told) and (folder := result.get("run") or values.get("saved")):
        write_page(getattr(folder, "folder", None) or Path(folder))
    return result, wants_json


def _printed(result: Any, wants_json: bool) -> int:
    """Print the result, and say by a code how it ended."""
    try:
        print(as_json(result) if wants_json else _shown(result), flush=True)  # noqa: T201
    except BrokenPipeError:  # as `aevb train | true`: nobody reads, and the files are written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if isinstance(result, dict) and result.get("outside"):
        return 1
    stopped = result.get("stopped", "") if isinstance(result, dict) else ""
    return {"SIGINT": 130, "SIGTERM": 143}.get(stopped, 0)


def _shielded(text: str) -> str:
    """Without what a terminal would obey: the text may quote a stranger's file."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _part(row: dict[str, str]) -> str:
    lines = [f"{row['family']}  {row['name']}({row['parameters']})", row["summary"], row["source"]]
    return "\n    ".join(line for line in lines if line)


def _shown(result: Any) -> str:
    """What a person reads; of a command without words of its own, a line for each figure."""
    if isinstance(result, Told):
        return result.text
    if isinstance(result, list):
        return "\n\n".join(map(_part, result))
    if "table" in result:
        return str(result["table"])
    width = max(map(len, result), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in result.items())
