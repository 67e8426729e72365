"""What every model of this package is: a Pyro model and its guide, in one module."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from aevb.data.tables import html_table
from aevb.models.looking import log_mean_weight, looking, mean_given, posterior_means

__all__ = ["LatentVariableModel"]


class LatentVariableModel(nn.Module, ABC):
    """A Pyro program pair ``model(x)`` and ``guide(x)`` with one latent posterior per datapoint.

    The observed site is ``"x"``; latent sites lie in the rightmost ``pyro.plate("data", B)``.
    Parameters are ordinary module parameters, announced to Pyro by
    :func:`aevb.models.parameters.declare`; Pyro's global store is neither read nor written.

    Attributes:
        shape: Shape of one datapoint.

    Example:
        >>> from aevb.models import VAE
        >>> vae = VAE((8, 8), latent_dim=2)
        >>> isinstance(vae, LatentVariableModel), vae.shape
        (True, (8, 8))
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

    def encode(self, x: Tensor, num_samples: int = 1000, seed: int = 0) -> Any:
        """Means of the latents under the guide, without gradients.

        Args:
            x: Data, ``(B, *shape)``.
            num_samples: Draws, where a family does not say its mean.
            seed: Of these draws; torch's global random state is left as it was.

        Returns:
            ``(B, latent_dim)``; of several layers one such tensor for each, as the guide has them.

        Example:
            >>> import torch
            >>> from aevb.models import VAE
            >>> vae, x = VAE((8, 8), latent_dim=3), torch.zeros(5, 8, 8)
            >>> vae.encode(x).shape, vae.decode(vae.encode(x)).shape, vae.reconstruct(x).shape
            (torch.Size([5, 3]), torch.Size([5, 8, 8]), torch.Size([5, 8, 8]))
            >>> vae.log_evidence(x, num_samples=10).shape
            torch.Size([5])
        """
        with looking(self, seed, "encode"):
            found = posterior_means(self, x, num_samples)
        return found if len(found) > 1 else found[0]

    def decode(self, z: Any) -> Tensor:
        """E[x|z], without gradients.

        Args:
            z: Latents as of :meth:`encode`, ``(B, latent_dim)``; of several layers all of them.

        Returns:
            ``(B, *shape)``.

        Raises:
            ValueError: If there are other than so many layers.
        """
        with looking(self, 0, "decode"):
            return mean_given(self, tuple(z) if isinstance(z, tuple | list) else (z,))

    def reconstruct(self, x: Tensor, num_samples: int = 1000, seed: int = 0) -> Tensor:
        """E[x|z] at the means of the latents under the guide: :meth:`decode` of :meth:`encode`.

        Args:
            x: Data, ``(B, *shape)``.
            num_samples: As for :meth:`encode`.
            seed: The same.

        Returns:
            ``(B, *shape)``.
        """
        return self.decode(self.encode(x, num_samples, seed))

    def log_evidence(self, x: Tensor, num_samples: int = 1000, seed: int = 0) -> Tensor:
        r"""Importance sampling of log p(x) by the guide, without gradients.

        .. math:: \log \frac1S \sum_s \frac{p(x, z_s)}{q(z_s|x)}, \qquad z_s \sim q(z|x)

        In expectation a lower bound, which nothing here says how far to trust:
        :func:`aevb.inference.importance_evidence` gives errors, k̂ and a verdict.

        Args:
            x: Data, ``(B, *shape)``.
            num_samples: S.
            seed: Of the draws; torch's global random state is left as it was.

        Returns:
            ``(B,)``, float64, in nats.

        Raises:
            ValueError: If the guide has no density, or weights are latent.
        """
        if num_samples < 1:
            raise ValueError(f"num_samples: must be at least 1; got {num_samples}")
        with looking(self, seed, "log evidence"):
            return log_mean_weight(self, x, num_samples)

    def _repr_html_(self) -> str:
        """The formula, and how many parameters lie where."""
        rows = {
            name: f"{sum(p.numel() for p in part.parameters()):,} parameters"
            for name, part in self.named_children()
            if any(True for _ in part.parameters())
        }
        return html_table(type(self).__name__, rows, repr(self))

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
