"""A function as a density that can be sampled, without a Pyro program."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["FunctionDensity"]


class FunctionDensity:
    """A function with what samplers ask of a ``LogDensity``.

    Args:
        function: Log-density up to a constant, in nats, of ``(chains, batch, dim)``, as
            ``(chains, batch)``; or, of one joint posterior, of ``(chains, dim)`` as ``(chains,)``.
            Differentiable, and of each vector by itself.
        start: Vectors as it takes them.

    Raises:
        ValueError: If it returns another shape.
    """

    has_guide = False

    def __init__(self, function: Callable[[Tensor], Tensor], start: Tensor) -> None:
        if start.ndim not in (2, 3) or not start.is_floating_point():
            raise ValueError(
                "start: expected positions (chains, batch, dim), or (chains, dim) of one joint "
                f"posterior; got {start.dtype} {tuple(start.shape)}"
            )
        self.is_local = start.ndim == 3
        self.batch, self.dim = start.shape[1] if self.is_local else 1, start.shape[-1]
        self.device, self.dtype = start.device, start.dtype
        self._function = function
        with torch.no_grad():
            value = function(start)
        if value.shape != start.shape[:-1]:
            raise ValueError(
                f"log_density: of {tuple(start.shape)} expected {tuple(start.shape[:-1])}; got "
                f"{tuple(value.shape)}"
            )

    def joint(self, u: Tensor) -> Tensor:
        """Log-density at ``(chains, batch, dim)``, ``(chains, batch)``, float64."""
        if self.is_local:
            return self._function(u).double()
        return self._function(u.squeeze(1)).double().unsqueeze(1)

    def constrain(self, u: Tensor) -> dict[str, Tensor]:
        """The vectors themselves, as ``"u"``, without the batch of one of a joint posterior."""
        return {"u": u if self.is_local else u.squeeze(-2)}

    def refuse_nan(self, u: Tensor) -> None:
        """No site could be named."""
