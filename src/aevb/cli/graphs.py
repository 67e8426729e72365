"""A model's encoder, decoder and log-weights as functions of tensors, to be exported."""

from collections.abc import Iterator
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, TransformedDistribution

from aevb.models import DLGM, VAE, HierarchicalVAE, LatentVariableModel, LinearGaussian

__all__ = ["Decoder", "Encoder", "LogWeights"]


class Encoder(nn.Module):
    """From data to the parameters of q(z|x): of a normal ``loc`` and ``scale``, and so on.

    Of several layers each one's; of a ``HierarchicalVAE``, whose upper layers are inferred from
    draws of the lower ones, those of the first.

    Args:
        model: One of our models.
        x: Data to look at, ``(B, *shape)``.

    Attributes:
        names: Of the tensors that ``forward`` returns.
        transforms: Whether what these parametrize is transformed before it is z.
    """

    def __init__(self, model: LatentVariableModel, x: Tensor) -> None:
        super().__init__()
        self.parts = _parts(model)
        found = [_innermost(q) for q in self.parts.posteriors(x)]
        several = len(found) > 1
        self.transforms = any(transforms for _, transforms in found)
        self.names = [
            f"z{layer}_{name}" if several else name
            for layer, (base, _) in enumerate(found, start=1)
            for name in _parameters(base)
        ]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """``(B, *shape)`` → the parameters, each ``(B, ...)``."""
        bases = [_innermost(q)[0] for q in self.parts.posteriors(x)]
        return tuple(value for base in bases for value in _parameters(base).values())


class Decoder(nn.Module):
    """From latents to E[x|z]."""

    def __init__(self, model: LatentVariableModel) -> None:
        super().__init__()
        self.parts = _parts(model)

    def forward(self, *z: Tensor) -> Tensor:
        """Latents of the layers that the data are given, ``(B, size)`` → ``(B, *shape)``."""
        mean: Tensor = self.parts.likelihood(z).mean
        return mean


class LogWeights(nn.Module):
    """log p(x, z) − log q(z|x): log of the mean of its exponential at z ~ q estimates log p(x)."""

    def __init__(self, model: LatentVariableModel) -> None:
        super().__init__()
        self.parts = _parts(model)

    def forward(self, x: Tensor, *z: Tensor) -> Tensor:
        """``(B, *shape)`` and latents of all layers, ``(B, size)`` → ``(B,)``, in nats."""
        total: Tensor = self.parts.likelihood(z).log_prob(x)
        for p, q, value in zip(self.parts.priors(z), self.parts.posteriors(x, z), z, strict=True):
            if isinstance(_innermost(q)[0], dist.Delta):
                raise ValueError("the guide is a single point, which has no density")
            total = total + p.log_prob(value) - q.log_prob(value)
        return total


class _Parts(nn.Module):
    """The distributions of a model; layers from the data upwards."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def posteriors(self, x: Tensor, z: tuple[Tensor, ...] = ()) -> Iterator[Any]:
        raise NotImplementedError

    def priors(self, z: tuple[Tensor, ...]) -> Iterator[Any]:
        return (_standard(value) for value in z)

    def likelihood(self, z: tuple[Tensor, ...]) -> Any:
        raise NotImplementedError


class _OneLayer(_Parts):
    def posteriors(self, x: Tensor, z: tuple[Tensor, ...] = ()) -> Iterator[Any]:
        yield self.model.encoder(x)

    def priors(self, z: tuple[Tensor, ...]) -> Iterator[Any]:
        yield self.model.prior()

    def likelihood(self, z: tuple[Tensor, ...]) -> Any:
        return self.model.decoder(z[0])


class _Noises(_Parts):
    def posteriors(self, x: Tensor, z: tuple[Tensor, ...] = ()) -> Iterator[Any]:
        return (encoder(self.model.view(x)) for encoder in self.model.encoders)

    def likelihood(self, z: tuple[Tensor, ...]) -> Any:
        return self.model.decoder(*reversed(z))


class _Layers(_Parts):
    def posteriors(self, x: Tensor, z: tuple[Tensor, ...] = ()) -> Iterator[Any]:
        below = self.model.view(x)
        for encoder, value in zip(self.model.encoders, z or (None,), strict=False):
            yield encoder(below)
            below = value

    def priors(self, z: tuple[Tensor, ...]) -> Iterator[Any]:
        for layer, above in enumerate(z[1:], start=1):
            yield self.model.decoder(above, layer)
        yield _standard(z[-1])

    def likelihood(self, z: tuple[Tensor, ...]) -> Any:
        return self.model.decoder(z[0], 0)


class _Linear(_Parts):
    loc: Tensor
    gain: Tensor
    scale_tril: Tensor
    scale: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        with torch.no_grad():
            # the exact posterior is linear in x, and its covariance the same everywhere
            size = model.decoder.out_features
            like = model.decoder.weight
            probes = torch.cat([like.new_zeros(1, size), torch.eye(size).to(like)])
            exact = model.posterior(probes.unflatten(1, model.shape))
            self.register_buffer("loc", exact.mean[0])
            self.register_buffer("gain", exact.mean[1:] - exact.mean[0])
            self.register_buffer("scale_tril", exact.scale_tril[0])
            self.register_buffer("scale", model.noise(like.new_zeros(model.latent_dim)))

    def posteriors(self, x: Tensor, z: tuple[Tensor, ...] = ()) -> Iterator[Any]:
        if self.model.encoder is not None:
            yield self.model.encoder(x.flatten(1))
            return
        loc = self.loc + x.flatten(1) @ self.gain
        yield dist.MultivariateNormal(loc, scale_tril=self.scale_tril)

    def likelihood(self, z: tuple[Tensor, ...]) -> Any:
        loc = self.model.decoder(z[0]).unflatten(-1, self.model.shape)
        scale = self.scale.unflatten(-1, self.model.shape)
        return dist.Normal(loc, scale).to_event(len(self.model.shape))


_KINDS: list[tuple[type, type[_Parts]]] = [
    (VAE, _OneLayer),
    (DLGM, _Noises),
    (HierarchicalVAE, _Layers),
    (LinearGaussian, _Linear),
]


def _parts(model: LatentVariableModel) -> _Parts:
    for kind, parts in _KINDS:
        if isinstance(model, kind):
            return parts(model)
    raise ValueError(
        f"model: {type(model).__name__} is none of {', '.join(k.__name__ for k, _ in _KINDS)}, "
        "whose parts are known; export its networks with torch.export"
    )


def _standard(like: Tensor) -> Any:
    return dist.Normal(torch.zeros_like(like), torch.ones_like(like)).to_event(1)


def _innermost(fn: Any) -> tuple[Any, list[Any]]:
    transforms: list[Any] = []
    while isinstance(fn, Independent | TransformedDistribution):
        transforms = [*getattr(fn, "transforms", ()), *transforms]
        fn = fn.base_dist
    return fn, transforms


def _parameters(base: Any) -> dict[str, Tensor]:
    names = [name for name in base.arg_constraints if name != "log_density"]
    if isinstance(base, MultivariateNormal):
        names = ["loc", "scale_tril"]
    batch = base.batch_shape
    values = {name: getattr(base, name) for name in names}
    return {name: _expanded(value, batch) for name, value in values.items()}


def _expanded(value: Tensor, batch: Any) -> Tensor:
    """With the rows that broadcasting leaves out."""
    missing = value.ndim == 0 or value.shape[0] != batch[0]
    return value.expand(batch[0], *value.shape) if missing else value
