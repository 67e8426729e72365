"""Discrete latents of a program, summed out by Pyro's enumeration."""

from collections.abc import Callable, Collection
from typing import Any

from pyro import poutine

__all__ = ["is_enumerable", "summing_out"]

Program = Callable[..., Any]


def is_enumerable(site: Any) -> bool:
    """Whether a site is a latent with finitely many values."""
    return not site["is_observed"] and bool(getattr(site["fn"], "has_enumerate_support", False))


def summing_out(model: Program, drawn: Collection[str]) -> Program:
    """A model with all discrete latents but those ``drawn`` elsewhere marked as enumerated."""

    def marks(site: Any) -> dict[str, str]:
        wanted = site["type"] == "sample" and site["name"] not in drawn and is_enumerable(site)
        return {"enumerate": "parallel"} if wanted else {}

    marked: Program = poutine.infer_config(model, config_fn=marks)
    return marked
