"""What models composed of parts have in common: how the parts are joined, and latent weights."""

import copy
from abc import ABC
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

import pyro
import torch
from torch import Tensor, nn

from aevb.models.likelihoods import Likelihood
from aevb.models.model import LatentVariableModel
from aevb.models.networks import Network
from aevb.models.noise import InputNoise
from aevb.models.parameters import declare
from aevb.models.posteriors import Posterior
from aevb.models.priors import Prior
from aevb.models.supports import REAL, latent_support
from aevb.models.weights import BayesianDecoder, LatentWeights, Weights

__all__ = [
    "ComposedModel",
    "build_decoder",
    "build_encoder",
    "build_vector_decoder",
    "check_layers",
    "check_parts",
    "networks_by_layer",
    "shown_networks",
]


class ComposedModel(LatentVariableModel, ABC):
    """A model made of parts, whose generative weights are parameters or latent variables.

    Attributes:
        parts: The swappable parts, each a family without shapes.
        decoder: The generative networks as one module; None where their weights are latent.
        weights: The generative networks with the posterior of their weights, or None.
        weight_family: How the weights are latent, or None.
        stands_for: Datapoints that a minibatch stands for, once told.
    """

    parts: tuple[Any, ...]
    decoder: Any

    def set_decoder(self, decoder: nn.Module, weights: LatentWeights | None) -> None:
        """Take over the generative networks.

        Args:
            decoder: Its ``forward`` makes distributions of latents.
            weights: How its weights are latent; None makes them parameters.
        """
        self.decoder = decoder
        self.weights: BayesianDecoder | None = None
        self.weight_family = weights
        self.stands_for: int | None = None
        if weights is not None:
            self.decoder, self.weights = None, BayesianDecoder(decoder, weights)

    def generative(self) -> Callable[..., Any]:
        """The decoder for this run of the model program, with drawn weights if they are latent."""
        if self.weights is None:
            declare("decoder", self.decoder)
            return self.decoder
        return partial(self.weights.at, self.weights.sample_prior())

    def data_plate(self, size: int, observed: bool) -> Any:
        """The plate of the datapoints, subsampled where latent weights see a minibatch.

        Args:
            size: Datapoints at hand.
            observed: Whether they are data, and no simulation.
        """
        if self.weights is None or not observed or self.stands_for is None:
            return pyro.plate("data", size)
        return pyro.plate("data", self.stands_for, subsample=torch.arange(size))

    @property
    def has_latent_weights(self) -> bool:
        """Whether the generative weights are latents."""
        return self.weights is not None

    def tell_num_datapoints(self, num_datapoints: int | None) -> None:
        """Let latent weights know how many datapoints a minibatch stands for; ``fit`` does.

        Args:
            num_datapoints: N; None lets a batch stand for itself, as before the first call.
        """
        if self.weights is not None:
            self.stands_for = num_datapoints

    def at_mean_weights(self) -> Self:
        """The same model with the posterior's mean weights as parameters: to be evaluated.

        Returns:
            The model itself where weights are parameters already.
        """
        if self.weights is None:
            return self
        twin = copy.deepcopy(self)
        twin.decoder, twin.weights = self.weights.mean_decoder(), None
        return twin

    def check_data(self, x: Tensor) -> None:
        """See :meth:`LatentVariableModel.check_data`."""
        self.check_shape(x)
        likelihood: Likelihood = next(p for p in self.parts if isinstance(p, Likelihood))
        likelihood.check(x)

    def formula(self, *lines: str) -> str:
        """The model's ``repr``: its name, lines of what is assumed, its size.

        Args:
            lines: Distributions of latents, then of the data, then of the posterior.
        """
        shape = "×".join(map(str, self.shape))
        latents, data, *rest = lines
        weights = [] if self.weights is None else [f"θ     ~ {self.weight_family!r}"]
        count = sum(parameter.numel() for parameter in self.parameters())
        shown = [latents, *weights, f"{data}   x: {shape}", *rest, f"{count:,} parameters"]
        return "\n  ".join([type(self).__name__, *shown])


def build_encoder(
    network: Network, posterior: Posterior, shape: tuple[int, ...], size: int
) -> nn.Sequential:
    """A network and the posterior of its features: from ``(B, *shape)`` to q(z|x)."""
    features = network.build_encoder(shape)
    return nn.Sequential(features, posterior.build(_width(features), size))


def build_decoder(
    network: Network, given: Likelihood | Posterior, latent_dim: int, shape: tuple[int, ...]
) -> nn.Sequential:
    """A network and what its features give: a likelihood, or the normal of a layer of latents.

    Args:
        network: Has the mirror image of the encoder.
        given: A likelihood of data, or a family of vectors.
        latent_dim: Dimensions of the latent above.
        shape: Shape of what lies below it.

    Returns:
        From ``(*batch, latent_dim)`` to distributions.
    """
    features = network.build_decoder(latent_dim, shape)
    if isinstance(given, Posterior):
        return nn.Sequential(features, given.build(_width(features), shape[0]))
    head = network.head(features, shape)
    # a user's likelihood need not know of other heads than linear layers
    heads = () if head is nn.Linear else (head,)
    return nn.Sequential(features, given.build(_width(features), shape, *heads))


def build_vector_decoder(network: Network, latent_dim: int, size: int) -> nn.Sequential:
    """A network and a linear layer: from ``(*batch, latent_dim)`` to ``(*batch, size)``."""
    features = network.between_vectors().build_decoder(latent_dim, (size,))
    return nn.Sequential(features, nn.Linear(_width(features), size))


def networks_by_layer(network: Network | Sequence[Network], num_layers: int) -> list[Network]:
    """A network for each layer, from the data upwards.

    Args:
        network: One for all, or as many as there are layers.
        num_layers: How many there are.

    Raises:
        ValueError: If there are other than so many, or something is no network.
    """
    if isinstance(network, Network):
        return [network] * num_layers
    if not isinstance(network, list | tuple):
        check_parts(network=network)
    if len(network) != num_layers:
        raise ValueError(
            f"network: expected one for all, or one for each of {num_layers} layers; got "
            f"{len(network)}"
        )
    for each in network:
        check_parts(network=each)
    return list(network)


def shown_networks(networks: Sequence[Network]) -> str:
    """The networks in words, once where they are all the same."""
    different = list(dict.fromkeys(map(repr, networks)))
    return different[0] if len(different) == 1 else f"[{', '.join(map(repr, networks))}]"


def check_layers(latent_dims: Sequence[int], posterior: Posterior) -> tuple[int, ...]:
    """The sizes of the layers.

    Raises:
        ValueError: If there is none, one is not positive, or the posterior family does not cover
            the real line, on which the layers lie.
    """
    if not latent_dims or min(latent_dims) < 1:
        raise ValueError(
            f"latent_dims: expected the positive size of each layer; got {list(latent_dims)}"
        )
    check_parts(posterior=posterior)
    if latent_support(posterior) is not REAL:
        raise ValueError(
            f"posterior: {type(posterior).__name__} does not cover the real line, on which the "
            "layers of latents lie: use DiagonalNormal(), RankOneNormal() or FullNormal()"
        )
    return tuple(latent_dims)


_KINDS = {
    "prior": Prior,
    "likelihood": Likelihood,
    "posterior": Posterior,
    "network": Network,
    "input_noise": InputNoise,
    "latent_noise": InputNoise,
    "weights": Weights,
}


def check_parts(**parts: Any) -> None:
    """Refuse what is no part of its kind, such as a class in place of an object of it.

    Args:
        parts: By argument name; None is passed over.

    Raises:
        ValueError: Names the argument, what came and what is expected.

    Example:
        >>> from aevb.models import StandardNormal
        >>> check_parts(prior=StandardNormal(), network=None)
    """
    for name, part in parts.items():
        kind = _KINDS[name]
        if part is None or isinstance(part, kind):
            continue
        if isinstance(part, type) and issubclass(part, kind):
            raise ValueError(
                f"{name}: expected an object, such as {part.__name__}(); got the class "
                f"{part.__name__}"
            )
        raise ValueError(
            f"{name}: expected a part derived from aevb.models.{kind.__name__}; got {part!r}"
        )


def _width(features: nn.Module) -> int:
    return int(features.out_features)  # type: ignore[arg-type]
