"""Errors of the command line in one line that names the valid choices."""

import difflib
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jsonargparse import ArgumentParser

from aevb.cli.parts import FAMILIES, members
from aevb.cli.trust import TrustError

__all__ = ["explain"]

# Which names a flag takes, by the last word of the flag.
_FAMILIES: dict[str, tuple[Any, type]] = {
    **FAMILIES,
    "optimizer": (torch.optim, torch.optim.Optimizer),
    "schedule": (torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler),
}

_IMPORT_PROBLEMS = (
    r"No module named '[^']+'|module '[^']+' has no attribute '[^']+'"
    r"|Unexpected import object <[^>]+>"
    r"|Import path \S+ does not correspond to a subclass of \w+"
)


def explain(error: Exception, words: Sequence[str], parsers: Mapping[str, ArgumentParser]) -> str:
    """Say in one line what is wrong and what would be right.

    Args:
        error: What parsing or the command raised.
        words: The command line.
        parsers: Parser of each command.
    """
    text = str(error)
    if isinstance(error, TrustError):
        return text
    if found := re.search(r"unrecognized arguments: (\S+)", text):
        return _unknown_flag(found[1], words, parsers)
    if found := re.search(r"does not accept option '(\S+)'", text):  # of a YAML file
        return _unknown_flag(f"--{found[1]}", words, parsers)
    if found := re.search(r"invalid choice: '?([^' ]*)'? \(choose from (.*)\)", text):
        return f"unknown command {found[1]!r}; valid: {', '.join(parsers)}"
    if "Missing required" in text or 'expected "command"' in text or "subcommand" in text:
        return f"{' '.join(text.split())}; commands: {', '.join(parsers)}"
    keys = re.findall(r'Parser key "([\w.]+)"', text)
    flag = "--" + ".".join(keys)
    if found := re.search(r"Option '([\w.]+)' is not accepted\..*?class_path='([\w.]+)'", text):
        inner = re.findall(r"Problem with given class_path '([\w.]+)'", text)
        return _unknown_option(flag, found[1], inner[-1] if inner else found[2])
    if found := re.search(r"Expected a dot import path string: ([\w.]+)", text):
        return _unknown_name(flag, f"unknown name {found[1].rstrip('.')!r}")
    if found := re.search(r"Unexpected import path format: (.+?)\. Got value", text):
        return _unknown_name(flag, f"{found[1]!r} is no name")
    if found := re.search(_IMPORT_PROBLEMS, text):
        return _unknown_name(flag, found[0] + _where_to_run(found[0]))
    found = re.search(r"following arguments are required: (\w+(?:, \w+)*)", text)
    if found and keys:
        return f"{flag}: needs {', '.join(f'{flag}.{name}' for name in found[1].split(', '))}"
    if found := re.search(r"Literal\[(.*?)\]\. Got value: (.*)", text):
        return f"{flag}: got {found[2]!r}; valid: {found[1]}"
    wrong_type = r"Expected a (?:<class ')?([\w.]+).*?Got value: (.*?)(?:\. Got|$)"
    if found := re.search(wrong_type, text):
        return f"{flag}: expected {found[1]}; got {found[2]!r}"
    return " ".join(text.split())


def _unknown_flag(flag: str, words: Sequence[str], parsers: Mapping[str, ArgumentParser]) -> str:
    command = next((word for word in words if word in parsers), None)
    if command is None:
        return f"unknown flag {flag}; commands: {', '.join(parsers)}"
    actions = parsers[command]._actions
    known = [o for a in actions for o in a.option_strings if o.startswith("--")]
    known = [option for option in known if not option.endswith((".help", "+"))]
    close = difflib.get_close_matches(flag.split("=")[0], known, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"unknown flag {flag} of {command}{hint}; valid: {' '.join(known)}"


def _unknown_option(flag: str, option: str, class_path: str) -> str:
    module, _, name = class_path.rpartition(".")
    # as it is loaded: the text of an error may be made to name any module
    owner = getattr(sys.modules.get(module), name, None)
    if owner is None:
        return f"{flag}: {class_path} has no option {option!r}"
    valid = [key for key in inspect.signature(owner).parameters if key not in ("shape", "params")]
    return f"{flag}: {name} has no option {option!r}; valid: {', '.join(valid)}"


def _where_to_run(problem: str) -> str:
    """How a module of the user's own is found, which another folder does not hold."""
    found = re.match(r"No module named '([^'.]+)", problem)
    if found is None or found[1] == "aevb":
        return ""
    return f" (run from the folder of {found[1]}.py, or add that folder to PYTHONPATH)"


def _unknown_name(flag: str, problem: str) -> str:
    family = _FAMILIES.get(flag.rsplit(".", 1)[-1].lstrip("-"))
    if family is None:
        return f"{flag}: {problem}; expected an import path, such as torch.nn.ReLU"
    module, base = family
    names = [value.__name__ for value in members(module, base)]
    return f"{flag}: {problem}; valid: {', '.join(names)}, or an import path"
