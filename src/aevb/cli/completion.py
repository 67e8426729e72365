"""Scripts by which a shell completes the words of the command line."""

import argparse
import sys
from typing import Any

from aevb.cli.commands import COMMANDS

__all__ = ["completion"]

_HOW = {
    "bash": "aevb --print_completion bash > ~/.local/share/bash-completion/completions/aevb",
    "zsh": "aevb --print_completion zsh > ~/.zfunc/_aevb  # fpath+=~/.zfunc before compinit",
    "tcsh": "aevb --print_completion tcsh > ~/.aevb.tcsh  # source ~/.aevb.tcsh in ~/.tcshrc",
}
_FILES = {"config", "out", "run", "data", "data_root", "resume", "runs"}


def completion(shell: str) -> int:
    """Print the script of a shell on standard output, and on standard error where it belongs.

    Args:
        shell: bash, zsh or tcsh.

    Returns:
        Exit code.
    """
    try:
        import shtab
    except ImportError:
        wanted = "aevb: error: --print_completion needs shtab: pip install 'aevb[completion]'"
        print(wanted, file=sys.stderr)  # noqa: T201
        return 2
    print(shtab.complete(_words(shtab.FILE), shell))  # noqa: T201
    print(f"# to switch it on:\n#   {_HOW[shell]}", file=sys.stderr)  # noqa: T201
    return 0


def _words(files: Any) -> argparse.ArgumentParser:
    """Every command with its flags and their values, as a parser that shtab can read.

    jsonargparse's own would list every class of torch below every flag that takes one.
    """
    from aevb.cli.families import names_of, part_flags
    from aevb.cli.parser import Parsers
    from aevb.data.sources import DATASETS

    whole = argparse.ArgumentParser(prog="aevb")
    whole.add_argument("--version", action="store_true", help="show the version")
    commands = whole.add_subparsers()
    parsers = Parsers()
    for name, text in COMMANDS.items():
        child = commands.add_parser(name, help=text)
        flags = {a.dest: a for a in parsers[name]._actions if a.help != argparse.SUPPRESS}
        more = {flag.lstrip("-"): None for flag in part_flags()} if name == "train" else {}
        for dest, action in {**more, **flags}.items():
            if dest in ("help", "print_config") or dest.endswith(".help"):
                continue
            positional = action is not None and not action.option_strings
            words = [dest] if positional else [f"--{dest}"]
            if action is not None and action.nargs == 0:
                child.add_argument(*action.option_strings, action="store_true")
                continue
            choices = names_of(dest.rpartition(".")[2]) or (action.choices if action else None)
            choices = choices or getattr(getattr(action, "_typehint", None), "__args__", None)
            named = choices and all(isinstance(choice, str) for choice in choices)
            added = child.add_argument(*words, choices=choices if named else None)
            if dest == "data":
                added.choices = DATASETS
            elif dest in _FILES:
                added.complete = files  # type: ignore[attr-defined]
    return whole
