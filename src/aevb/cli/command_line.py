"""The ``aevb`` command as far as no model is concerned: help, version, words that are none.

Nothing heavy is imported here, so that these answer at once; the rest is in ``running``.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from aevb.cli.commands import COMMANDS

__all__ = ["main"]

_FIRST = """\
first steps:
  aevb train                 a variational autoencoder of handwritten digits, in seconds
  aevb train --help          the flags of training; --help-all shows all of them
  aevb parts                 priors, likelihoods, posteriors and objectives to choose from

A run folder RUN, as training leaves it, is what the other commands take: aevb compare RUN.
Completion by TAB: aevb --print_completion bash (or zsh, tcsh) says how to switch it on.
"""
_SHELLS = ("bash", "zsh", "tcsh")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Words of the command line; by default those of the process.

    Returns:
        Exit code: 0, 1 if the work failed, 2 if the command was not understood, 130 or 143
        after Ctrl-C or SIGTERM, and 141 if nobody read the result.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    trusted, words = _trusted(words)
    if words and words[0] in COMMANDS and all(map(_is_module, trusted)):
        if (trusted or _names_own(words)) and str(Path.cwd()) not in sys.path:
            # last, so that nothing installed is replaced by a file that happens to lie here
            sys.path.append(str(Path.cwd()))
        from aevb.cli.running import run

        return run(words[0], words[1:], trusted)
    return _answer(words, trusted)


def _answer(words: list[str], trusted: list[str]) -> int:
    """What needs no command."""
    from aevb import __version__

    if words[:1] in (["-h"], ["--help"], ["--help-all"]):
        print(_help())  # noqa: T201
        return 0
    if words[:1] == ["--version"]:
        print(f"aevb {__version__}")  # noqa: T201
        return 0
    if words[:1] == ["--print_completion"] and words[1:2] and words[1] in _SHELLS:
        from aevb.cli.completion import completion

        return completion(words[1])
    print(f"aevb: error: {_mistake(words, trusted)}", file=sys.stderr)  # noqa: T201
    return 2


def _mistake(words: list[str], trusted: list[str]) -> str:
    if wrong := [module for module in trusted if not _is_module(module)]:
        return f"--trust: {wrong[0]!r} is no module; expected a name, such as mine for mine.py"
    if words[:1] == ["--print_completion"]:
        return f"--print_completion: expected a shell, one of {', '.join(_SHELLS)}"
    if not words:
        return f"no command; valid: {', '.join(COMMANDS)}"
    if words[0].startswith("-"):
        return (
            f"unknown flag {words[0]} before the command; valid: --help, --version, "
            f"--print_completion, or a command: {', '.join(COMMANDS)}"
        )
    close = difflib.get_close_matches(words[0], COMMANDS, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in words[0])
    return f"unknown command {shown!r}{hint}; valid: {', '.join(COMMANDS)}"


def _help() -> str:
    parser = argparse.ArgumentParser(
        prog="aevb",
        usage="aevb COMMAND [flags]      aevb COMMAND --help says which",
        description="Deep latent-variable models, trained and judged.",
        epilog=_FIRST,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    commands = parser.add_subparsers(title="commands", metavar="")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text)
    options = parser.add_argument_group("options")
    options.add_argument("--help", action="store_true", help="show this help")
    options.add_argument("--version", action="store_true", help="show the version")
    options.add_argument(
        "--print_completion", metavar="SHELL", help="print a script for completion in the shell"
    )
    return parser.format_help().rstrip()


def _trusted(words: list[str]) -> tuple[list[str], list[str]]:
    """The modules that the command line trusts, and its other words; no file may add to them."""
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    reader.add_argument("--trust", action="append", default=[])
    try:
        found, others = reader.parse_known_args(words)
    except argparse.ArgumentError:  # without its value, which the parser of the command says
        return [], words
    return found.trust, others


def _is_module(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _names_own(words: list[str]) -> bool:
    """Whether flags name a module that lies in the working directory."""
    names = {name for word in words for name in re.findall(r"([^\W\d]\w*)\.[^\W\d]", word)}
    return any(Path(f"{name}.py").is_file() or Path(name).is_dir() for name in names)
