"""Where the guide puts each datapoint, and which latents the data move."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from aevb.inference.process import randomness
from aevb.inference.process.devices import device_of, moved
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.joint import Joint
from aevb.inference.programs.layouts import (
    Layout,
    batch_shape,
    by_datapoint,
    read_model_layout,
    sites,
)

__all__ = [
    "ActiveUnits",
    "Embedding",
    "active_units",
    "check_samples",
    "column_names",
    "embed",
    "refuse_joint",
]


@dataclass(frozen=True)
class Embedding:
    """Means and scales of each datapoint's posterior; columns are the sites one after the other.

    Attributes:
        mean: ``(N, latent)``.
        scale: Posterior standard deviations, ``(N, latent)``.
        standard_error: Of ``mean``: 0 where the guide says its mean, else that of Monte Carlo.
        names: Of the columns: ``"z[0]"`` for a dimension of site ``"z"``.

    Example:
        >>> zero = torch.zeros(3, 1)
        >>> Embedding(zero, zero + 1, zero, ("z",))
        Embedding(3 datapoints × 1 latents)
    """

    mean: Tensor
    scale: Tensor
    standard_error: Tensor
    names: tuple[str, ...]

    def __repr__(self) -> str:
        """One line."""
        return f"Embedding({self.mean.shape[0]} datapoints × {self.mean.shape[1]} latents)"


@dataclass(frozen=True)
class ActiveUnits:
    """Which latents the data move.

    Attributes:
        variance: Over datapoints, of each latent's posterior mean, ``(latent,)``.
        threshold: Above it a unit is active.
        names: Of the latents.

    Example:
        >>> units = ActiveUnits(torch.tensor([0.9, 0.001]), 0.01, ("z[0]", "z[1]"))
        >>> units.count, units.is_active
        (1, tensor([ True, False]))
    """

    variance: Tensor
    threshold: float
    names: tuple[str, ...]

    @property
    def is_active(self) -> Tensor:
        """``(latent,)``."""
        return self.variance > self.threshold

    @property
    def count(self) -> int:
        """How many are active."""
        return int(self.is_active.sum())

    def __repr__(self) -> str:
        """One line."""
        return f"ActiveUnits({self.count} of {len(self.variance)}, threshold={self.threshold})"


def embed(
    guide: Callable[..., Any], *args: Any, num_samples: int = 1000, seed: int = 0
) -> Embedding:
    """Posterior means and scales of every datapoint.

    They are read off the guide's distributions where these do not depend on what was drawn and
    know their moments; the other sites' come from draws.

    Args:
        guide: Pyro program whose latent sites lie in ``pyro.plate("data", N)``.
        args: Its arguments.
        num_samples: Draws, where they are needed.
        seed: Of the draws; torch's global random state is left as it was.

    Raises:
        ValueError: If ``num_samples`` is below 2, or a latent site does not lie in the data plate.

    Example:
        >>> from aevb.models import DLGM
        >>> embedding = embed(DLGM((4, 4), latent_dims=[3, 2]).guide, torch.zeros(5, 4, 4))
        >>> embedding.mean.shape, embedding.names
        (torch.Size([5, 5]), ('z2[0]', 'z2[1]', 'z1[0]', 'z1[1]', 'z1[2]'))
    """
    check_samples(num_samples)
    device = device_of(guide, args=args)
    args = moved(args, device)
    with torch.no_grad(), randomness.stream(seed, "embed", device), argument_checks(False):
        layout, first = read_model_layout(guide, *args)
        refuse_joint(layout)
        second = poutine.trace(guide).get_trace(*args)
        known = {name: _moments(site, second.nodes[name], layout) for name, site in sites(first)}
        if not all(known.values()):
            draws, _ = Joint(guide, *args, guide=guide, layout=layout).draw(num_samples)
        columns = [
            moments or _sample_moments(by_datapoint(draws[name], layout))
            for name, moments in known.items()
        ]
    mean, scale, error = (torch.cat(part, -1) for part in zip(*columns, strict=True))
    return Embedding(mean, scale, error, column_names(known, [column[0] for column in columns]))


def active_units(
    guide: Callable[..., Any],
    *args: Any,
    threshold: float = 0.01,
    num_samples: int = 1000,
    seed: int = 0,
) -> ActiveUnits:
    r"""Latent dimensions whose posterior mean varies over the data.

    .. math:: A_u = \mathrm{Var}_x \left( E_{q(z|x)}[z_u] \right) > 0.01

    Means that come from draws vary by their own error as well, which is taken off.

    References:
        Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), section 4.2,
        https://arxiv.org/abs/1509.00519

    Args:
        guide: As for :func:`embed`.
        args: Its arguments, for at least two datapoints.
        threshold: Of the variance.
        num_samples: Draws, where a mean has no closed form.
        seed: Of the draws.

    Raises:
        ValueError: As :func:`embed`; or if there is only one datapoint.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> active_units(FactorAnalysis((5,), 2).guide, torch.zeros(4, 5)).count
        0
    """
    embedding = embed(guide, *args, num_samples=num_samples, seed=seed)
    if len(embedding.mean) < 2:
        raise ValueError("args: a variance over the data needs at least two datapoints")
    noise = embedding.standard_error.square().mean(0)
    return ActiveUnits(embedding.mean.var(0) - noise, threshold, embedding.names)


def _moments(site: Any, again: Any, layout: Layout) -> tuple[Tensor, Tensor, Tensor] | None:
    """Mean, scale and no error, ``(N, size)`` each, unless they depend on what was drawn."""
    try:
        first, second = ((fn.mean, fn.variance.sqrt()) for fn in (site["fn"], again["fn"]))
    except (NotImplementedError, AttributeError):
        return None
    if not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        return None
    shape = batch_shape(site, layout, 1) + site["fn"].event_shape
    mean, scale = (by_datapoint(value.expand(shape), layout)[0] for value in first)
    if not bool(torch.isfinite(mean).all() and torch.isfinite(scale).all()):
        return None
    return mean, scale, torch.zeros_like(mean)


def _sample_moments(draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scale = draws.std(0)
    return draws.mean(0), scale, scale / len(draws) ** 0.5


def column_names(by_site: Iterable[str], columns: list[Tensor]) -> tuple[str, ...]:
    """``"z[0]"`` and so on for a site of several columns, ``"z"`` for one of a single column."""
    return tuple(
        name if part.shape[-1] == 1 else f"{name}[{index}]"
        for name, part in zip(by_site, columns, strict=True)
        for index in range(part.shape[-1])
    )


def refuse_joint(layout: Layout) -> None:
    """Refuse programs under which datapoints share their latents by a ``ValueError``."""
    if layout.num_datapoints is None:
        raise ValueError(
            'guide: not every latent site lies in pyro.plate("data", N), so that datapoints have '
            "no posteriors of their own; for latent weights use model.at_mean_weights()"
        )


def check_samples(num_samples: int) -> None:
    """Refuse fewer draws than a standard error needs by a ``ValueError``."""
    if num_samples < 2:
        raise ValueError(f"num_samples: must be at least 2; got {num_samples}")
