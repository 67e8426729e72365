"""The parser: flags and YAML from the type hints of the commands."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import (  # type: ignore[attr-defined] # one is not in its __all__
    ActionConfigFile,
    ArgumentParser,
    set_parsing_settings,
)

import aevb
from aevb.cli.card import card
from aevb.cli.compare import compare
from aevb.cli.embed import embed
from aevb.cli.evaluate import evaluate
from aevb.cli.explore import explore
from aevb.cli.export import export
from aevb.cli.impute import impute
from aevb.cli.parts import parts
from aevb.cli.posterior import posterior
from aevb.cli.reproduce import reproduce
from aevb.cli.runs import open_run
from aevb.cli.sample import sample
from aevb.cli.train import train
from aevb.cli.trust import guarded, read_config

__all__ = ["COMMANDS", "Parser", "command_line"]

# Each command with its line of help. Those that take a ``saved`` run are given an opened one.
COMMANDS: dict[str, tuple[Callable[..., Any], str]] = {
    "train": (train, "train a model, evaluate it and draw its pictures"),
    "evaluate": (evaluate, "estimate the evidence of a run"),
    "compare": (compare, "put the posterior of a run on trial against chains"),
    "posterior": (posterior, "draw posteriors that pass their test"),
    "embed": (embed, "posterior means of the data of a run, and the units in use"),
    "explore": (explore, "look at the latents, posteriors and evidence of a run on a page"),
    "impute": (impute, "hide values of the data of a run and fill them in"),
    "sample": (sample, "draw from the model of a run"),
    "export": (export, "encoder, decoder and log-weights of a run as torch.export and ONNX"),
    "card": (card, "make a run folder a Hugging Face repository, with a model card"),
    "parts": (parts, "list what models can be made of"),
    "reproduce": (reproduce, "regenerate a figure or table of the papers"),
}
# Arguments that functions get from the command line itself and not from the user.
_WIRED: set[str | int] = {"write_config", "saved", "settings", "reopen", "name", "listing"}

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


def command_line() -> tuple[Parser, dict[str, Parser]]:
    """The whole parser, and those of the commands."""
    parser = Parser(prog="aevb", description="Deep latent-variable models, trained and judged.")
    parser.exit_on_error = False
    parser.add_argument("--version", action="version", version=f"aevb {aevb.__version__}")
    subcommands = parser.add_subcommands(required=True, dest="command")
    parsers = {}
    for name, (command, text) in COMMANDS.items():
        child = Parser(description=text, exit_on_error=False)
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
        if "saved" in inspect.signature(command).parameters:
            child.add_function_arguments(open_run, as_positional=True, skip=_WIRED)
        if command is reproduce:  # a word that may be missing, and a flag without a value
            child.add_argument("name", nargs="?", help="item to regenerate")
            child.add_argument(
                "--list",
                dest="listing",
                action="store_true",
                help="list the items, how far each is and what it costs",
            )
        child.add_function_arguments(command, as_positional=True, skip=_WIRED)
        subcommands.add_subcommand(name, child, help=text)
        parsers[name] = child
    return parser, parsers
