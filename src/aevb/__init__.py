"""Deep latent-variable models in Pyro that can be trusted and are fast."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aevb import data, evaluation, inference, models, sklearn
    from aevb.opening import open as open

__version__ = version("aevb")

# without `open`, which `from aevb import *` must not put in the place of Python's
__all__ = ["__version__", "data", "evaluation", "inference", "models", "sklearn"]


def __getattr__(name: str) -> Any:
    """A layer, imported when it is first asked for: torch and Pyro take seconds."""
    if name == "open":
        return import_module("aevb.opening").open
    if name not in __all__:
        raise AttributeError(f"module 'aevb' has no attribute {name!r}")
    return import_module(f"aevb.{name}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "open"])
