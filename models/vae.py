"""The variational autoencoder: one stochastic layer."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from aevb.models.likelihoods import Bernoulli, Likelihood
from aevb.models.model import LatentVariableModel
from aevb.models.networks import MLP, Network
from aevb.models.noise import InputNoise, noisy
from aevb.models.parameters import declare
from aevb.models.posteriors import DiagonalNormal, Posterior
from aevb.models.priors import Prior, StandardNormal, VampPrior
from aevb.models.supports import meet, unconstrained_size
from aevb.models.weights import BayesianDecoder, LatentWeights

__all__ = ["VAE"]


class VAE(LatentVariableModel):
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
        _refuse_unscored_mixture(prior, posterior)
        self.latent_dim = latent_dim
        self.network = MLP(tuple(hidden), activation) if network is None else network
        self.parts = (prior, likelihood, posterior)
        self.encoder = _Encoder(self, input_noise)
        decoder = self.network.build_decoder(latent_dim, self.shape)
        head = self.network.head(decoder, self.shape)
        width = int(decoder.out_features)  # type: ignore[arg-type]
        # a user's likelihood need not know of other heads than linear layers
        heads = () if head is nn.Linear else (head,)
        self.decoder: Any = nn.Sequential(decoder, likelihood.build(width, self.shape, *heads))
        self.weights: BayesianDecoder | None = None
        self.weight_family = weights
        self.stands_for: int | None = None
        if weights is not None:
            self.decoder, self.weights = None, BayesianDecoder(self.decoder, weights)
        self.prior = prior.build_beside(self.encoder, self.shape, latent_dim)

    def model(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """``z ~ p(z)``, ``x ~ p(x|z)``; see :meth:`LatentVariableModel.model`."""
        declare("prior", self.prior)
        if x is not None:
            self.check_shape(x)
        if self.weights is None:
            declare("decoder", self.decoder)
            decode: Callable[[Tensor], TorchDistributionMixin] = self.decoder
        else:
            decode = partial(self.weights.at, self.weights.sample_prior())
        with self._data(size if x is None else len(x), observed=x is not None):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", decode(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """``z ~ q(z|x)``; see :meth:`LatentVariableModel.guide`."""
        declare("encoder", self.encoder)
        self.check_shape(x)
        if self.weights is not None:
            self.weights.sample_posterior()
        with self._data(len(x), observed=True):
            seen = noisy(self.encoder.noise, self.encoder.view(x))
            return pyro.sample("z", self.encoder.posterior_at(seen))

    def tell_num_datapoints(self, num_datapoints: int) -> None:
        """Let latent weights know how many datapoints a minibatch stands for; ``fit`` does.

        Args:
            num_datapoints: N; until it is told, a batch stands for itself.
        """
        if self.weights is not None:
            self.stands_for = num_datapoints

    def at_mean_weights(self) -> "VAE":
        """The same model with the posterior's mean weights as parameters: to be evaluated.

        Returns:
            The model itself where weights are parameters already.
        """
        if self.weights is None:
            return self
        twin = copy.deepcopy(self)
        twin.decoder, twin.weights = self.weights.mean_decoder(), None
        return twin

    def _data(self, size: int, observed: bool) -> Any:
        if self.weights is None or not observed or self.stands_for is None:
            return pyro.plate("data", size)
        return pyro.plate("data", self.stands_for, subsample=torch.arange(size))

    def check_data(self, x: Tensor) -> None:
        """See :meth:`LatentVariableModel.check_data`."""
        self.check_shape(x)
        self.parts[1].check(x)

    def __repr__(self) -> str:
        """The model as a formula, with the shapes."""
        prior, likelihood, posterior = self.parts
        sizes = "×".join(map(str, self.shape))
        count = sum(parameter.numel() for parameter in self.parameters())
        return "\n".join(
            [
                "VAE",
                f"  z     ~ {prior!r}   z: {self.latent_dim}",
                *([] if self.weights is None else [f"  θ     ~ {self.weight_family!r}"]),
                f"  x | z ~ {likelihood!r} of {self.network!r}   x: {sizes}",
                f"  q(z|x) = {posterior!r} of {self.network!r}",
                f"  {count:,} parameters",
            ]
        )


class _Encoder(nn.Module):
    """From data to the posterior on the prior's support."""

    def __init__(self, vae: VAE, input_noise: InputNoise | None) -> None:
        super().__init__()
        prior, likelihood, posterior = vae.parts
        self.view = likelihood.encoder_view
        self.supports = (posterior.support, prior.support)
        self.noise = nn.Identity() if input_noise is None else input_noise.build()
        self.features = vae.network.build_encoder(vae.shape)
        size = unconstrained_size(prior.support, vae.latent_dim)
        if posterior.support is prior.support:
            size = vae.latent_dim
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
