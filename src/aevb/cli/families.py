"""Which names and flags stand below the flags that take a part."""

import inspect
from typing import Any

import torch

from aevb.cli.parts import FAMILIES, members

__all__ = ["FLAGS", "names_of", "own_flags", "part_flags"]

# Where the parts of a family come from, by the last word of the flag.
FLAGS: dict[str, tuple[Any, type]] = {
    **FAMILIES,
    "optimizer": (torch.optim, torch.optim.Optimizer),
    "schedule": (torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler),
}
# Arguments that parts get from elsewhere and not by flags.
_GIVEN = {"shape", "params", "lr", "optimizer"}


def names_of(flag: str) -> list[str]:
    """The names that a flag takes, by its last word; none if it takes no part.

    Example:
        >>> names_of("weights")
        ['LatentWeights']
    """
    return [part.__name__ for part in members(*FLAGS[flag])] if flag in FLAGS else []


def own_flags(part: type) -> dict[str, inspect.Parameter]:
    """The options of a part by name."""
    return {
        name: parameter
        for name, parameter in inspect.signature(part).parameters.items()
        if name not in _GIVEN and parameter.kind is not parameter.VAR_KEYWORD
    }


def part_flags() -> list[str]:
    """Flags of models and of their parts, those of models first.

    Example:
        >>> "--model.prior.components" in part_flags()
        True
    """
    models = {name: None for part in members(*FLAGS["model"]) for name in own_flags(part)}
    found = [f"--model.{name}" for name in models]
    for name in models:
        parts = members(*FLAGS[name]) if name in FLAGS else []
        below = {option: None for part in parts for option in own_flags(part)}
        found += [f"--model.{name}.{option}" for option in below]
    for name in ("objective", "initializer", "optimizer", "schedule"):
        below = {option: None for part in members(*FLAGS[name]) for option in own_flags(part)}
        found += [f"--{name}.{option}" for option in below]
    return found
