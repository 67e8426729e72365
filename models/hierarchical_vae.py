"""The hierarchy of conditional normals, inferred from the data upwards."""

from collections.abc import Sequence

import pyro
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from aevb.models.composed import (
    ComposedModel,
    build_decoder,
    build_encoder,
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

__all__ = ["HierarchicalVAE"]


class HierarchicalVAE(ComposedModel):
    r"""Layers of conditional normals above each other, inferred from the data upwards.

    .. math::
        z_L \sim \mathcal{N}(0, I), \qquad z_l \mid z_{l+1} \sim \mathcal{N}(\mu_l, \sigma_l^2), \\
        x \sim p(x \mid z_1), \qquad q(z \mid x) = q(z_1 \mid x) \prod_l q(z_{l+1} \mid z_l)

    References:
        Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), section 5,
        https://arxiv.org/abs/1509.00519

    Args:
        shape: Shape of one datapoint.
        latent_dims: Dimensions of ``z1`` to ``zL``, from the data upwards.
        hidden: For each layer the widths of its encoder's hidden layers; its decoder's are the
            same, reversed.
        likelihood: p(x|z1).
        posterior: Family of each layer of the posterior.
        activation: Nonlinearity of the hidden layers.
        network: In place of ``hidden``: one network for every layer, or one for each layer from
            the data upwards, as ``[Conv([16, 32]), MLP([100])]``. Layers above the first see
            vectors, where a ``Conv`` is its fully connected layer.
        input_noise: Noise on the encoder's input in training mode, or None.
        weights: ``LatentWeights()`` makes the weights of all generative networks latent variables
            (full variational Bayes); None makes them parameters.

    Raises:
        ValueError: If there is no layer, a size is not positive, the posterior family does not
            cover the real line, or ``hidden`` or ``network`` has another length.

    Example:
        >>> import torch
        >>> model = HierarchicalVAE((28, 28), latent_dims=[100, 50], hidden=[[200, 200], [100]])
        >>> x = torch.zeros(3, 28, 28)
        >>> model.model(x).shape, [z.shape[-1] for z in model.guide(x)]
        (torch.Size([3, 28, 28]), [100, 50])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent_dims: Sequence[int] = (100, 50),
        hidden: Sequence[Sequence[int]] = ((200, 200), (100, 100)),
        likelihood: Likelihood = Bernoulli(),
        posterior: Posterior = DiagonalNormal(),
        activation: type[nn.Module] = nn.Tanh,
        network: Network | Sequence[Network] | None = None,
        input_noise: InputNoise | None = None,
        weights: LatentWeights | None = None,
    ) -> None:
        super().__init__(tuple(shape))
        self.latent_dims = check_layers(latent_dims, posterior)
        check_parts(
            likelihood=likelihood, posterior=posterior, input_noise=input_noise, weights=weights
        )
        if network is None:
            if len(hidden) != len(self.latent_dims):
                raise ValueError(
                    f"hidden: expected widths for each of {len(self.latent_dims)} layers; got "
                    f"{len(hidden)}"
                )
            network = [MLP(tuple(widths), activation) for widths in hidden]
        self.networks = networks_by_layer(network, len(self.latent_dims))
        self.parts = (likelihood, posterior)
        self.view = likelihood.encoder_view
        self.noise = nn.Identity() if input_noise is None else input_noise.build()
        self.encoders = nn.ModuleList()
        decoders = _Layers()
        below: tuple[int, ...] = self.shape
        given: Likelihood | Posterior = likelihood
        for of_layer, size in zip(self.networks, self.latent_dims, strict=True):
            fitting = of_layer if given is likelihood else of_layer.between_vectors()
            self.encoders.append(build_encoder(fitting, posterior, below, size))
            decoders.append(build_decoder(fitting, given, size, below))
            below, given = (size,), DiagonalNormal()
        self.set_decoder(decoders, weights)

    def model(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """From the top to the data; see :meth:`LatentVariableModel.model`."""
        decode = self.generative()
        like, top = next(self.parameters()), self.latent_dims[-1]
        with self.data_plate(x, size):
            prior = dist.Normal(like.new_zeros(top), like.new_ones(top)).to_event(1)
            for layer in reversed(range(len(self.latent_dims))):
                z = pyro.sample(f"z{layer + 1}", prior)
                prior = decode(z, layer)
            return pyro.sample("x", prior, obs=x)

    def guide(self, x: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """From the data upwards; returns the draws of ``z1`` to ``zL``."""
        declare("encoders", self.encoders)
        if self.weights is not None:
            self.weights.sample_posterior()
        draws = []
        with self.data_plate(x):
            below = noisy(self.noise, self.view(x))
            for number, encoder in enumerate(self.encoders, start=1):
                below = pyro.sample(f"z{number}", encoder(below))
                draws.append(below)
        return tuple(draws)

    def __repr__(self) -> str:
        """The layers, with the sizes."""
        likelihood, posterior = self.parts
        sizes = ", ".join(map(str, self.latent_dims))
        return self.formula(
            f"z1     ~ Normal given the layer above   sizes: {sizes}",
            f"x | z1 ~ {likelihood!r} of {self.networks[0]!r}",
            f"q(z|x) = {posterior!r} of {shown_networks(self.networks)}",
        )


class _Layers(nn.ModuleList):
    """The conditional of each layer given the one above, from the data upwards."""

    def forward(self, z: Tensor, layer: int) -> TorchDistributionMixin:
        given: TorchDistributionMixin = self[layer](z)
        return given
