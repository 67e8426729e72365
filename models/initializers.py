"""Where the weights of a model start."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from aevb.models.settings import Checked, positive

__all__ = ["Glorot", "He", "Initializer", "SmallNormal"]


@runtime_checkable
class StartsAtMean(Protocol):
    """A decoder that can begin at the mean of the data."""

    def start_at(self, mean: Tensor) -> None:
        """Set the biases."""


class Initializer(Checked, ABC):
    """A rule for the weights of a new model, drawn from torch's global generator.

    Without one, weights start as torch starts its layers.

    Example:
        >>> from aevb.models import VAE
        >>> vae = VAE((8, 8), latent_dim=2)
        >>> SmallNormal(scale=0.01)(vae, torch.zeros(8, 8))
        >>> bool(max(p.abs().max() for p in vae.parameters()) < 0.1)
        True
    """

    data_mean: bool

    def __call__(self, model: nn.Module, mean: Tensor) -> None:
        """Draw the weights anew, in place.

        Args:
            model: A model of this package, or any module.
            mean: Of the data, of the shape of one datapoint.
        """
        self.draw(model)
        if self.data_mean:
            with torch.no_grad():
                for module in model.modules():
                    if isinstance(module, StartsAtMean):
                        module.start_at(mean)

    @abstractmethod
    def draw(self, model: nn.Module) -> None:
        """Draw the weights anew, in place, whatever the data.

        Args:
            model: Any module.
        """


@dataclass(frozen=True)
class SmallNormal(Initializer):
    r"""Every parameter from :math:`\mathcal{N}(0, s^2)`, biases as well.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), section 5,
        https://arxiv.org/abs/1312.6114

    Args:
        scale: s. The paper's N(0, 0.01) leaves open whether 0.01 is it or its square.
        data_mean: See :class:`Glorot`.

    Raises:
        ValueError: If ``scale`` is not positive.

    Example:
        >>> layer = nn.Linear(100, 100)
        >>> SmallNormal(0.01).draw(layer)
        >>> bool((layer.weight.std() - 0.01).abs() < 5 * 0.01 / 20000**0.5)
        True
    """

    scale: float = positive(0.01)
    data_mean: bool = False

    def draw(self, model: nn.Module) -> None:
        """See :meth:`Initializer.draw`."""
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=self.scale)


@dataclass(frozen=True)
class Glorot(Initializer):
    r"""Matrices uniform within :math:`\pm\sqrt{6 / (n_\text{in} + n_\text{out})}`, biases zero.

    References:
        Understanding the difficulty of training deep feedforward neural networks (Glorot & Bengio,
        2010), equation 16, https://proceedings.mlr.press/v9/glorot10a.html

    Args:
        data_mean: Let a decoder of logits begin at the mean of the data, pixel by pixel.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> Glorot().draw(layer)
        >>> bool(layer.weight.abs().max() <= 2**0.5), layer.bias.item()
        (True, 0.0)
    """

    data_mean: bool = False

    def draw(self, model: nn.Module) -> None:
        """See :meth:`Initializer.draw`."""
        for layer in _linear(model):
            nn.init.xavier_uniform_(layer.weight)


@dataclass(frozen=True)
class He(Initializer):
    r"""Matrices from :math:`\mathcal{N}(0, 2 / n_\text{in})`, biases zero.

    References:
        Delving Deep into Rectifiers (He et al., 2015), equation 10,
        https://arxiv.org/abs/1502.01852

    Args:
        data_mean: See :class:`Glorot`.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> He().draw(layer)
        >>> layer.bias.item()
        0.0
    """

    data_mean: bool = False

    def draw(self, model: nn.Module) -> None:
        """See :meth:`Initializer.draw`."""
        for layer in _linear(model):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


def _linear(model: nn.Module) -> list[nn.Linear]:
    """The linear layers, their biases set to zero."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for layer in layers:
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return layers
