"""The variational autoencoder: one stochastic layer."""

from collections.abc import Sequence

import pyro
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from aevb.models.composed import ComposedModel, build_decoder, check_parts
from aevb.models.likelihoods import Bernoulli, Likelihood
from aevb.models.networks import MLP, Network
from aevb.models.noise import InputNoise, noisy
from aevb.models.parameters import declare
from aevb.models.posteriors import DiagonalNormal, Posterior
from aevb.models.priors import Prior, StandardNormal, VampPrior
from aevb.models.supports import latent_support, meet, unconstrained_size
from aevb.models.weights import LatentWeights

__all__ = ["VAE"]


class VAE(ComposedModel):
    r"""A latent vector, a decoder that makes it data, and an encoder that infers it back.

    .. math::
        z \sim p(z), \qquad x \sim p(x \mid z), \qquad q(z \mid x) \approx p(z \mid x)

    Any prior, likelihood, posterior family and network go together. Where prior and posterior lie
    on different supports, the posterior is carried over by the bijection between them.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), https://arxiv.org/abs/1312.6114

    Args:
        shape: Shape of one datapoint, as in ``(28, 28)``.
        latent_dim: Dimensions of ``z``.
        hidden: Widths of the encoder's hidden layers; the decoder's are the same, reversed. Short
            for ``network=MLP(hidden, activation)``.
        prior: p(z).
        likelihood: p(x|z).
        posterior: q(z|x), amortized.
        activation: Nonlinearity of the hidden layers.
        network: Encoder and decoder; then ``hidden`` and ``activation`` are left alone.
        input_noise: Noise on the encoder's input in training mode, or None.
        weights: ``LatentWeights()`` makes the decoder's weights latent variables (full variational
            Bayes); None makes them parameters.

    Raises:
        ValueError: If a size is not positive, or two parts do not go together; names those that
            would.

    Example:
        >>> import torch
        >>> vae = VAE((28, 28), latent_dim=20, hidden=[500])
        >>> x = torch.zeros(3, 28, 28)
        >>> vae.guide(x).shape, vae.model(x).shape
        (torch.Size([3, 20]), torch.Size([3, 28, 28]))
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent_dim: int = 2,
        hidden: Sequence[int] = (500,),
        prior: Prior = StandardNormal(),
        likelihood: Likelihood = Bernoulli(),
        posterior: Posterior = DiagonalNormal(),
        activation: type[nn.Module] = nn.Tanh,
        network: Network | None = None,
        input_noise: InputNoise | None = None,
        weights: LatentWeights | None = None,
    ) -> None:
        super().__init__(tuple(shape))
        if latent_dim < 1:
            raise ValueError(f"latent_dim: must be at least 1; got {latent_dim}")
        check_parts(
            prior=prior, likelihood=likelihood, posterior=posterior, network=network,
            input_noise=input_noise, weights=weights,
        )  # fmt: skip
        _refuse_unscored_mixture(prior, posterior)
        self.latent_dim = latent_dim
        self.network = MLP(tuple(hidden), activation) if network is None else network
        self.parts = (prior, likelihood, posterior)
        self.encoder = _Encoder(self, input_noise)
        self.set_decoder(build_decoder(self.network, likelihood, latent_dim, self.shape), weights)
        self.prior = prior.build_beside(self.encoder, self.shape, latent_dim)

    def model(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """``z ~ p(z)``, ``x ~ p(x|z)``; see :meth:`LatentVariableModel.model`."""
        declare("prior", self.prior)
        decode = self.generative()
        with self.data_plate(x, size):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", decode(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """``z ~ q(z|x)``; see :meth:`LatentVariableModel.guide`."""
        declare("encoder", self.encoder)
        if self.weights is not None:
            self.weights.sample_posterior()
        with self.data_plate(x):
            seen = noisy(self.encoder.noise, self.encoder.view(x))
            return pyro.sample("z", self.encoder.posterior_at(seen))

    def __repr__(self) -> str:
        """The model as a formula, with the shapes."""
        prior, likelihood, posterior = self.parts
        return self.formula(
            f"z     ~ {prior!r}   z: {self.latent_dim}",
            f"x | z ~ {likelihood!r} of {self.network!r}",
            f"q(z|x) = {posterior!r} of {self.network!r}",
        )


class _Encoder(nn.Module):
    """From data to the posterior on the prior's support."""

    def __init__(self, vae: VAE, input_noise: InputNoise | None) -> None:
        super().__init__()
        prior, likelihood, posterior = vae.parts
        self.view = likelihood.encoder_view
        self.supports = (latent_support(posterior), latent_support(prior))
        self.noise = nn.Identity() if input_noise is None else input_noise.build()
        self.features = vae.network.build_encoder(vae.shape)
        given, wanted = self.supports
        size = vae.latent_dim if given is wanted else unconstrained_size(wanted, vae.latent_dim)
        if size < 1:
            raise ValueError(f"{type(prior).__name__}: needs latent_dim of at least 2; got 1")
        self.posterior = posterior.build(int(self.features.out_features), size)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> TorchDistributionMixin:
        """The posterior of data without noise, as of pseudo-inputs."""
        return self.posterior_at(self.view(x))

    def posterior_at(self, seen: Tensor) -> TorchDistributionMixin:
        """The posterior of what the encoder gets to see."""
        return meet(self.posterior(self.features(seen)), *self.supports)


def _refuse_unscored_mixture(prior: Prior, posterior: Posterior) -> None:
    if isinstance(prior, VampPrior) and not posterior.scores_any_value:
        raise ValueError(
            f"VampPrior scores every draw under every pseudo-input's posterior, and "
            f"{type(posterior).__name__} can score only its own draws: use DiagonalNormal(), "
            "RankOneNormal(), FullNormal() or InverseAutoregressiveFlow(), or another prior"
        )
