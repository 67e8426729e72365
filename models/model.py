"""What every model of this package is: a Pyro model and its guide, in one module."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

__all__ = ["LatentVariableModel"]


class LatentVariableModel(nn.Module, ABC):
    """A Pyro program pair ``model(x)`` and ``guide(x)`` with one latent posterior per datapoint.

    The observed site is ``"x"``; latent sites lie in the rightmost ``pyro.plate("data", B)``.
    Parameters are ordinary module parameters, announced to Pyro by
    :func:`aevb.models.parameters.declare`; Pyro's global store is neither read nor written.

    Attributes:
        shape: Shape of one datapoint.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        if not shape or min(shape) < 1:
            raise ValueError(f"shape: expected the positive sizes of one datapoint; got {shape}")
        self.shape = shape

    @abstractmethod
    def model(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """The joint distribution p(x, z) as a Pyro program.

        Args:
            x: Data to condition on, ``(B, *shape)``; without it, ``x`` is drawn as well.
            size: Number of datapoints to draw when ``x`` is not given.

        Returns:
            The value of site ``"x"``, ``(B, *shape)``.
        """

    @abstractmethod
    def guide(self, x: Tensor) -> Tensor:
        """The posterior q(z|x) as a Pyro program.

        Args:
            x: Data, ``(B, *shape)``.

        Returns:
            The draw of site ``"z"``, ``(B, latent_dim)``.
        """

    @abstractmethod
    def check_data(self, x: Tensor) -> None:
        """Refuse data that the likelihood does not admit.

        Args:
            x: Data, ``(N, *shape)``.

        Raises:
            ValueError: If the shape or a value is outside the model's domain; names the remedy.
        """

    def check_shape(self, x: Tensor) -> None:
        """Refuse data whose datapoints have another shape, or another precision than the weights.

        Raises:
            ValueError: Names both.
        """
        weights = next(self.parameters()).dtype
        if x.dtype != weights:
            raise ValueError(
                f"x: expected {weights}, as the weights are; got {x.dtype}: convert the data, or "
                "the model with .double() or .float()"
            )
        if tuple(x.shape[1:]) != self.shape:
            sizes = ", ".join(map(str, self.shape))
            raise ValueError(f"x: expected shape (B, {sizes}); got {tuple(x.shape)}")
