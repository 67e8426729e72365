"""The deep latent Gaussian model: several stochastic layers with noise of their own."""

from collections.abc import Sequence
from itertools import pairwise

import pyro
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from aevb.models.composed import (
    ComposedModel,
    build_decoder,
    build_encoder,
    build_vector_decoder,
    check_layers,
    check_parts,
    networks_by_layer,
    shown_networks,
)
from aevb.models.likelihoods import Bernoulli, Likelihood
from aevb.models.networks import MLP, Network
from aevb.models.noise import InputNoise, noisy
from aevb.models.parameters import declare
from aevb.models.posteriors import DiagonalNormal, Posterior
from aevb.models.weights import LatentWeights

__all__ = ["DLGM"]


class DLGM(ComposedModel):
    r"""The deep latent Gaussian model: independent noise enters at every layer.

    .. math::
        \xi_l \sim \mathcal{N}(0, I), \qquad h_L = G_L \xi_L, \qquad
        h_l = T_l(h_{l+1}) + G_l \xi_l, \qquad x \sim \pi(x \mid T_0(h_1)), \\
        q(\xi \mid x) = \prod_l q(\xi_l \mid x)

    The latent sites ``z1`` to ``zL`` are the :math:`\xi_l`, whose prior is a standard normal; the
    free energy of the paper is minus the ELBO, :math:`D_{KL}(q(\xi) \| \mathcal{N}(0, I)) -
    E_q \log p(x \mid \xi)` (its equation 6), to which the paper adds a Gaussian prior on the
    generative weights: ``fit(weight_prior_scale=...)``.

    References:
        Stochastic Backpropagation and Approximate Inference in Deep Generative Models (Rezende,
        Mohamed & Wierstra, 2014), equations 1 to 6, https://arxiv.org/abs/1401.4082

    Args:
        shape: Shape of one datapoint.
        latent_dims: Dimensions of :math:`\xi_1` to :math:`\xi_L`, from the data upwards.
        hidden: Widths of the hidden layers of every recognition network, and reversed of every
            :math:`T_l`.
        likelihood: π.
        posterior: Family of each :math:`q(\xi_l \mid x)`: ``DiagonalNormal()`` and
            ``RankOneNormal()`` in the paper.
        activation: Nonlinearity of the hidden layers.
        network: In place of ``hidden``: the recognition network of every layer, or one for each
            layer from the data upwards; the mirror image of the first is :math:`T_0`, of the next
            :math:`T_1` and so on.
        input_noise: Noise on the recognition networks' input in training mode; the paper calls it
            essential.
        latent_noise: Noise on the draws that the generative networks get in training mode, or
            None.
        weights: ``LatentWeights()`` makes all generative weights, :math:`G_l` and :math:`T_l`,
            latent variables (full variational Bayes); None makes them parameters.

    Raises:
        ValueError: If there is no layer, a size is not positive, the posterior family does not
            cover the real line, or there are other than one or L networks.

    Example:
        >>> import torch
        >>> model = DLGM((28, 28), latent_dims=[50, 20], hidden=[200])
        >>> x = torch.zeros(3, 28, 28)
        >>> model.model(x).shape, [z.shape[-1] for z in model.guide(x)]
        (torch.Size([3, 28, 28]), [50, 20])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent_dims: Sequence[int] = (200,),
        hidden: Sequence[int] = (200, 200),
        likelihood: Likelihood = Bernoulli(),
        posterior: Posterior = DiagonalNormal(),
        activation: type[nn.Module] = nn.ReLU,
        network: Network | Sequence[Network] | None = None,
        input_noise: InputNoise | None = None,
        latent_noise: InputNoise | None = None,
        weights: LatentWeights | None = None,
    ) -> None:
        super().__init__(tuple(shape))
        self.latent_dims = check_layers(latent_dims, posterior)
        check_parts(
            likelihood=likelihood, posterior=posterior, input_noise=input_noise, weights=weights,
            latent_noise=latent_noise,
        )  # fmt: skip
        given = MLP(tuple(hidden), activation) if network is None else network
        self.networks = networks_by_layer(given, len(self.latent_dims))
        self.parts = (likelihood, posterior)
        self.view = likelihood.encoder_view
        self.noise = nn.Identity() if input_noise is None else input_noise.build()
        self.latent_noise = nn.Identity() if latent_noise is None else latent_noise.build()
        self.encoders = nn.ModuleList(
            build_encoder(of_layer, posterior, self.shape, size)
            for of_layer, size in zip(self.networks, self.latent_dims, strict=True)
        )
        observe = self.networks[0], likelihood, self.latent_dims[0], self.shape
        layers = _Layers(self.latent_dims, self.networks, observe)
        self.set_decoder(layers, weights)

    def model(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """Noise of every layer, and data given it; see :meth:`LatentVariableModel.model`."""
        decode = self.generative()
        like = next(self.parameters())
        with self.data_plate(x, size):
            noise = []
            for layer, dims in reversed(list(enumerate(self.latent_dims, start=1))):
                standard = dist.Normal(like.new_zeros(dims), like.new_ones(dims)).to_event(1)
                noise.append(self.latent_noise(pyro.sample(f"z{layer}", standard)))
            return pyro.sample("x", decode(*noise), obs=x)

    def guide(self, x: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Every layer's noise given the data; returns the draws of ``z1`` to ``zL``."""
        declare("encoders", self.encoders)
        if self.weights is not None:
            self.weights.sample_posterior()
        with self.data_plate(x):
            seen = noisy(self.noise, self.view(x))
            # in the model's order, so that divergences of single layers add up
            draws = [
                pyro.sample(f"z{layer + 1}", self.encoders[layer](seen))
                for layer in reversed(range(len(self.latent_dims)))
            ]
        return tuple(reversed(draws))

    def __repr__(self) -> str:
        """The model as a formula, with the sizes."""
        likelihood, posterior = self.parts
        sizes = ", ".join(map(str, self.latent_dims))
        return self.formula(
            f"ξ     ~ Normal(0, I)   ξ1 to ξ{len(self.latent_dims)}: {sizes}",
            f"x | ξ ~ {likelihood!r} of {self.networks[0]!r}",
            f"q(ξ|x) = {posterior!r} of {shown_networks(self.networks)}, a network for each layer",
        )


class _Layers(nn.Module):
    """From the noise of all layers, the top one first, to the distribution of the data."""

    def __init__(
        self,
        latent_dims: tuple[int, ...],
        networks: list[Network],
        observe: tuple[Network, Likelihood, int, tuple[int, ...]],
    ) -> None:
        super().__init__()
        self.mixing = nn.ModuleList(  # G_1 to G_L
            nn.Linear(size, size, bias=False) for size in latent_dims
        )
        self.transforms = nn.ModuleList()  # T_1 to T_{L-1}
        for (below, above), network in zip(pairwise(latent_dims), networks[1:], strict=True):
            self.transforms.append(build_vector_decoder(network, above, below))
        self.observe = build_decoder(*observe)  # T_0

    def forward(self, *noise: Tensor) -> TorchDistributionMixin:
        top, *below = reversed(range(len(self.mixing)))
        h = self.mixing[top](noise[0])
        for layer, xi in zip(below, noise[1:], strict=True):
            h = self.transforms[layer](h) + self.mixing[layer](xi)
        given: TorchDistributionMixin = self.observe(h)
        return given
