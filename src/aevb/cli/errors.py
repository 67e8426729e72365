"""Errors of the command line in one line that names the valid choices."""

import argparse
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser
from torch import nn

from aevb.cli.families import names_of, part_flags
from aevb.cli.near_misses import did_you_mean
from aevb.cli.trust import TrustError

__all__ = ["explain"]

# What jsonargparse says first of all, and what is meant; anything else is clear as it is.
_MEANT = {
    r"Expected a (?:<class ')?([\w.]+)'?>?.*Got value: (.*)": r"expected \1; got '\2'",
    r"Unexpected import path format: (.*)": r"'\1' is no name",
    r"(No module named '(?!aevb)(\w+).*)": (
        r"\1 (run from the folder of \2.py, or add that folder to PYTHONPATH)"
    ),
    r"source: (.*)": r"--data: \1",
}


def explain(error: Exception, command: str, parsers: Mapping[str, ArgumentParser]) -> str:
    """Say in one line what is wrong and what would be right.

    Args:
        error: What parsing or the command raised.
        command: Its name.
        parsers: Parser of each command.
    """
    if not isinstance(error, ArgumentError):
        return _meant(_line(error))
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) and not isinstance(causes[-1], TrustError):
        causes.append(cause)
    text, root = _line(causes[0]), _line(causes[-1])
    if found := re.search(r"unrecognized arguments: (\S+)|not accept option '(\S+)'", text):
        return _unknown_flag(found[1] or f"--{found[2]}", command, parsers[command])
    keys = re.findall(r'Parser key "([\w.]+)"', text)
    if isinstance(causes[-1], TrustError):
        return root
    option = re.match(r"Option '([\w.]+)' is not accepted", root)
    if not keys:
        return _unknown_flag(f"--{option[1]}", command, parsers[command]) if option else root
    flag = "--" + ".".join(keys)
    if option:
        return _unknown_option(flag, option[1], causes)
    if found := re.match("the following arguments are required: (.*)", root):
        return f"{flag}: needs {', '.join(f'{flag}.{name}' for name in found[1].split(', '))}"
    if found := re.match(r"Expected a typing\.Literal\[(.*?)\]\. Got value: (.*)", root):
        hint = did_you_mean(found[2], re.findall(r"'([^']*)'", found[1]))
        return f"{flag}: got '{found[2]}'{hint}; valid: {found[1]}"
    return _wrong_name(flag, root)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _meant(text: str) -> str:
    for said, meant in _MEANT.items():
        text = re.sub(f"^{said}$", meant, text)
    return text


def _wrong_name(flag: str, root: str) -> str:
    """A value that is no part, or no value of its flag."""
    unknown = re.match(r"Expected a dot import path string: ?(.*)", root)
    said = f"unknown name '{unknown[1]}'" if unknown else _meant(root)
    found = unknown or re.search(r"No module|has no attribute|import.*'(\w+)'", root)
    name = unknown[1] if unknown else (found[1] if found and found.groups() else None)
    if names := names_of(flag.rpartition(".")[2].lstrip("-")):
        hint = did_you_mean(name, names) if name else ""
        return f"{flag}: {said}{hint}; valid: {', '.join(names)}, or an import path"
    if unknown:
        known = [f"torch.nn.{key}" for key in dir(nn) if key[0].isupper()]
        hint = did_you_mean(f"torch.nn.{name}", known)
        return f"{flag}: {said}{hint}; expected an import path, such as torch.nn.ReLU"
    return f"{flag}: {said}"


def _unknown_flag(flag: str, command: str, parser: ArgumentParser) -> str:
    shown = [a for a in parser._actions if a.help != argparse.SUPPRESS]
    known = [o for a in shown for o in a.option_strings if o.startswith("--")]
    known = [option for option in known if not option.endswith((".help", "+"))]
    if not flag.startswith("-"):
        return f"unexpected word {flag!r} of {command}; flags: {' '.join(known)}"
    others = part_flags() if command == "train" else []
    hint = did_you_mean(flag.split("=")[0], [*known, *others])
    return f"unknown flag {flag} of {command}{hint}; valid: {' '.join(known)}"


def _unknown_option(flag: str, option: str, causes: Sequence[BaseException]) -> str:
    """Which options there are; the innermost error that names a class means the one at fault."""
    paths = [re.search(r"class_path[ =]'([\w.]+)'", str(cause)) for cause in causes]
    path = next((found[1] for found in reversed(paths) if found), "")
    module, _, name = path.rpartition(".")
    # as it is loaded: the text of an error may be made to name any module
    owner: Any = getattr(sys.modules.get(module), name, None)
    if owner is None:
        return f"{flag}: has no option {option!r}"
    valid = [key for key in inspect.signature(owner).parameters if key not in ("shape", "params")]
    hint = did_you_mean(option, valid)
    return f"{flag}: {name} has no option {option!r}{hint}; valid: {', '.join(valid)}"
