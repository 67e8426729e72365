"""A Pyro model and its data as log-densities of unconstrained latents."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from pyro.poutine import Trace
from torch import Tensor

from aevb.inference.process import randomness
from aevb.inference.process.devices import device_of, moved
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.bijections import bijection_of, family
from aevb.inference.programs.joint import Joint
from aevb.inference.programs.layouts import (
    Layout,
    NoDensityError,
    batch_shape,
    read_model_layout,
    sites,
    value_of,
)
from aevb.inference.programs.ways import refuse_absent_sites

__all__ = ["LogDensity", "guide_draws"]


@dataclass(frozen=True)
class _Latent:
    """One latent site.

    Attributes:
        name: Of the site.
        transform: From the real space to the site's support.
        plates: Sizes of its plates, without that of chains.
        event: Shape of one unconstrained value.
        size: Numbers of it in one posterior.
        absent: Places, counted from the left, of plates that the site does not lie in.
    """

    name: str
    transform: Any
    plates: torch.Size
    event: torch.Size
    size: int
    absent: tuple[int, ...]


class LogDensity:
    r"""log p(x, z) of real vectors that a bijection maps to the model's latents.

    .. math:: \log p(x, T(u)) + \log |\det T'(u)|

    A model whose sites all lie in the rightmost ``pyro.plate("data", ...)`` has one posterior for
    each datapoint; any other model has one joint posterior, and is treated as one datapoint.
    Discrete latents with finitely many values are summed out. Vectors are ``(chains, batch, dim)``
    and densities ``(chains, batch)``, float64, in nats.

    References:
        Automatic Differentiation Variational Inference (Kucukelbir et al., 2017), section 2.3
        (constrained latents), https://arxiv.org/abs/1603.00788

    Args:
        model: Pyro program.
        args: Its arguments.
        guide: Pyro program to start from or anneal from; may be left out.

    Attributes:
        batch: Posteriors; 1 for a joint one.
        dim: Dimensions of each, unconstrained.
        device: Of parameters and data.
        is_local: Whether there is one posterior for each datapoint.
        has_guide: Whether there is a guide.

    Raises:
        ValueError: If the model has no continuous latents, discrete ones with infinitely many
            values, circular or improper ones, or ones whose support depends on other latents; if a
            site is scaled or subsampled, or observes data outside its support; or when it is
            evaluated, if several draws cannot be at once.

    Example:
        >>> import pyro
        >>> from pyro.distributions import LogNormal, Normal
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         scale = pyro.sample("scale", LogNormal(0.0, 1.0))
        ...         pyro.sample("x", Normal(0.0, scale), obs=x)
        >>> density = LogDensity(model, torch.zeros(4))
        >>> density.batch, density.dim
        (4, 1)
        >>> density.joint(torch.zeros(3, 4, 1)).shape
        torch.Size([3, 4])
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *args: Any,
        guide: Callable[..., Any] | None = None,
    ) -> None:
        self.device = device_of(model, guide, args=args)
        args = moved(args, self.device)
        with randomness.stream(0, "layout", self.device), argument_checks(False):
            try:
                self.layout, first = read_model_layout(model, *args)
                _, second = read_model_layout(model, *args)
            except NotImplementedError as error:  # of an improper prior
                raise ValueError(
                    f"model: a site cannot be drawn from ({' '.join(str(error).split())[:200]}); "
                    "chains start from the prior, which must be proper"
                ) from None
        refuse_absent_sites([first, second])
        self._latents = [
            _latent(name, site, second.nodes[name], self.layout)
            for name, site in sites(first)
            if not site["is_observed"] and name not in self.layout.summed_out
        ]
        if not self._latents:
            raise ValueError(
                "model: has no continuous latents, so there is no posterior of real vectors"
            )
        self._joint = Joint(model, *args, guide=guide, layout=self.layout)
        self.has_guide = guide is not None
        self.is_local = self.layout.num_datapoints is not None
        self.batch = self.layout.num_datapoints or 1
        self.dim = sum(latent.size for latent in self._latents)
        self.dtype = value_of(first, self._latents[0].name).dtype

    def at(self, *args: Any) -> "LogDensity":
        """The same program at other arguments of the same shapes."""
        _ = self._joint.way  # found once, for all that follow
        other = copy.copy(self)
        other._joint = self._joint.at(*args, num_datapoints=self.layout.num_datapoints)
        return other

    def adopt(self, joint: Joint) -> None:
        """Evaluate draws as was found out for a pair of the same programs."""
        self._joint.adopt(joint)

    @property
    def data_dims(self) -> dict[str, int]:
        """Where ``(draws, *plates, *event)`` of local sites have the data plate, by name."""
        if not self.is_local:
            return {}
        return {each.name: len(each.plates) - len(each.absent) for each in self._latents}

    @property
    def guide_way(self) -> str:
        """How several draws of the guide are made: ``"plate"``, or one by one, ``"loop"``."""
        return self._joint.guide_way

    def num_fitting(self, u: Tensor, num_bytes: int) -> int:
        """Draws that can be evaluated at once within a memory budget."""
        return self._joint.num_fitting(self.transformed(u[:1])[0], num_bytes)

    def joint(self, u: Tensor) -> Tensor:
        """Log p(x, z) and the Jacobian, ``(chains, batch)``."""
        latents, jacobian = self.transformed(u)
        return self._joint.log_joint(latents) + jacobian

    def split(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Log p(z) with the Jacobian, and log p(x|z), each ``(chains, batch)``."""
        latents, jacobian = self.transformed(u)
        prior, likelihood = self._joint.log_parts(latents)
        return prior + jacobian, likelihood

    def guide(self, u: Tensor) -> Tensor:
        """Log q(z|x) of the guide with the Jacobian, ``(chains, batch)``.

        Raises:
            NoDensityError: If the guide cannot score given latents, or has none but point masses.
        """
        latents, jacobian = self.transformed(u)
        try:
            return self._joint.log_guide(latents) + jacobian
        except (KeyError, NotImplementedError):  # as of a flow without an inverse
            raise NoDensityError(
                "guide: its density is known at its own draws only; anneal from the prior instead "
                "(guide=None; --start prior)"
            ) from None

    def path(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Log q₀ where a path to the posterior begins, and log p(x, z) − log q₀ along it.

        That is the guide, or the prior if there is none; each ``(chains, batch)``.

        Raises:
            NoDensityError: As :meth:`guide`.
        """
        if not self.has_guide:
            return self.split(u)
        base = self.guide(u)
        return base, self.joint(u) - base

    def path_draws(self, num: int) -> Tensor:
        """Draws of q₀, ``(num, batch, dim)``, from the global generator."""
        return self.guide_draws(num) if self.has_guide else self.prior_draws(num)

    def prior_draws(self, num: int) -> Tensor:
        """Draws of the model's own latents, ``(num, batch, dim)``, from the global generator."""
        return self.unconstrain(self._joint.prior_draws(num), num)

    def guide_draws(self, num: int) -> Tensor:
        """Draws of the guide, ``(num, batch, dim)``, from the global generator."""
        latents, _ = self._joint.draw(num)
        missing = {latent.name for latent in self._latents} - set(latents)
        if missing:
            raise ValueError(f"guide: has no site for the model's latents {sorted(missing)}")
        return self.unconstrain(latents, num)

    def unconstrain(self, latents: dict[str, Tensor], num: int) -> Tensor:
        """Values of the sites, ``(num, *plates, *event)``, as vectors."""
        parts = []
        for latent in self._latents:
            u = latent.transform.inv(latents[latent.name])
            u = u.expand(num, *latent.plates, *latent.event)
            if self.is_local:
                u = u.movedim(self.layout.nesting, 1)
            parts.append(u.reshape(num, self.batch, latent.size))
        return torch.cat(parts, -1)

    def constrain(self, u: Tensor) -> dict[str, Tensor]:
        """Vectors ``(*samples, batch, dim)`` as values of the sites by name.

        Returns:
            ``(*samples, *plates, *event)`` for each site, with its own plates.
        """
        samples = u.shape[:-2]
        with torch.no_grad():
            latents, _ = self.transformed(u.reshape(-1, *u.shape[-2:]))
        shown = {}
        for latent in self._latents:
            value = latents[latent.name]
            for place in reversed(latent.absent):
                value = value.squeeze(1 + place)
            shown[latent.name] = value.unflatten(0, samples)
        return shown

    @property
    def latent_names(self) -> list[str]:
        """Of the latent sites."""
        return [latent.name for latent in self._latents]

    def traces(self, u: Tensor) -> Iterator[Trace]:
        """The model's runs at vectors ``(chains, batch, dim)``, one after the other."""
        for row in u.split(1):
            latents, _ = self.transformed(row)
            yield self._joint.run(self._joint.model, latents)

    def refuse_nan(self, u: Tensor) -> None:
        """Name the site whose log-probability is NaN, if one is.

        Raises:
            ValueError: Names it.
        """
        latents, _ = self.transformed(u)
        self._joint.refuse_nan(latents)

    def transformed(self, u: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Vectors ``(chains, batch, dim)`` as values of the sites, in the shapes of a joint's.

        Returns:
            The values, and the log-determinant of the Jacobian, ``(chains, batch)``.
        """
        chains, nesting, latents = len(u), self.layout.nesting, {}
        jacobian = u.new_zeros(u.shape[:2], dtype=torch.float64)
        parts = u.split([latent.size for latent in self._latents], -1)
        for latent, part in zip(self._latents, parts, strict=True):
            if self.is_local:
                shape = (chains, self.batch, *latent.plates[:-1], *latent.event)
                part = part.reshape(shape).movedim(1, nesting)
            else:
                part = part.reshape(chains, *latent.plates, *latent.event)
            value = latents[latent.name] = latent.transform(part)
            if _is_identity(latent.transform):
                continue
            log_det = latent.transform.log_abs_det_jacobian(part, value).double()
            if self.is_local:
                log_det = log_det.movedim(nesting, 1)
            jacobian = jacobian + log_det.reshape(chains, self.batch, -1).sum(-1)
        return latents, jacobian


def guide_draws(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    num_draws: int = 1000,
    seed: int = 0,
) -> Tensor:
    """Draws of a guide as real vectors, in the coordinates of :class:`LogDensity`.

    Args:
        model: Pyro program of the joint distribution.
        guide: Pyro program of the posterior.
        args: Arguments of both.
        num_draws: S.
        seed: Of the draws; torch's global random state is left as it was.

    Returns:
        ``(S, batch, dim)``.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> fa = FactorAnalysis((5,), 2)
        >>> guide_draws(fa.model, fa.guide, torch.zeros(3, 5), num_draws=7).shape
        torch.Size([7, 3, 2])
    """
    density = LogDensity(model, *args, guide=guide)
    with randomness.stream(seed, "guide draws", density.device):
        return density.guide_draws(num_draws)


def _latent(name: str, site: Any, again: Any, layout: Layout) -> _Latent:
    support = site["fn"].support
    if support.is_discrete:
        raise ValueError(
            f"site {name!r} ({family(site['fn'])}) is discrete, with too many values to sum over, "
            "and gradients do not reach it: sum it out in the model"
        )
    try:
        transform, other = bijection_of(site["fn"]), bijection_of(again["fn"])
    except ValueError as error:
        raise ValueError(f"site {name!r}: {error}") from None
    value = site["value"]
    try:
        moves = not torch.equal(transform.inv(value), other.inv(value))
    except (RuntimeError, ValueError):
        moves = True
    if moves:
        raise ValueError(
            f"site {name!r}: its support {support} depends on other latents; write it as a "
            "transformation of a latent with a fixed support"
        )
    plates = batch_shape(site, layout, 1)[1:]
    event = transform.inv(value).shape[len(site["fn"].batch_shape) :]
    own: Sequence[int] = plates[:-1] if layout.num_datapoints is not None else plates
    inside = {frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
    absent = tuple(i for i in range(len(plates)) if i - len(plates) not in inside)
    return _Latent(name, transform, plates, event, prod(own) * prod(event), absent)


def _is_identity(transform: Any) -> bool:
    while isinstance(transform, torch.distributions.transforms.IndependentTransform):
        transform = transform.base_transform
    parts = getattr(transform, "parts", None)
    return parts is not None and len(parts) == 0
