"""Latents and data drawn from a model itself, where the posterior's exact draws are known."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from aevb.inference.layouts import sites, value_of
from aevb.inference.switches import argument_checks

__all__ = ["Simulation", "simulate"]


@dataclass(frozen=True)
class Simulation:
    """One draw of everything in a model.

    Attributes:
        model: The program conditioned on the simulated data.
        latents: The draw of each latent site, ``(*plates, *event)``: one exact draw of its
            posterior given ``data``.
        data: What each observed site would have seen, ``(*plates, *event)``.
        args: The program's arguments, with simulated data in place of the observed ones.
        hidden: Observed sites whose data were not found among the arguments, so that a guide
            called with ``args`` does not see what was simulated for them.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> simulate(FactorAnalysis((5,), 2).model, torch.zeros(3, 5)).hidden
        ()
    """

    model: Callable[..., Any]
    latents: dict[str, Tensor]
    data: dict[str, Tensor]
    args: tuple[Any, ...]
    hidden: tuple[str, ...]


def simulate(model: Callable[..., Any], *args: Any) -> Simulation:
    r"""Draw latents from the prior and data from the likelihood.

    .. math:: z \sim p(z), \qquad x \sim p(x \mid z), \qquad \text{so that } z \sim p(z \mid x)

    References:
        Getting it Right: Joint Distribution Tests of Posterior Simulators (Geweke, 2004),
        https://doi.org/10.1198/016214504000001132

    Args:
        model: Pyro program of the joint distribution.
        args: Its arguments; of observed ones only the shape matters.

    Returns:
        The draw, from torch's global generator.

    Raises:
        ValueError: If the model observes nothing.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> simulation = simulate(FactorAnalysis((5,), 2).model, torch.zeros(3, 5))
        >>> simulation.latents["z"].shape, simulation.data["x"].shape
        (torch.Size([3, 2]), torch.Size([3, 5]))
        >>> simulation.args[0] is simulation.data["x"]
        True
    """
    with torch.no_grad(), argument_checks(False):
        given = poutine.trace(model).get_trace(*args)
        free = poutine.trace(poutine.uncondition(model)).get_trace(*args)
    observed = [name for name, site in sites(given) if site["is_observed"]]
    if not observed:
        raise ValueError("model: observes nothing, so there is nothing to simulate")
    data = {name: value_of(free, name) for name in observed}
    latents = {name: value_of(free, name) for name, _ in sites(given) if name not in data}
    conditioned = poutine.condition(poutine.uncondition(model), data=data)
    sources = [_source(value, given, observed) for value in args]
    new_args = tuple(
        value if name is None else data[name].to(value.dtype)
        for value, name in zip(args, sources, strict=True)
    )
    hidden = tuple(name for name in observed if name not in sources)
    return Simulation(conditioned, latents, data, new_args, hidden)


def _source(value: Any, given: poutine.Trace, observed: list[str]) -> str | None:
    """The site that observes an argument: the tensor itself, or else an equal one."""
    if not isinstance(value, Tensor):
        return None
    for name in observed:
        if value_of(given, name) is value:
            return name
    for name in observed:
        old = value_of(given, name)
        if old.shape == value.shape and torch.equal(old.to(value.dtype), value):
            return name
    return None
