"""A flow of its own for each datapoint, as the paper on inference gaps fits them."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn
from torch.func import functional_call, vmap

from aevb.inference import ELBO, fit
from aevb.models import InverseAutoregressiveFlow
from aevb.models.autoregressive import Autoregressive, order

__all__ = ["LocalFlow", "amortized_flow", "flow_around"]


class LocalFlow(nn.Module):
    r"""Inverse autoregressive flows whose weights no two datapoints share.

    .. math:: z_0 \sim \mathcal{N}(m_i, s_i^2), \qquad
        z_t = \sigma_{t,i}(z_{t-1}) \odot z_{t-1} + \mu_{t,i}(z_{t-1})

    Args:
        networks: Masked networks of the layers, copied for each datapoint.
        features: What they are given besides z, ``(B, F)``.
        loc: m, ``(B, K)``.
        scale: s, ``(B, K)``.
    """

    features: Tensor

    def __init__(
        self, networks: Sequence[nn.Module], features: Tensor, loc: Tensor, scale: Tensor
    ) -> None:
        super().__init__()
        self.loc = nn.Parameter(loc.detach().clone())
        self.log_scale = nn.Parameter(scale.detach().log())
        self.register_buffer("features", features.detach())
        self.networks = tuple(networks)  # a tuple hides the originals, which are not trained
        self.names = [[name for name, _ in network.named_parameters()] for network in networks]
        self.copies = nn.ModuleList(
            nn.ParameterList(
                p.detach().expand(len(loc), *p.shape).clone() for p in network.parameters()
            )
            for network in networks
        )

    def guide(self, x: Tensor) -> None:
        """The Pyro program; its argument is not looked at."""
        del x
        size = self.loc.shape[1]
        layers = [
            Autoregressive(partial(self._at, number), order(number, size))
            for number in range(len(self.networks))
        ]
        base = dist.Normal(self.loc, self.log_scale.exp()).to_event(1)
        with pyro.plate("data", len(self.loc)):
            pyro.sample("z", dist.TransformedDistribution(base, layers))

    def _at(self, number: int, z: Tensor) -> tuple[Tensor, Tensor]:
        """Shifts and log-scales of ``(*, B, K)``, each datapoint's by its own weights."""
        network, copies = self.networks[number], iter(self.copies[number])  # type: ignore[call-overload]
        weights = dict(zip(self.names[number], copies, strict=True))

        def one(own: dict[str, Tensor], features: Tensor, points: Tensor) -> Any:
            context = features.expand(*points.shape[:-1], -1)
            return functional_call(network, own, (points,), {"context": context})

        found: Any = vmap(one, in_dims=(0, 0, -2), out_dims=-2)(weights, self.features, z)
        return found[0], found[1]

    def refined(
        self, model: Any, x: Tensor, steps: int, num_particles: int, seed: int = 0
    ) -> "LocalFlow":
        """Itself, after the ELBO of each datapoint was maximized.

        Args:
            model: A trained model, whose weights are left alone.
            x: Its datapoints, ``(B, *shape)``.
            steps: Of Adam, whose rate falls from 1e-3 to nothing.
            num_particles: Draws of each step.
            seed: Of the draws.
        """
        trained = [p for p in model.parameters() if p.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        self.model = model.model
        try:
            fit(
                self, x, objective=ELBO(num_particles=num_particles), steps=steps, seed=seed,
                learning_rate=1e-3, progress=False, log_every=steps,
                schedule=partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=steps),
            )  # fmt: skip
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)
        return self


def amortized_flow(encoder: Any, x: Tensor) -> LocalFlow:
    """The flows that an encoder of ``InverseAutoregressiveFlow`` gives, as a start.

    Args:
        encoder: Of a :class:`aevb.models.VAE`.
        x: Datapoints, ``(B, *shape)``.
    """
    with torch.no_grad():
        features, head = encoder.features(encoder.view(x)), encoder.posterior
        return LocalFlow(
            head.networks, features, head.loc(features), head.log_scale(features).exp()
        )


def flow_around(
    loc: Tensor, scale: Tensor, layers: int, hidden: Sequence[int], seed: int = 0
) -> LocalFlow:
    """Flows that start as a diagonal normal.

    Args:
        loc: Its means, ``(B, K)``.
        scale: Its scales, ``(B, K)``.
        layers: Of the flow.
        hidden: Widths of each layer's network.
        seed: Of the networks' first weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built: Any = InverseAutoregressiveFlow(layers, tuple(hidden)).build(1, loc.shape[1])
    for network in built.networks:
        for parameter in network.layers[-1].parameters():
            nn.init.zeros_(parameter)  # shifts and log-scales are 0 at first
    return LocalFlow(built.networks, torch.ones(len(loc), 1), loc, scale)
