"""Latents and data drawn from a model itself, where the posterior's exact draws are known."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.layouts import float64_log_prob, sites, value_of

__all__ = ["Simulation", "simulate", "unobserved"]


@dataclass(frozen=True, repr=False)
class Simulation:
    """One draw of everything in a model.

    Attributes:
        model: The program conditioned on the simulated data.
        latents: The draw of each latent site, ``(*plates, *event)``: one exact draw of its
            posterior given ``data``.
        data: What each observed site would have seen, ``(*plates, *event)``.
        args: The program's arguments, with simulated data in place of the observed ones.
        sources: The observed site that each argument is the data of, or None.
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
    sources: tuple[str | None, ...]
    hidden: tuple[str, ...]

    def __repr__(self) -> str:
        """One line: the shapes of latents and data."""
        latents, data = (
            {name: tuple(value.shape) for name, value in sites.items()}
            for sites in (self.latents, self.data)
        )
        return f"Simulation(latents={latents}, data={data})"


def unobserved(model: Callable[..., Any]) -> Callable[..., Any]:
    """The program with its data drawn anew.

    Unlike :func:`pyro.poutine.uncondition` it leaves ``pyro.deterministic`` sites alone, which
    Pyro would draw once for each entry of the plates that they lie in.

    Returns:
        A Pyro program of the same arguments, without observations.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> free = unobserved(FactorAnalysis((5,), 2).model)
        >>> poutine.trace(free).get_trace(torch.zeros(3, 5)).nodes["x"]["is_observed"]
        False
    """

    def free(*args: Any, **kwargs: Any) -> Any:
        with _Unobserved():
            return model(*args, **kwargs)

    return free


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
        ValueError: If the model observes nothing, or reads what it observes in other places too,
            as lags or a standard deviation, so that data drawn given the old ones are no draw of
            the model; or if two arguments equal what one site observes.

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
        free = poutine.trace(unobserved(model)).get_trace(*args)
    observed = [
        name
        for name, site in sites(given)
        if site["is_observed"] and not site["infer"].get("_deterministic")
    ]
    if not observed:
        raise ValueError("model: observes nothing, so there is nothing to simulate")
    data = {name: value_of(free, name) for name in observed}
    latents = {
        name: value_of(free, name) for name, site in sites(given) if not site["is_observed"]
    }
    conditioned = poutine.condition(unobserved(model), data=data)
    sources = _sources(args, given, observed)
    new_args = tuple(
        value if name is None else data[name].to(value.dtype)
        for value, name in zip(args, sources, strict=True)
    )
    hidden = tuple(name for name in observed if name not in sources)
    _refuse_other_readers(conditioned, args, new_args, {**latents, **data})
    return Simulation(conditioned, latents, data, new_args, tuple(sources), hidden)


def _sources(args: tuple[Any, ...], given: poutine.Trace, observed: list[str]) -> list[str | None]:
    """The site that observes each argument: the tensor itself, or else an equal one."""
    sources: list[str | None] = [None] * len(args)
    tensors = [(place, value) for place, value in enumerate(args) if isinstance(value, Tensor)]
    for name in observed:
        old = value_of(given, name)
        same = [place for place, value in tensors if value is old]
        if not same:
            same = [
                place
                for place, value in tensors
                if sources[place] is None
                and old.shape == value.shape
                and torch.equal(old.to(value.dtype), value)
            ]
            if len(same) > 1:
                raise ValueError(
                    f"args: {len(same)} of them equal what site {name!r} observes, so that it "
                    "cannot be told which is the data; let covariates have other values"
                )
        for place in same:
            sources[place] = name
    return sources


def _refuse_other_readers(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    new_args: tuple[Any, ...],
    values: dict[str, Tensor],
) -> None:
    """The same values must be as probable whether the arguments are old data or new."""
    fixed = poutine.condition(model, data=values)
    with torch.no_grad(), argument_checks(False):
        old, new = (poutine.trace(fixed).get_trace(*given) for given in (args, new_args))
    for name, site in sites(old):
        before = float64_log_prob(site["fn"], site["value"])
        after = float64_log_prob(new.nodes[name]["fn"], value_of(new, name))
        if before.shape != after.shape or not torch.allclose(
            before, after, rtol=1e-4, atol=1e-4, equal_nan=True
        ):
            raise ValueError(
                f"model: site {name!r} depends on observed arguments in another way than by "
                "observing them, so that there is no drawing such data from it"
            )


class _Unobserved(Messenger):
    """Draws what a program observes, but not what it merely names."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] and not msg["infer"].get("_deterministic"):
            msg["is_observed"], msg["value"], msg["done"] = False, None, False
