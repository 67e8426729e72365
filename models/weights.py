"""Weights of a decoder as latent variables with a posterior of their own."""

import copy
import math
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.func import functional_call

from aevb.models.parameters import declare

__all__ = ["BayesianDecoder", "LatentWeights", "Weights"]


class Weights:
    """What the weights of a decoder are, where they are no parameters.

    Example:
        >>> isinstance(LatentWeights(), Weights)
        True
    """


@dataclass(frozen=True)
class LatentWeights(Weights):
    r"""Full variational Bayes: the decoder's weights θ have a prior and a posterior, as z has.

    .. math:: \theta \sim \mathcal{N}(0, s^2 I), \qquad
        q(\theta) = \mathcal{N}(\theta; \mu, \mathrm{diag}\, \sigma^2)

    The datapoints of a minibatch of M stand for all N, so that their terms of the bound are
    multiplied by N / M and those of θ count once.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), appendix F,
        https://arxiv.org/abs/1312.6114

    Args:
        prior_scale: s.
        initial_scale: σ before training.

    Raises:
        ValueError: If a scale is not positive.

    Example:
        >>> from aevb.models import VAE
        >>> vae = VAE((8, 8), latent_dim=2, hidden=[16], weights=LatentWeights())
        >>> vae.model(torch.zeros(3, 8, 8)).shape
        torch.Size([3, 8, 8])
    """

    prior_scale: float = 1.0
    initial_scale: float = 0.01

    def __post_init__(self) -> None:
        """Refuse what is no scale."""
        for name in ("prior_scale", "initial_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: must be positive; got {getattr(self, name)}")


class BayesianDecoder(nn.Module):
    """A decoder, and a normal for each of its weights.

    Args:
        decoder: Its initial weights become the means.
        weights: Scales.
    """

    def __init__(self, decoder: nn.Module, weights: LatentWeights) -> None:
        super().__init__()
        self.decoder = decoder
        self.prior_scale = weights.prior_scale
        self.loc, self.log_scale = nn.ParameterDict(), nn.ParameterDict()
        for name, parameter in decoder.named_parameters():
            parameter.requires_grad_(False)
            key = name.replace(".", "/")  # nn.ParameterDict refuses dots
            self.loc[key] = nn.Parameter(parameter.detach().clone())
            start = torch.full_like(parameter, math.log(weights.initial_scale))
            self.log_scale[key] = nn.Parameter(start.detach())

    def sample_prior(self) -> dict[str, Tensor]:
        """Sites ``decoder.NAME`` of the model, by the decoder's names."""
        return {
            name: self._sample(name, torch.zeros_like(value), self.prior_scale)
            for name, value in self.decoder.named_parameters()
        }

    def sample_posterior(self) -> dict[str, Tensor]:
        """The same sites of the guide."""
        declare("decoder_posterior", self)
        return {
            name: self._sample(name, self.loc[key], self.log_scale[key].exp())
            for name, _ in self.decoder.named_parameters()
            for key in [name.replace(".", "/")]
        }

    def _sample(self, name: str, loc: Tensor, scale: Tensor | float) -> Tensor:
        normal = dist.Normal(loc, scale * torch.ones_like(loc)).to_event(loc.ndim)
        draw: Tensor = pyro.sample(f"decoder.{name}", normal)
        return draw

    def at(self, weights: dict[str, Tensor], *inputs: Any) -> TorchDistributionMixin:
        """What the decoder gives for one set of weights.

        Args:
            weights: From :meth:`sample_prior`, in an outer plate of size 1 at most.
            inputs: Of the decoder, as latents ``(*batch, latent_dim)``.

        Raises:
            ValueError: If there are several sets.
        """
        single = {}
        for name, parameter in self.decoder.named_parameters():
            if weights[name].numel() != parameter.numel():
                raise ValueError(
                    "LatentWeights: a network takes one draw of its weights at a time: use "
                    "num_particles=1, or ELBO(vectorize_particles=False); for evidence, "
                    "at_mean_weights()"
                )
            single[name] = weights[name].reshape(parameter.shape)
        return functional_call(self.decoder, single, inputs)

    def mean_decoder(self) -> nn.Module:
        """A copy of the decoder with the posterior's means as its weights."""
        twin = copy.deepcopy(self.decoder)
        with torch.no_grad():
            for name, parameter in twin.named_parameters():
                parameter.copy_(self.loc[name.replace(".", "/")])
                parameter.requires_grad_(True)
        return twin
