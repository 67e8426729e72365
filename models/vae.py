"""The variational autoencoder: one stochastic layer."""

from collections.abc import Sequence
from math import prod

import pyro
from torch import Tensor, nn

from aevb.models.likelihoods import Bernoulli, Likelihood
from aevb.models.model import LatentVariableModel
from aevb.models.networks import MLP
from aevb.models.parameters import declare
from aevb.models.posteriors import DiagonalNormal, Posterior
from aevb.models.priors import Prior, StandardNormal

__all__ = ["VAE"]


class VAE(LatentVariableModel):
    r"""A latent vector, a decoder that makes it data, and an encoder that infers it back.

    .. math::
        z \sim p(z), \qquad x \sim p(x \mid z), \qquad q(z \mid x) \approx p(z \mid x)

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), https://arxiv.org/abs/1312.6114

    Args:
        shape: Shape of one datapoint, as in ``(28, 28)``.
        latent_dim: Dimensions of ``z``.
        hidden: Widths of the encoder's hidden layers; the decoder's are the same, reversed.
        prior: p(z).
        likelihood: p(x|z).
        posterior: q(z|x), amortized.
        activation: Nonlinearity of the hidden layers.

    Raises:
        ValueError: If a size is not positive.

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
    ) -> None:
        super().__init__(tuple(shape))
        if latent_dim < 1:
            raise ValueError(f"latent_dim: must be at least 1; got {latent_dim}")
        self.latent_dim = latent_dim
        self.parts = (prior, likelihood, posterior)
        encoder = MLP(prod(self.shape), hidden, activation)
        decoder = MLP(latent_dim, list(reversed(hidden)), activation)
        self.encoder = nn.Sequential(encoder, posterior.build(encoder.out_features, latent_dim))
        self.decoder = nn.Sequential(decoder, likelihood.build(decoder.out_features, self.shape))
        self.prior = prior.build(latent_dim)
        self.formulas = (decoder.formula(), encoder.formula())

    def model(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """``z ~ p(z)``, ``x ~ p(x|z)``; see :meth:`LatentVariableModel.model`."""
        declare("prior", self.prior)
        declare("decoder", self.decoder)
        if x is not None:
            self.check_shape(x)
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", self.prior())
            return pyro.sample("x", self.decoder(z), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """``z ~ q(z|x)``; see :meth:`LatentVariableModel.guide`."""
        declare("encoder", self.encoder)
        self.check_shape(x)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", self.encoder(x.flatten(1)))

    def check_data(self, x: Tensor) -> None:
        """See :meth:`LatentVariableModel.check_data`."""
        self.check_shape(x)
        self.parts[1].check(x)

    def __repr__(self) -> str:
        """The model as a formula, with the shapes."""
        prior, likelihood, posterior = self.parts
        to_x, to_z = self.formulas
        sizes = "×".join(map(str, self.shape))
        count = sum(parameter.numel() for parameter in self.parameters())
        return "\n".join(
            [
                "VAE",
                f"  z     ~ {prior!r}   z: {self.latent_dim}",
                f"  x | z ~ {likelihood!r} of MLP {to_x}   x: {sizes}",
                f"  q(z|x) = {posterior!r} of MLP {to_z}",
                f"  {count:,} parameters",
            ]
        )
