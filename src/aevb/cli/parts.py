"""Every part that a model can be made of, read from its own docstring."""

import dataclasses
import inspect
import re
from typing import Any

from aevb import inference, models

__all__ = ["FAMILIES", "members", "parts", "summary"]

# Which names a flag takes, by the last word of the flag.
FAMILIES: dict[str, tuple[Any, type]] = {
    "model": (models, models.LatentVariableModel),
    "prior": (models.priors, models.Prior),
    "likelihood": (models.likelihoods, models.Likelihood),
    "posterior": (models.posteriors, models.Posterior),
    "network": (models, models.Network),
    "input_noise": (models, models.InputNoise),
    "weights": (models, models.Weights),
    "scale": (models, models.Scale),
    "initializer": (models, models.Initializer),
    "objective": (inference, inference.Objective),
}


def members(module: Any, base: type) -> list[type]:
    """The public classes of a family that can be made, by name.

    Args:
        module: Where they are exported.
        base: What they derive from.
    """
    return sorted(
        (
            value
            for key, value in vars(module).items()
            if inspect.isclass(value) and issubclass(value, base) and not inspect.isabstract(value)
            if value is not base and not key.startswith("_")
        ),
        key=lambda value: value.__name__,
    )


def parts(family: str | None = None) -> list[dict[str, str]]:
    """List every part: its family, one line on it, its parameters and its source.

    Args:
        family: One of model, prior, likelihood, posterior, network, input_noise, weights, scale,
            initializer or objective; by default all.

    Returns:
        A row for each part.

    Example:
        >>> [row["parameters"] for row in parts() if row["name"] == "VampPrior"]
        ['components=500, low=0.0, high=1.0']
    """
    if family is not None and family not in FAMILIES:
        raise ValueError(f"family: unknown name {family!r}; valid: {', '.join(FAMILIES)}")
    return [
        {
            "family": name,
            "name": part.__name__,
            "summary": summary(part),
            "parameters": _parameters(part),
            "source": _source(part),
        }
        for name, (module, base) in FAMILIES.items()
        if family in (None, name)
        for part in members(module, base)
    ]


def summary(part: type) -> str:
    """The first sentence of a part's docstring, formulas as they are written."""
    text = inspect.getdoc(part) or ""
    first = " ".join(text.split("\n\n")[0].split())
    return re.sub(r":math:`([^`]*)`", r"\1", first).replace("``", "").replace("`", "")


def _parameters(part: type) -> str:
    shown = []
    for name, parameter in inspect.signature(part).parameters.items():
        if name == "shape":
            continue
        default = parameter.default
        if default is inspect.Parameter.empty:
            shown.append(name)
        elif inspect.isclass(default):
            shown.append(f"{name}={default.__name__}")
        elif dataclasses.is_dataclass(default):
            shown.append(f"{name}={type(default).__name__}()")
        else:
            shown.append(f"{name}={default!r}")
    return ", ".join(shown)


def _source(part: type) -> str:
    """The references of the docstring in one line."""
    text = inspect.getdoc(part) or ""
    found = re.search(r"References:\n(.*?)(?:\n\n|\Z)", text, flags=re.DOTALL)
    return " ".join(found[1].split()) if found else ""
