"""Help: the flags of a command under their headings, and those of a part under its flag."""

import dataclasses
import inspect
import re
import shutil
import textwrap
from argparse import SUPPRESS
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import docstring_parser
from jsonargparse import ArgumentParser

from aevb.cli.commands import COMMANDS, command
from aevb.cli.families import FLAGS, names_of, own_flags
from aevb.cli.near_misses import did_you_mean
from aevb.cli.parts import members, parts, summary
from aevb.cli.runs import open_run

__all__ = ["help_asked"]

# The flag of training that each heading begins with, in the order of the function's arguments.
_HEADINGS = {
    "data": "data",
    "model": "model",
    "algorithm": "training",
    "num_samples": "evaluation after it",
    "seed": "computation",
    "out": "run folder",
}
_EVERY = {  # flags of all commands, in the words of their help
    "config": "YAML file with any of these flags; --print_config prints one",
    "trust": "a module beyond aevb and torch whose classes a run or YAML file may name",
    "json": "print one JSON object and no more",
}
_NOT_SHOWN = ("help", "print_config")
_INDENT = 30  # column of the words


def help_asked(name: str, words: Sequence[str], parser: ArgumentParser) -> str | None:
    """The help that words ask for by ``--help``, ``--help-all`` or ``--FLAG.help [NAME]``.

    Args:
        name: Of the command.
        words: Those after it.
        parser: Of the command.

    Raises:
        ValueError: If a part is named that is not there.

    Returns:
        The text, or None if no help is asked for.
    """
    for place, word in enumerate(words):
        flag, _, value = word.partition("=")
        if flag in ("-h", "--help", "--help-all"):
            return _command(name, words, parser, everything=flag == "--help-all")
        if name == "train" and re.fullmatch(r"--[\w.]+\.help", flag):
            following = next((w for w in words[place + 1 :] if not w.startswith("-")), "")
            return _part(flag.removesuffix(".help"), value or following)
    return None


def _command(name: str, words: Sequence[str], parser: ArgumentParser, everything: bool) -> str:
    function = command(name)
    said = docstring_parser.parse_from_object(function)
    takes_run = "saved" in inspect.signature(function).parameters
    usage = f"usage: aevb {name}{' RUN' if takes_run else ''} [flags]"
    lines = [usage, "", said.short_description or COMMANDS[name]]
    docs = {**(_docs(open_run) if takes_run else {}), **_docs(function), **_EVERY}
    shown = [a for a in parser._actions if a.help != SUPPRESS and a.dest not in _NOT_SHOWN]
    actions = {action.dest: action for action in shown if "." not in action.dest}
    ends = [key for key in actions if key in _EVERY]  # what all commands share comes last
    heading = "flags"
    for key in [*(key for key in actions if key not in ends), *ends]:
        if key in ends:
            new = "of every command"
        else:
            new = _HEADINGS.get(key, heading) if name == "train" else "flags"
        if new != heading or lines[-1] == (said.short_description or COMMANDS[name]):
            lines += ["", f"{new}:"]
            heading = new
        action = actions[key]
        word = action.option_strings[0] if action.option_strings else key.upper()
        text = docs.get(key) or action.help or ""
        default = None if action.nargs == 0 else action.default
        lines += _entry(word, text, default, brief=not everything)
        if name == "train" and key == "model":
            lines += _flags_of_model(words, brief=not everything)
    if name == "train":
        lines += [
            "",
            "parts, with flags of their own:",
            *_entry("--model.help VAE", "what VAE is, and its flags"),
            *_entry("--model.prior.help VampPrior", "likewise of every part"),
            *_entry("--help-all", "these flags in full, and those of every part"),
        ]
        if everything:
            lines += _all_parts()
    elif not everything:
        lines += ["", f"aevb {name} --help-all says more on each."]
    return "\n".join(lines)


def _flags_of_model(words: Sequence[str], brief: bool) -> Iterator[str]:
    """The flags of the model that is named, or of the one by default."""
    joined = " ".join(words)
    found = re.search(r"--model[= ](\w+)", joined)
    name = found[1] if found and found[1] in names_of("model") else "VAE"
    part = next(part for part in members(*FLAGS["model"]) if part.__name__ == name)
    yield f"  and of {name}:"
    yield from _own(part, "--model", brief=brief)


def _docs(described: Any) -> dict[str, str]:
    """The words of a docstring on each argument."""
    found = docstring_parser.parse_from_object(described).params
    return {entry.arg_name: entry.description or "" for entry in found}


def _own(part: type, flag: str, brief: bool = False) -> Iterator[str]:
    docs = _docs(part)
    for key, parameter in own_flags(part).items():
        default = parameter.default
        default = "needed" if default is parameter.empty else default
        text = docs.get(key, "")
        if names := names_of(key):
            text = f"{_first(text).rstrip('.')}: {', '.join(names)}"
        yield from _entry(f"{flag}.{key}", text, default, brief)


def _part(flag: str, name: str) -> str:
    """Help on a part, or on what a flag takes."""
    last = flag.rpartition(".")[2].lstrip("-")
    names = names_of(last)
    if not names:
        known = [f"--{'model.' * (key not in _TOP)}{key}" for key in FLAGS]
        raise ValueError(f"{flag}.help: {flag} takes no part{did_you_mean(flag, known)}")
    family = {part.__name__: part for part in members(*FLAGS[last])}
    if not name:
        lines = [f"{flag} NAME, one of:", ""]
        for key, part in family.items():
            lines += _entry(key, summary(part), brief=True)
        return "\n".join([*lines, "", f"aevb train {flag}.help NAME says more on one."])
    if name.rpartition(".")[2] not in family:
        raise ValueError(
            f"{flag}.help: unknown name {name!r}{did_you_mean(name, names)}; "
            f"valid: {', '.join(names)}"
        )
    part = family[name.rpartition(".")[2]]
    rows = [row for row in (parts(last) if last in _PARTS else []) if row["name"] == name]
    lines = [f"{flag} {part.__name__}", "", *_wrapped(summary(part), 2)]
    if rows and rows[0]["source"]:
        lines += ["", *_wrapped(rows[0]["source"], 2)]
    own = list(_own(part, flag))
    return "\n".join([*lines, "", "flags:", *own] if own else [*lines, "", "It has no flags."])


def _all_parts() -> Iterator[str]:
    for key in FLAGS:
        flag = f"--{key}" if key in _TOP else f"--model.{key}"
        for part in members(*FLAGS[key]):
            if own := list(_own(part, flag)):
                yield ""
                yield f"{flag} {part.__name__}:"
                yield from own


_TOP = ("model", "objective", "initializer", "optimizer", "schedule")
_PARTS = set(FLAGS) - {"optimizer", "schedule"}


def _entry(word: str, text: str, default: Any = None, brief: bool = False) -> list[str]:
    """A flag and its words, the first sentence or all, with the default."""
    said = _first(text) if brief else " ".join(text.split())
    said = re.sub(r":\w+:`~?([^`]*)`", r"\1", said).replace("``", "").replace("`_", "").rstrip(".")
    if default is not None and "default:" not in said and (shown := _default(default)):
        said = f"{said} ({shown})" if said else f"({shown})"
    head = f"  {word}"
    lines = _wrapped(said, _INDENT) or [""]
    if len(head) > _INDENT - 2:
        return [head, *lines] if said else [head]
    return [head.ljust(_INDENT) + lines[0].lstrip(), *lines[1:]]


def _wrapped(text: str, indent: int) -> list[str]:
    width = max(60, min(100, shutil.get_terminal_size().columns))
    space = " " * indent
    return textwrap.wrap(
        text, width, initial_indent=space, subsequent_indent=space, break_on_hyphens=False
    )


def _first(text: str) -> str:
    return re.split(r"(?<=\.)\s(?=[A-Z])", " ".join(text.split()), maxsplit=1)[0]


def _default(value: Any) -> str:
    if isinstance(value, dict) or hasattr(value, "class_path"):  # as the parser holds a class
        path = value["class_path"] if isinstance(value, dict) else value.class_path
        return str(path).rpartition(".")[2]
    if inspect.isclass(value):
        return value.__name__
    if dataclasses.is_dataclass(value):
        return type(value).__name__
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    return str(value) if isinstance(value, str | int | float | Path) else ""
