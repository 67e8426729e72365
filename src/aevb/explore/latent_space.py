"""The latents of a model as vectors: where data lie, and what lies elsewhere."""

from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints

from aevb import evaluation
from aevb.data.seeds import stream_seed
from aevb.evaluation import ActiveUnits
from aevb.inference.process.randomness import stream
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.layouts import sites
from aevb.models import LatentVariableModel

__all__ = ["LatentSpace"]

# Posterior means with a larger variance over the data are active; see `evaluation.active_units`.
_ACTIVE = 0.01
_AT_ONCE = 1_000
# Draws of the prior that set how far sliders reach, and the share beyond on either side.
_PRIOR_DRAWS, _BEYOND = 2_000, 0.002


class LatentSpace:
    """Posterior means of a model's data, seen in columns: single latents and principal components.

    A column is what an axis of the map may show. Two latents are the columns, as they come. More
    come in the order of how much the data move them, and after them the two principal components
    of all means; a single one is shown against the standard deviation of its posterior.

    Args:
        model: The model.
        x: Data, ``(N, *shape)``.
        seed: Of everything random.
        max_latents: Columns that are single latents.

    Attributes:
        mean: Posterior means, ``(N, latents)``.
        scale: Posterior standard deviations, ``(N, latents)``.
        shown: Which latents are columns, by their variance over the data.
        names: Of the columns.
        low: From where sliders of the shown latents reach, within the prior's support.
        high: To where.
        centre: Mean of the means, ``(latents,)``.

    Example:
        >>> from aevb.models import VAE
        >>> space = LatentSpace(VAE((4, 4), latent_dim=3), torch.rand(9, 4, 4).round())
        >>> sorted(space.names), space.columns(space.mean).shape, space.decode(space.mean).shape
        (['PC 1', 'PC 2', 'z[0]', 'z[1]', 'z[2]'], torch.Size([9, 5]), torch.Size([9, 4, 4]))
    """

    def __init__(
        self, model: LatentVariableModel, x: Tensor, seed: int = 0, max_latents: int = 40
    ) -> None:
        self.model, self.x, self.seed = model, x, seed
        parts = [
            evaluation.embed(model.guide, part, seed=stream_seed(seed, f"explore/embed/{number}"))
            for number, part in enumerate(x.split(_AT_ONCE))
        ]
        self.mean = torch.cat([part.mean for part in parts])
        self.scale = torch.cat([part.scale for part in parts])
        noise = torch.cat([part.standard_error for part in parts]).square().mean(0)
        self.units = ActiveUnits(self.mean.var(0, correction=0) - noise, _ACTIVE, parts[0].names)
        with torch.no_grad(), stream(seed, "explore", x.device):
            trace = poutine.trace(model.guide).get_trace(x[:1])
            self._sizes = {name: site["value"][0].numel() for name, site in sites(trace)}
            self._shapes = {name: site["value"].shape[1:] for name, site in sites(trace)}
        order = self.units.variance.argsort(descending=True)
        # two are the plane itself, as they come
        self.shown = torch.arange(2).to(order) if len(order) == 2 else order[:max_latents]
        self.centre = self.mean.mean(0)
        self._components = _principal(self.mean - self.centre)
        drawn = self.prior_draws(_PRIOR_DRAWS, stream_seed(seed, "explore/range"))
        ends = torch.tensor([_BEYOND, 1 - _BEYOND], dtype=drawn.dtype, device=drawn.device)
        low, high = torch.quantile(drawn, ends, dim=0)
        self.low = torch.minimum(low, self.mean.amin(0))[self.shown]
        self.high = torch.maximum(high, self.mean.amax(0))[self.shown]
        self.names = [self.units.names[place] for place in self.shown.tolist()]
        if len(self.units.names) == 1:
            self.names.append(f"sd of {self.names[0]}")
        elif len(self.units.names) > 2:
            self.names += ["PC 1", "PC 2"]

    def columns(self, z: Tensor, scale: Tensor | None = None) -> Tensor:
        """Latents ``(*batch, latents)`` as columns, ``(*batch, columns)``.

        Args:
            z: Latents.
            scale: Their posterior standard deviation, for the second column of a single latent;
                by default the median over the data.
        """
        single = z[..., self.shown]
        if z.shape[-1] == 1:
            spread = self.scale.median().expand_as(single) if scale is None else scale
            return torch.cat([single, spread], -1)
        if z.shape[-1] == 2:
            return single
        return torch.cat([single, (z - self.centre) @ self._components], -1)

    def explained(self) -> list[float]:
        """Share of the means' variance in the two principal components."""
        centred = self.mean - self.centre
        total = float(centred.square().sum()) or 1.0
        return [float(v) / total for v in (centred @ self._components).square().sum(0)]

    def with_shown(self, base: Tensor, values: Tensor) -> Tensor:
        """Copies of latents ``(latents,)`` in which the shown ones are ``values``, ``(B, K)``."""
        z = base.repeat(len(values), 1)
        z[:, self.shown] = values.to(z)
        return z

    def decode(self, z: Tensor) -> Tensor:
        """E[x|z], ``(B, latents)`` → ``(B, *shape)``."""
        given = self._by_site(z)
        with torch.no_grad(), stream(self.seed, "explore", z.device), argument_checks(False):
            program = poutine.condition(self.model.model, data=given)
            trace = poutine.trace(program).get_trace(size=len(z))
        likelihood: Any = trace.nodes["x"]["fn"]
        means: Tensor = likelihood.mean
        return means

    def guide_draws(self, index: int, num: int, seed: int) -> Tensor:
        """Draws of one datapoint's posterior by the guide, ``(num, latents)``."""
        x = self.x[index : index + 1].expand(num, *self.x.shape[1:])
        return self._drawn(self.model.guide, seed, x)

    def prior_draws(self, num: int, seed: int) -> Tensor:
        """Draws of the prior, ``(num, latents)``."""
        return self._drawn(self.model.model, seed, size=num)

    def vectors(self, values: dict[str, Tensor]) -> Tensor:
        """Latents by site, ``(*batch, *event)``, as vectors, ``(*batch, latents)``."""
        parts = [
            value.flatten(value.ndim - len(self._shapes[name])) if self._shapes[name]
            else value.unsqueeze(-1)
            for name, value in ((name, values[name]) for name in self._sizes)
        ]  # fmt: skip
        return torch.cat(parts, -1)

    def _drawn(self, program: Any, seed: int, *args: Any, **kwargs: Any) -> Tensor:
        device = self.x.device
        with torch.no_grad(), stream(seed, "explore", device), argument_checks(False):
            trace = poutine.trace(program).get_trace(*args, **kwargs)
        return self.vectors({name: trace.nodes[name]["value"] for name in self._sizes})

    def _by_site(self, z: Tensor) -> dict[str, Tensor]:
        parts = z.split(list(self._sizes.values()), -1)
        found = {
            name: part.reshape(len(z), *self._shapes[name])
            for name, part in zip(self._sizes, parts, strict=True)
        }
        for name, value in found.items():
            if self._on_simplex(name):  # where one coordinate moves, the others make room
                found[name] = value / value.sum(-1, keepdim=True)
        return found

    def _on_simplex(self, name: str) -> bool:
        if not hasattr(self, "_supports"):
            with torch.no_grad(), stream(self.seed, "explore", self.x.device):
                trace = poutine.trace(self.model.model).get_trace(size=1)
            fns: dict[str, Any] = {key: trace.nodes[key]["fn"] for key in self._sizes}
            self._supports = {key: fn.support for key, fn in fns.items()}
        return self._supports[name] is constraints.simplex


def _principal(centred: Tensor) -> Tensor:
    """Directions of the two largest variances, ``(latents, 2)``, of largest part above 0."""
    _, _, rows = torch.linalg.svd(centred.double(), full_matrices=False)
    directions = rows[:2].mT
    signs = directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
    return (directions * signs).to(centred)
