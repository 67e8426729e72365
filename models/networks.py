"""Networks that turn data into features and latents into features."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

__all__ = ["MLP"]


class MLP(nn.Module):
    r"""Fully connected layers, each followed by the activation.

    .. math:: h_0 = x, \qquad h_i = f(W_i h_{i-1} + b_i)

    The output layer belongs to the distribution that the features parametrize, so the last hidden
    layer is what comes out (AEVB, appendix C).

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), https://arxiv.org/abs/1312.6114

    Args:
        in_features: Width of the input.
        hidden: Width of each layer, first to last; empty means the identity.
        activation: Constructor of the nonlinearity, without arguments.

    Raises:
        ValueError: If a width is not positive.

    Example:
        >>> import torch
        >>> MLP(784, [500, 200])(torch.zeros(3, 784)).shape
        torch.Size([3, 200])
    """

    def __init__(
        self, in_features: int, hidden: Sequence[int], activation: type[nn.Module] = nn.Tanh
    ) -> None:
        super().__init__()
        widths = [in_features, *hidden]
        if min(widths) < 1:
            raise ValueError(f"hidden: every width must be at least 1; got {list(hidden)}")
        self.widths = widths
        self.out_features = widths[-1]
        self.activation = activation
        layers = [
            layer
            for fan_in, fan_out in pairwise(widths)
            for layer in (nn.Linear(fan_in, fan_out), activation())
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Features of ``x``: ``(*batch, in_features)`` → ``(*batch, out_features)``."""
        features: Tensor = self.layers(x)
        return features

    def formula(self) -> str:
        """The layers in one line.

        Example:
            >>> MLP(784, [500]).formula()
            '784 → 500 Tanh'
        """
        steps = [str(self.widths[0])]
        steps += [f"{width} {self.activation.__name__}" for width in self.widths[1:]]
        return " → ".join(steps)
