"""The commands by name, each with its line of help; none is imported before it is asked for."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["COMMANDS", "command"]

COMMANDS: dict[str, str] = {
    "train": "train a model, evaluate it and draw its pictures",
    "evaluate": "estimate the evidence of a run",
    "compare": "put the posterior of a run on trial against chains",
    "posterior": "draw posteriors that pass their test",
    "embed": "posterior means of the data of a run, and the units in use",
    "explore": "look at the latents, posteriors and evidence of a run on a page",
    "impute": "hide values of the data of a run and fill them in",
    "sample": "draw from the model of a run",
    "export": "encoder, decoder and log-weights of a run as torch.export and ONNX",
    "card": "make a run folder a Hugging Face repository, with a model card",
    "diff": "settings, evidences and curves of runs beside each other",
    "parts": "list what models can be made of",
    "reproduce": "regenerate a figure or table of the papers",
}


def command(name: str) -> Callable[..., Any]:
    """The function of that name in the file of that name.

    One that takes a ``saved`` run is given an opened one.

    Args:
        name: Of :data:`COMMANDS`.

    Example:
        >>> command("parts").__module__
        'aevb.cli.parts'
    """
    function: Callable[..., Any] = getattr(import_module(f"aevb.cli.{name}"), name)
    return function
