"""Models with several stochastic layers."""

from collections.abc import Sequence
from itertools import pairwise

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from aevb.models.layers import DenseLayers
from aevb.models.likelihoods import Bernoulli, Likelihood
from aevb.models.model import LatentVariableModel
from aevb.models.networks import MLP, Network
from aevb.models.noise import InputNoise, noisy
from aevb.models.parameters import declare
from aevb.models.posteriors import DiagonalNormal, Posterior
from aevb.models.supports import REAL

__all__ = ["DLGM", "HierarchicalVAE"]


class DLGM(LatentVariableModel):
    r"""The deep latent Gaussian model: independent noise enters at every layer.

    .. math::
        \xi_l \sim \mathcal{N}(0, I), \qquad h_L = G_L \xi_L, \qquad
        h_l = T_l(h_{l+1}) + G_l \xi_l, \qquad x \sim \pi(x \mid T_0(h_1)), \\
        q(\xi \mid x) = \prod_l q(\xi_l \mid x)

    The latent sites ``z1`` to ``zL`` are the :math:`\xi_l`, whose prior is a standard normal; the
    free energy of the paper is minus the ELBO, :math:`D_{KL}(q(\xi) \| \mathcal{N}(0, I)) -
    E_q \log p(x \mid \xi)` (its equation 6), to which the paper adds a prior on the generative
    weights; ``fit(weight_prior_scale=...)`` puts one on all weights, as the AEVB paper does.

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
        network: In place of ``hidden`` and ``activation``: the recognition networks, one for each
            layer, and :math:`T_0`.
        input_noise: Noise on the recognition networks' input in training mode; the paper calls it
            essential.

    Raises:
        ValueError: If there is no layer, a size is not positive, or the posterior family does not
            cover the real line.

    Example:
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
        network: Network | None = None,
        input_noise: InputNoise | None = None,
    ) -> None:
        super().__init__(tuple(shape))
        self.latent_dims = _checked(latent_dims)
        if posterior.support is not REAL:
            raise ValueError(
                f"posterior: {type(posterior).__name__} does not cover the real line, on which "
                "a DLGM's latents lie: use DiagonalNormal() or RankOneNormal()"
            )
        self.network = MLP(tuple(hidden), activation) if network is None else network
        self.parts = (likelihood, posterior)
        self.view = likelihood.encoder_view
        self.noise = nn.Identity() if input_noise is None else input_noise.build()
        self.encoders = nn.ModuleList()
        for size in self.latent_dims:
            features = self.network.build_encoder(self.shape)
            width = int(features.out_features)  # type: ignore[arg-type]
            self.encoders.append(nn.Sequential(features, posterior.build(width, size)))
        self.mixing = nn.ModuleList(  # G_1 to G_L
            nn.Linear(size, size, bias=False) for size in self.latent_dims
        )
        widths = list(reversed(hidden))
        self.transforms = nn.ModuleList()  # T_1 to T_{L-1}
        for below, above in pairwise(self.latent_dims):
            layers = DenseLayers(above, widths, activation)
            self.transforms.append(nn.Sequential(layers, nn.Linear(layers.out_features, below)))
        decoder = self.network.build_decoder(self.latent_dims[0], self.shape)
        head = self.network.head(decoder, self.shape)
        width = int(decoder.out_features)  # type: ignore[arg-type]
        heads = () if head is nn.Linear else (head,)
        self.decoder = nn.Sequential(decoder, likelihood.build(width, self.shape, *heads))

    def model(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """Noise from the top to the data; see :meth:`LatentVariableModel.model`."""
        for name in ("mixing", "transforms", "decoder"):
            declare(name, getattr(self, name))
        if x is not None:
            self.check_shape(x)
        with pyro.plate("data", size if x is None else len(x)):
            h = None
            for layer in reversed(range(len(self.latent_dims))):
                weight: Tensor = self.mixing[layer].weight  # type: ignore[assignment]
                zeros = weight.new_zeros(self.latent_dims[layer])
                standard = dist.Normal(zeros, torch.ones_like(zeros)).to_event(1)
                noise = self.mixing[layer](pyro.sample(f"z{layer + 1}", standard))
                h = noise if h is None else self.transforms[layer](h) + noise
            return pyro.sample("x", self.decoder(h), obs=x)

    def guide(self, x: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Every layer's noise given the data; returns the draws of ``z1`` to ``zL``."""
        declare("encoders", self.encoders)
        self.check_shape(x)
        with pyro.plate("data", len(x)):
            seen = noisy(self.noise, self.view(x))
            # in the model's order, so that divergences of single layers add up
            draws = [
                pyro.sample(f"z{layer + 1}", self.encoders[layer](seen))
                for layer in reversed(range(len(self.latent_dims)))
            ]
        return tuple(reversed(draws))

    def check_data(self, x: Tensor) -> None:
        """See :meth:`LatentVariableModel.check_data`."""
        self.check_shape(x)
        self.parts[0].check(x)

    def __repr__(self) -> str:
        """The model as a formula, with the sizes."""
        likelihood, posterior = self.parts
        sizes = ", ".join(map(str, self.latent_dims))
        count = sum(parameter.numel() for parameter in self.parameters())
        return "\n".join(
            [
                "DLGM",
                f"  ξ     ~ Normal(0, I)   ξ1 to ξ{len(self.latent_dims)}: {sizes}",
                f"  x | ξ ~ {likelihood!r} of {self.network!r}   x: {_times(self.shape)}",
                f"  q(ξ|x) = {posterior!r} of {self.network!r}, a network for each layer",
                f"  {count:,} parameters",
            ]
        )


class HierarchicalVAE(LatentVariableModel):
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
        input_noise: Noise on the encoder's input in training mode, or None.

    Raises:
        ValueError: If there is no layer, a size is not positive, or ``hidden`` has another length.

    Example:
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
        input_noise: InputNoise | None = None,
    ) -> None:
        super().__init__(tuple(shape))
        self.latent_dims = _checked(latent_dims)
        if len(hidden) != len(self.latent_dims):
            raise ValueError(
                f"hidden: expected widths for each of {len(self.latent_dims)} layers; got "
                f"{len(hidden)}"
            )
        if posterior.support is not REAL:
            raise ValueError(
                f"posterior: {type(posterior).__name__} does not cover the real line: use "
                "DiagonalNormal() or FullNormal()"
            )
        self.parts = (likelihood, posterior)
        self.view = likelihood.encoder_view
        self.noise = nn.Identity() if input_noise is None else input_noise.build()
        self.encoders, self.decoders = nn.ModuleList(), nn.ModuleList()
        below: tuple[int, ...] = self.shape
        for size, widths in zip(self.latent_dims, hidden, strict=True):
            network = MLP(tuple(widths), activation)
            encoder = network.build_encoder(below)
            width = int(encoder.out_features)  # type: ignore[arg-type]
            self.encoders.append(nn.Sequential(encoder, posterior.build(width, size)))
            decoder = network.build_decoder(size, below)
            width = int(decoder.out_features)  # type: ignore[arg-type]
            if len(self.decoders) == 0:
                given = likelihood.build(width, self.shape)
            else:
                given = DiagonalNormal().build(width, below[0])
            self.decoders.append(nn.Sequential(decoder, given))
            below = (size,)

    def model(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """From the top to the data; see :meth:`LatentVariableModel.model`."""
        declare("decoders", self.decoders)
        if x is not None:
            self.check_shape(x)
        weight = next(self.parameters())
        zeros = weight.new_zeros(self.latent_dims[-1])
        with pyro.plate("data", size if x is None else len(x)):
            prior = dist.Normal(zeros, torch.ones_like(zeros)).to_event(1)
            for layer in reversed(range(len(self.latent_dims))):
                z = pyro.sample(f"z{layer + 1}", prior)
                prior = self.decoders[layer](z)
            return pyro.sample("x", prior, obs=x)

    def guide(self, x: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """From the data upwards; returns the draws of ``z1`` to ``zL``."""
        declare("encoders", self.encoders)
        self.check_shape(x)
        draws = []
        with pyro.plate("data", len(x)):
            below = noisy(self.noise, self.view(x))
            for number, encoder in enumerate(self.encoders, start=1):
                below = pyro.sample(f"z{number}", encoder(below))
                draws.append(below)
        return tuple(draws)

    def check_data(self, x: Tensor) -> None:
        """See :meth:`LatentVariableModel.check_data`."""
        self.check_shape(x)
        self.parts[0].check(x)

    def __repr__(self) -> str:
        """The layers, with the sizes."""
        likelihood, posterior = self.parts
        sizes = ", ".join(map(str, self.latent_dims))
        count = sum(parameter.numel() for parameter in self.parameters())
        return (
            f"HierarchicalVAE\n  z1     ~ Normal given the layer above   sizes: {sizes}\n"
            f"  x | z1 ~ {likelihood!r}   x: {_times(self.shape)}\n"
            f"  q(z|x) = {posterior!r} in each layer\n  {count:,} parameters"
        )


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _checked(latent_dims: Sequence[int]) -> tuple[int, ...]:
    if not latent_dims or min(latent_dims) < 1:
        raise ValueError(
            f"latent_dims: expected the positive size of each layer; got {list(latent_dims)}"
        )
    return tuple(latent_dims)
