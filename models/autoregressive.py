"""A masked autoregressive layer of a flow."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pyro.distributions import transforms
from pyro.distributions.transforms.utils import clamp_preserve_gradients
from torch import Tensor

__all__ = ["Autoregressive", "order"]


class Autoregressive(transforms.AffineAutoregressive):
    """Pyro's affine autoregressive layer, with an inverse in the precision of its input.

    Make a fresh one for each use: it keeps what it last computed.

    Args:
        network: From ``(*batch, K)`` to shifts and log-scales of that shape.
        order: The dimensions; each depends on those before it.
    """

    def __init__(self, network: Callable[[Tensor], Any], order: Sequence[int]) -> None:
        super().__init__(network)
        self.order = order

    def _inverse(self, y: Tensor) -> Tensor:
        """One evaluation for each dimension."""
        x = torch.zeros_like(y)
        places = torch.arange(y.shape[-1], device=y.device)
        for place in self.order:
            shift, log_scale = self.arn(x)
            log_scale = clamp_preserve_gradients(
                log_scale, self.log_scale_min_clip, self.log_scale_max_clip
            )
            x = torch.where(places == place, (y - shift) * torch.exp(-log_scale), x)
        # the last one was computed from every dimension that matters; the Jacobian reads it here
        self._cached_log_scale = log_scale
        return x


def order(number: int, size: int) -> list[int]:
    """The order of the dimensions in a layer: reversed in every other one.

    Example:
        >>> order(1, 3)
        [2, 1, 0]
    """
    return list(range(size))[:: -1 if number % 2 else 1]
