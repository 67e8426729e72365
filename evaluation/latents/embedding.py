"""What the latents hold: embeddings, active units, and nats for each dimension."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro import distributions as dist
from pyro import poutine
from torch import Tensor
from torch.distributions import kl_divergence

from aevb.inference.process import randomness
from aevb.inference.process.devices import device_of, moved
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.joint import Joint
from aevb.inference.programs.layouts import (
    Layout,
    batch_shape,
    by_datapoint,
    in_plate,
    read_model_layout,
    sites,
    value_of,
)

__all__ = [
    "ActiveUnits",
    "Embedding",
    "KLPerDimension",
    "active_units",
    "embed",
    "kl_per_dimension",
]

_BYTES_AT_ONCE = 128 * 2**20  # of one evaluation of the model


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


@dataclass(frozen=True)
class KLPerDimension:
    """Divergence of posterior from prior, in parts whose sum is the ELBO's KL term.

    Attributes:
        kl: In nats, ``(N, parts)``.
        standard_error: Of Monte Carlo; 0 where the closed form was used.
        names: Of the parts: ``"z[0]"`` for a dimension, or ``"z"`` for a whole site where the
            posterior or the prior does not factorize over its dimensions.
        seed: Of the draws.

    Example:
        >>> KLPerDimension(torch.ones(3, 2), torch.zeros(3, 2), ("z[0]", "z[1]"), seed=0).mean
        tensor([1., 1.])
    """

    kl: Tensor
    standard_error: Tensor
    names: tuple[str, ...]
    seed: int

    @property
    def mean(self) -> Tensor:
        """Over datapoints, ``(parts,)``."""
        return self.kl.mean(0)

    @property
    def mean_standard_error(self) -> Tensor:
        """Of Monte Carlo, for ``mean``, ``(parts,)``."""
        return self.standard_error.square().sum(0).sqrt() / len(self.kl)

    def __repr__(self) -> str:
        """One line."""
        return (
            f"KLPerDimension({float(self.mean.sum()):.3f} nats in {len(self.names)} parts, mean "
            f"of {len(self.kl)}, seed={self.seed})"
        )


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
    _check(num_samples)
    device = device_of(guide, args=args)
    args = moved(args, device)
    with torch.no_grad(), randomness.stream(seed, "embed", device), argument_checks(False):
        layout, first = read_model_layout(guide, *args)
        _refuse_joint(layout)
        second = poutine.trace(guide).get_trace(*args)
        known = {name: _moments(site, second.nodes[name], layout) for name, site in sites(first)}
        if not all(known.values()):
            draws, _ = Joint(guide, *args, guide=guide, layout=layout).draw(num_samples)
        columns = [
            moments or _sample_moments(by_datapoint(draws[name], layout))
            for name, moments in known.items()
        ]
    mean, scale, error = (torch.cat(part, -1) for part in zip(*columns, strict=True))
    return Embedding(mean, scale, error, _names(known, [column[0] for column in columns]))


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


def kl_per_dimension(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    num_samples: int = 1000,
    seed: int = 0,
) -> KLPerDimension:
    r"""The KL term of the ELBO, datapoint by datapoint and dimension by dimension.

    .. math:: E_{q(z|x)} \left[ \log q(z_d \mid x, \cdot) - \log p(z_d \mid \cdot) \right]

    The closed form of the two distributions is used where there is one, averaged over draws of
    what they depend on (the latents above them); the rest is Monte Carlo. Parts add up to the KL.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), appendix B,
        https://arxiv.org/abs/1312.6114

    Args:
        model: Pyro program of the joint distribution.
        guide: Pyro program of the posterior.
        args: Arguments of both.
        num_samples: Draws, where they are needed.
        seed: Of the draws; torch's global random state is left as it was.

    Raises:
        ValueError: If ``num_samples`` is below 2, a latent site does not lie in the data plate, or
            model and guide do not fit.

    Example:
        >>> from aevb.models import VAE
        >>> vae, x = VAE((4, 4), latent_dim=2), torch.zeros(3, 4, 4)
        >>> divergence = kl_per_dimension(vae.model, vae.guide, x)
        >>> divergence.kl.shape, float(divergence.standard_error.max())
        (torch.Size([3, 2]), 0.0)
    """
    _check(num_samples)
    device = device_of(model, guide, args=args)
    with torch.no_grad(), randomness.stream(seed, "kl", device), argument_checks(False):
        joint = Joint(model, *args, guide=guide)
        _refuse_joint(joint.layout)
        if (joint.way, joint.guide_way) != ("plate", "plate"):
            raise ValueError(
                "model: divergences of single dimensions need sites that broadcast under an "
                "outer plate of draws; index from the right, and leave room for plates on the left"
            )
        parts = _divergences(joint, 2)
        if all(bool((part == part[:1]).all()) for part in parts.values()):
            parts = {name: part[:1] for name, part in parts.items()}  # draws change nothing
        else:
            at_once = max(1, _BYTES_AT_ONCE // joint.cost(joint.draw(1)[0]).num_bytes)
            blocks = [
                _divergences(joint, min(at_once, num_samples - start))
                for start in range(0, num_samples, at_once)
            ]
            parts = {name: torch.cat([block[name] for block in blocks]) for name in parts}
    means, errors = [], []
    for part in parts.values():
        constant = bool((part == part[:1]).all())
        means.append(part[0] if constant else part.mean(0))
        error = torch.zeros_like(part[0]) if constant else part.std(0) / len(part) ** 0.5
        errors.append(error)
    return KLPerDimension(torch.cat(means, -1), torch.cat(errors, -1), _names(parts, means), seed)


def _divergences(joint: Joint, num: int) -> dict[str, Tensor]:
    """Closed forms or log-ratios at draws of the guide, ``(num, N, parts)`` by site."""
    guide: Any = joint.guide
    layout = joint.layout
    trace = poutine.trace(in_plate(guide, layout, num)).get_trace(*joint.args)
    latents = {name: value_of(trace, name) for name, _ in sites(trace)}
    prior = joint.run(joint.model, latents)
    parts = {}
    for name, site in sites(trace):
        value, plates = latents[name], batch_shape(site, layout, num)
        q: Any = site["fn"]
        p: Any = prior.nodes[name]["fn"]
        inner_q, inner_p = _without_independent(q), _without_independent(p)
        event = torch.Size()
        if not inner_q.event_shape and not inner_p.event_shape:
            q, p, event = inner_q, inner_p, q.event_shape  # each dimension is a part
        try:
            divergence = kl_divergence(q, p)
        except NotImplementedError:
            divergence = q.log_prob(value) - p.log_prob(value)
        parts[name] = by_datapoint(divergence.double().expand(plates + event), layout)
    return parts


def _without_independent(fn: Any) -> Any:
    while isinstance(fn, dist.Independent | torch.distributions.Independent):
        fn = fn.base_dist
    return fn


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


def _names(by_site: dict[str, Any], columns: list[Tensor]) -> tuple[str, ...]:
    return tuple(
        name if part.shape[-1] == 1 else f"{name}[{index}]"
        for name, part in zip(by_site, columns, strict=True)
        for index in range(part.shape[-1])
    )


def _refuse_joint(layout: Layout) -> None:
    if layout.num_datapoints is None:
        raise ValueError(
            'guide: not every latent site lies in pyro.plate("data", N), so that datapoints have '
            "no posteriors of their own; for latent weights use model.at_mean_weights()"
        )


def _check(num_samples: int) -> None:
    if num_samples < 2:
        raise ValueError(f"num_samples: must be at least 2; got {num_samples}")
