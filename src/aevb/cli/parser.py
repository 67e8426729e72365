"""The parsers: flags and YAML from the type hints of the commands."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import (  # type: ignore[attr-defined] # one is not in its __all__
    ActionConfigFile,
    ArgumentParser,
    set_parsing_settings,
)

from aevb.cli.commands import COMMANDS, command
from aevb.cli.runs import open_run
from aevb.cli.trust import guarded, read_config

__all__ = ["Parser", "Parsers"]

# Arguments that functions get from the command line itself and not from the user.
_WIRED: set[str | int] = {
    "write_config",
    "saved",
    "settings",
    "reopen",
    "name",
    "listing",
    "folders",
}

# A class that stands where any value may stand is left as text: nothing asks for it.
set_parsing_settings(instantiate_subclass_spec_in_any=False)


class Parser(ArgumentParser):
    """Takes flags by their full names alone, here and in the parsers of the parts.

    Attributes:
        trusted: Modules beyond ours that a configuration file may name.
    """

    trusted: Sequence[str] = ()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "allow_abbrev": False})


class Parsers(dict[str, Parser]):
    """The parser of each command, made when it is asked for.

    Args:
        trusted: Modules beyond ours that a configuration file may name.

    Example:
        >>> Parsers()["sample"].parse_args(["run", "--num", "3"]).num
        3
    """

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        super().__init__()
        self._trusted = trusted

    def __missing__(self, name: str) -> Parser:
        self[name] = _parser(name)
        self[name].trusted = self._trusted
        return self[name]


class _ConfigFile(ActionConfigFile):
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


def _parser(name: str) -> Parser:
    function = command(name)
    parser = Parser(prog=f"aevb {name}", description=COMMANDS[name], exit_on_error=False)
    parser.add_argument("--config", action=_ConfigFile, help="YAML file with any of these flags")
    parser.add_argument(
        "--trust",
        metavar="MODULE",
        help="a module beyond aevb and torch whose classes a run or YAML file may name, found "
        "from the working directory; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, no more")
    if "saved" in inspect.signature(function).parameters:
        parser.add_function_arguments(open_run, as_positional=True, skip=_WIRED)
    if name == "diff":
        parser.add_argument(
            "folders", nargs="+", type=Path, help="run folders, the first to compare to"
        )
    if name == "reproduce":  # a word that may be missing, and a flag without a value
        parser.add_argument("name", nargs="?", help="item to regenerate")
        parser.add_argument(
            "--list",
            dest="listing",
            action="store_true",
            help="list the items, how far each is and what it costs",
        )
    parser.add_function_arguments(function, as_positional=True, skip=_WIRED)
    return parser
