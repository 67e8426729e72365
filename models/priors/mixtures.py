"""Priors with several modes."""

from dataclasses import dataclass

import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from aevb.models.priors.base import Prior
from aevb.models.settings import at_least

__all__ = ["MixtureOfGaussians", "VampPrior"]


@dataclass(frozen=True)
class MixtureOfGaussians(Prior):
    r"""A mixture of diagonal normals; weights, means and scales are parameters.

    .. math:: p(z) = \sum_k \pi_k \mathcal{N}(z; m_k, \mathrm{diag}\, s_k^2)

    References:
        VAE with a VampPrior (Tomczak & Welling, 2018), section 2, https://arxiv.org/abs/1705.07120

    Args:
        components: Number of normals.

    Raises:
        ValueError: If there is none.

    Example:
        >>> MixtureOfGaussians(components=10).build(latent_dim=2)().sample((5,)).shape
        torch.Size([5, 2])
    """

    components: int = at_least(1, 10)

    def build(self, latent_dim: int) -> nn.Module:
        """Equal weights and unit scales at first, around draws of the standard normal."""
        return _MixtureOfGaussians(self.components, latent_dim)


@dataclass(frozen=True)
class VampPrior(Prior):
    r"""The encoder's own posteriors at learned pseudo-inputs, mixed in equal parts.

    .. math:: p(z) = \tfrac1K \sum_k q(z \mid u_k)

    References:
        VAE with a VampPrior (Tomczak & Welling, 2018), equation 9,
        https://arxiv.org/abs/1705.07120

    Args:
        components: K, number of pseudo-inputs.
        low: Pseudo-inputs below it are cut off, as images are; None for data without a bound.
        high: As ``low``, from above.

    Raises:
        ValueError: If there is no pseudo-input, the bounds are not in order, or it is built
            outside a model with an encoder.

    Example:
        >>> from aevb.models import VAE
        >>> vae = VAE((8, 8), latent_dim=2, prior=VampPrior(components=50))
        >>> vae.model(size=3).shape
        torch.Size([3, 8, 8])
    """

    components: int = at_least(1, 500)
    low: float | None = 0.0
    high: float | None = 1.0

    def __post_init__(self) -> None:
        """Refuse an empty mixture, and bounds that are not in order."""
        super().__post_init__()
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"VampPrior: low must be below high; got {self.low} and {self.high}")

    def build(self, latent_dim: int) -> nn.Module:
        """Not by itself: raises ValueError."""
        raise ValueError(
            "VampPrior: is made of a model's encoder, which this model has none of; use "
            "MixtureOfGaussians() in its place"
        )

    def build_beside(
        self, encoder: nn.Module, shape: tuple[int, ...], latent_dim: int
    ) -> nn.Module:
        """Pseudo-inputs, ``(components, *shape)``, as parameters."""
        return _VampPrior(self, encoder, shape)


class _MixtureOfGaussians(nn.Module):
    def __init__(self, components: int, latent_dim: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(components, latent_dim))

    def forward(self) -> TorchDistributionMixin:
        normals = dist.Normal(self.loc, self.log_scale.exp()).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), normals)


class _VampPrior(nn.Module):
    weights: Tensor

    def __init__(self, prior: VampPrior, encoder: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.low, self.high = low, high = prior.low, prior.high
        # near the lower bound, where most of an image is, but inside
        if low is not None:
            start = low + (0.05 * (high - low) if high is not None else 1.0)
        else:
            start = 0.0 if high is None else high - 1.0
        self.pseudo_inputs = nn.Parameter(start + 0.01 * torch.randn(prior.components, *shape))
        self.register_buffer("weights", torch.zeros(prior.components), persistent=False)
        self._encoder = (encoder,)  # in a tuple, because its parameters belong to the model

    def forward(self) -> TorchDistributionMixin:
        inputs: Tensor = self.pseudo_inputs
        if self.low is not None or self.high is not None:
            inputs = inputs.clamp(self.low, self.high)
        return dist.MixtureSameFamily(
            dist.Categorical(logits=self.weights), self._encoder[0](inputs)
        )
