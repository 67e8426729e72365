"""Networks, without shapes: what turns data into features, and latents into features."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from aevb.models.layers import DenseLayers, PixelLinear
from aevb.models.shown import Shown

__all__ = ["MLP", "Conv", "Network", "UserNetwork"]


class Network(ABC):
    """A family of encoders and decoders; the methods give it shapes and weights.

    The output layers belong to the distributions that the features parametrize (AEVB, appendix C).

    Example:
        >>> import torch
        >>> encoder = MLP(hidden=[20]).build_encoder((8, 8))
        >>> encoder(torch.zeros(3, 8, 8)).shape, encoder.out_features
        (torch.Size([3, 20]), 20)
    """

    @abstractmethod
    def build_encoder(self, shape: tuple[int, ...]) -> nn.Module:
        """A module with ``out_features`` and ``forward``: ``(B, *shape)`` → ``(B, out_features)``.

        Args:
            shape: Shape of one datapoint.
        """

    @abstractmethod
    def build_decoder(self, latent_dim: int, shape: tuple[int, ...]) -> nn.Module:
        """As the encoder, with ``forward``: ``(*batch, latent_dim)`` → ``(*batch, out_features)``.

        Args:
            latent_dim: Dimensions of ``z``.
            shape: Shape of one datapoint.
        """

    def head(self, decoder: nn.Module, shape: tuple[int, ...]) -> Callable[[int, int], nn.Module]:
        """What maps the decoder's features to a likelihood's parameters; a linear layer.

        Args:
            decoder: From :meth:`build_decoder`.
            shape: Shape of one datapoint.

        Returns:
            Called as ``head(in_features, out_features)``.
        """
        del decoder, shape
        return nn.Linear

    def between_vectors(self) -> "Network":
        """What stands in between layers of latents: this one, unless it needs images."""
        return self


@dataclass(frozen=True, repr=False)
class MLP(Shown, Network):
    r"""Fully connected layers, each followed by the activation; the decoder is the mirror image.

    .. math:: h_0 = x, \qquad h_i = f(W_i h_{i-1} + b_i)

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), appendix C,
        https://arxiv.org/abs/1312.6114

    Args:
        hidden: Widths of the encoder's hidden layers; empty means the identity.
        activation: Nonlinearity of the hidden layers, a constructor without arguments.
        gated: Use gated linear layers, :math:`(Wx + b) \odot \sigma(Vx + c)`, without another
            nonlinearity.

    Raises:
        ValueError: If a width is not positive.

    Example:
        >>> MLP([500, 200]).build_encoder((28, 28))(torch.zeros(3, 28, 28)).shape
        torch.Size([3, 200])
    """

    hidden: Sequence[int] = (500,)
    activation: type[nn.Module] = nn.Tanh
    gated: bool = False

    def build_encoder(self, shape: tuple[int, ...]) -> nn.Module:
        """See :meth:`Network.build_encoder`."""
        return DenseLayers(prod(shape), self.hidden, self.activation, self.gated, dims=len(shape))

    def build_decoder(self, latent_dim: int, shape: tuple[int, ...]) -> nn.Module:
        """See :meth:`Network.build_decoder`."""
        widths = list(reversed(self.hidden))
        return DenseLayers(latent_dim, widths, self.activation, self.gated)


@dataclass(frozen=True, repr=False)
class Conv(Shown, Network):
    """Convolutions of stride 2, then one fully connected layer; the decoder is the mirror image.

    References:
        Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
        Networks (Radford et al., 2016), https://arxiv.org/abs/1511.06434

    Args:
        channels: Feature maps after each halving of the image, first to last.
        hidden: Width of the fully connected layer.
        activation: Nonlinearity after each layer.

    Raises:
        ValueError: If a width is not positive, or the data are no images that can be halved that
            often: shape ``(H, W)`` or ``(C, H, W)`` with H and W multiples of 2 ** len(channels).

    Example:
        >>> Conv([16, 32]).build_encoder((28, 28))(torch.zeros(3, 28, 28)).shape
        torch.Size([3, 256])
    """

    channels: Sequence[int] = (32, 64)
    hidden: int = 256
    activation: type[nn.Module] = nn.ReLU

    def __post_init__(self) -> None:
        """Refuse layers without width."""
        if not self.channels or min(*self.channels, self.hidden) < 1:
            raise ValueError(
                f"Conv: channels and hidden must be at least 1; got {list(self.channels)} and "
                f"{self.hidden}"
            )

    def build_encoder(self, shape: tuple[int, ...]) -> nn.Module:
        """See :meth:`Network.build_encoder`."""
        return _ConvEncoder(self, self._sizes(shape))

    def build_decoder(self, latent_dim: int, shape: tuple[int, ...]) -> nn.Module:
        """See :meth:`Network.build_decoder`; the features are maps of the image's size."""
        return _ConvDecoder(self, latent_dim, self._sizes(shape))

    def head(self, decoder: nn.Module, shape: tuple[int, ...]) -> Callable[[int, int], nn.Module]:
        """A 1 × 1 convolution."""
        del decoder
        _, height, width = self._sizes(shape)

        def pixel_linear(in_features: int, out_features: int) -> nn.Module:
            return PixelLinear(in_features // (height * width), height, width, out_features)

        return pixel_linear

    def between_vectors(self) -> Network:
        """The fully connected layer alone."""
        return MLP((self.hidden,), self.activation)

    def _sizes(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Channels, height and width."""
        factor = 2 ** len(self.channels)
        sizes = (1, *shape) if len(shape) == 2 else shape
        if len(sizes) != 3 or sizes[1] % factor or sizes[2] % factor:
            raise ValueError(
                f"Conv: needs images whose sides are multiples of {factor}; got shape {shape}: "
                "use fewer channels, or MLP()"
            )
        return sizes[0], sizes[1], sizes[2]


@dataclass(frozen=True)
class UserNetwork(Network):
    """Modules of one's own.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), section 2.1, which leaves the
        networks open, https://arxiv.org/abs/1312.6114

    Args:
        encoder: Called as ``encoder(shape)``; gives a module from ``(B, *shape)`` to features.
        decoder: Called as ``decoder(latent_dim, shape)``; gives a module from
            ``(*batch, latent_dim)`` to features.

    Example:
        >>> network = UserNetwork(
        ...     encoder=lambda shape: nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.GELU()),
        ...     decoder=lambda latent_dim, shape: nn.Sequential(
        ...         nn.Linear(latent_dim, 32), nn.GELU()
        ...     ),
        ... )
        >>> network.build_encoder((8, 8)).out_features
        32
    """

    encoder: Callable[[tuple[int, ...]], nn.Module]
    decoder: Callable[[int, tuple[int, ...]], nn.Module]

    def build_encoder(self, shape: tuple[int, ...]) -> nn.Module:
        """See :meth:`Network.build_encoder`."""
        return _Measured(self.encoder(shape), torch.zeros(1, *shape))

    def build_decoder(self, latent_dim: int, shape: tuple[int, ...]) -> nn.Module:
        """See :meth:`Network.build_decoder`."""
        return _Measured(self.decoder(latent_dim, shape), torch.zeros(1, latent_dim))


class _Measured(nn.Module):
    """A user's module and the width of its features, found by running it once."""

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        super().__init__()
        self.module = module
        was_training = module.training
        with torch.no_grad():
            features = module.eval()(example)  # batch normalization refuses a batch of one
        module.train(was_training)
        if features.ndim != 2:
            raise ValueError(
                f"UserNetwork: features must be (B, width); got {tuple(features.shape)}"
            )
        self.out_features = int(features.shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.module(x)
        return features


class _ConvEncoder(nn.Module):
    def __init__(self, network: Conv, sizes: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = sizes
        self.sizes = sizes
        layers: list[nn.Module] = []
        for maps in network.channels:
            layers += [nn.Conv2d(channels, maps, 4, stride=2, padding=1), network.activation()]
            channels = maps
        factor = 2 ** len(network.channels)
        flat = channels * (height // factor) * (width // factor)
        layers += [nn.Flatten(), nn.Linear(flat, network.hidden), network.activation()]
        self.layers = nn.Sequential(*layers)
        self.out_features = network.hidden

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x.reshape(-1, *self.sizes))
        return features


class _ConvDecoder(nn.Module):
    def __init__(self, network: Conv, latent_dim: int, sizes: tuple[int, int, int]) -> None:
        super().__init__()
        _, height, width = sizes
        factor = 2 ** len(network.channels)
        *rest, last = network.channels
        small = (last, height // factor, width // factor)
        layers: list[nn.Module] = [nn.Linear(latent_dim, network.hidden), network.activation()]
        layers += [nn.Linear(network.hidden, prod(small)), network.activation()]
        layers += [nn.Unflatten(-1, small)]
        maps = last
        for wanted in [*reversed(rest), network.channels[0]]:
            up = nn.ConvTranspose2d(maps, wanted, 4, stride=2, padding=1)
            layers += [up, network.activation()]
            maps = wanted
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.out_features = maps * height * width

    def forward(self, z: Tensor) -> Tensor:
        features = self.layers(z.reshape(-1, z.shape[-1]))
        return features.reshape(*z.shape[:-1], -1)
