"""Errors of the command line in one line that names the valid choices."""

import difflib
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser

from aevb.cli.parts import FAMILIES, members
from aevb.cli.trust import TrustError

__all__ = ["explain"]

# Which names a flag takes, by the last word of the flag.
_FAMILIES: dict[str, tuple[Any, type]] = {
    **FAMILIES,
    "optimizer": (torch.optim, torch.optim.Optimizer),
    "schedule": (torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler),
}
# What jsonargparse says first of all, and what is meant; anything else is clear as it is.
_MEANT = {
    r"Expected a typing\.Literal\[(.*?)\]\. Got value: (.*)": r"got '\2'; valid: \1",
    r"Expected a (?:<class ')?([\w.]+)'?>?.*Got value: (.*)": r"expected \1; got '\2'",
    r"Expected a dot import path string: ?(.*)": r"unknown name '\1'",
    r"Unexpected import path format: (.*)": r"'\1' is no name",
    r"(No module named '(?!aevb)(\w+).*)": (
        r"\1 (run from the folder of \2.py, or add that folder to PYTHONPATH)"
    ),
}


def explain(error: Exception, command: str, parsers: Mapping[str, ArgumentParser]) -> str:
    """Say in one line what is wrong and what would be right.

    Args:
        error: What parsing or the command raised.
        command: Its name.
        parsers: Parser of each command.
    """
    if not isinstance(error, ArgumentError):
        return _line(error)
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) and not isinstance(causes[-1], TrustError):
        causes.append(cause)
    text, root = _line(causes[0]), _line(causes[-1])
    if found := re.search(r"unrecognized arguments: (\S+)|not accept option '(\S+)'", text):
        return _unknown_flag(found[1] or f"--{found[2]}", command, parsers[command])
    keys = re.findall(r'Parser key "([\w.]+)"', text)
    if not keys or isinstance(causes[-1], TrustError):
        return root
    flag = "--" + ".".join(keys)
    if found := re.match(r"Option '(\w+)' is not accepted", root):
        return _unknown_option(flag, found[1], causes)
    if found := re.match("the following arguments are required: (.*)", root):
        return f"{flag}: needs {', '.join(f'{flag}.{name}' for name in found[1].split(', '))}"
    for said, meant in _MEANT.items():
        root = re.sub(f"^{said}$", meant, root)
    if family := _FAMILIES.get(flag.lstrip("-").rpartition(".")[2]):
        names = [part.__name__ for part in members(*family)]
        return f"{flag}: {root}; valid: {', '.join(names)}, or an import path"
    hint = "; expected an import path, such as torch.nn.ReLU" * root.startswith("unknown name")
    return f"{flag}: {root}{hint}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _unknown_flag(flag: str, command: str, parser: ArgumentParser) -> str:
    known = [o for a in parser._actions for o in a.option_strings if o.startswith("--")]
    known = [option for option in known if not option.endswith((".help", "+"))]
    close = difflib.get_close_matches(flag.split("=")[0], known, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"unknown flag {flag} of {command}{hint}; valid: {' '.join(known)}"


def _unknown_option(flag: str, option: str, causes: Sequence[BaseException]) -> str:
    """Which options there are; the innermost error that names a class means the one at fault."""
    paths = [re.search(r"class_path[ =]'([\w.]+)'", str(cause)) for cause in causes]
    path = next((found[1] for found in reversed(paths) if found), "")
    module, _, name = path.rpartition(".")
    # as it is loaded: the text of an error may be made to name any module
    owner = getattr(sys.modules.get(module), name, None)
    if owner is None:
        return f"{flag}: has no option {option!r}"
    valid = [key for key in inspect.signature(owner).parameters if key not in ("shape", "params")]
    return f"{flag}: {name} has no option {option!r}; valid: {', '.join(valid)}"
