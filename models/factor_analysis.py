"""Linear-Gaussian latent variable models, whose posterior and evidence are known exactly."""

from abc import ABC, abstractmethod
from math import prod

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from aevb.models.model import LatentVariableModel
from aevb.models.parameters import declare
from aevb.models.posteriors import Posterior
from aevb.models.scales import LearnedScale, PerPixelScale, Scale

__all__ = ["FactorAnalysis", "LinearGaussian", "ProbabilisticPCA"]


class LinearGaussian(LatentVariableModel, ABC):
    r"""A linear decoder with Gaussian noise.

    .. math::
        z \sim \mathcal{N}(0, I), \qquad x \mid z \sim \mathcal{N}(W z + m, \Psi), \qquad
        x \sim \mathcal{N}(m, W W^\top + \Psi)

    The exact posterior is :math:`\mathcal{N}(S^{-1} W^\top \Psi^{-1} (x - m), S^{-1})` with
    precision :math:`S = I + W^\top \Psi^{-1} W`. It is the guide unless a family is given, so that
    the ELBO is log p(x) itself, which is what an estimator can be checked against.

    References:
        Pattern Recognition and Machine Learning (Bishop, 2006), section 12.2.

    Example:
        >>> fa, x = FactorAnalysis((5,), 2), torch.zeros(3, 5)
        >>> isinstance(fa, LinearGaussian), fa.log_evidence(x).shape
        (True, torch.Size([3]))
    """

    def __init__(
        self, shape: tuple[int, ...], latent_dim: int, posterior: Posterior | None
    ) -> None:
        super().__init__(tuple(shape))
        if latent_dim < 1:
            raise ValueError(f"latent_dim: must be at least 1; got {latent_dim}")
        features = prod(self.shape)
        self.latent_dim = latent_dim
        self.family = posterior
        self.decoder = nn.Linear(latent_dim, features)
        self.noise = self.noise_family.build(latent_dim, features)
        self.encoder = None if posterior is None else posterior.build(features, latent_dim)

    @property
    @abstractmethod
    def noise_family(self) -> Scale:
        """What the square root of the diagonal of Ψ is made of."""

    def model(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """``z ~ N(0, I)``, ``x ~ N(Wz + m, Ψ)``; see :meth:`LatentVariableModel.model`."""
        declare("decoder", self.decoder)
        declare("noise", self.noise)
        if x is not None:
            self.check_shape(x)
        zeros = self.decoder.weight.new_zeros(self.latent_dim)
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(zeros, torch.ones_like(zeros)).to_event(1))
            loc = self.decoder(z).unflatten(-1, self.shape)
            scale = self.noise(z).unflatten(-1, self.shape)
            return pyro.sample("x", dist.Normal(loc, scale).to_event(len(self.shape)), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """``z ~ p(z|x)``, or the amortized family; see :meth:`LatentVariableModel.guide`."""
        self.check_shape(x)
        if self.encoder is None:
            declare("decoder", self.decoder)
            declare("noise", self.noise)
            q = self.posterior(x)
        else:
            declare("encoder", self.encoder)
            q = self.encoder(x.flatten(1))
        with pyro.plate("data", len(x)):
            return pyro.sample("z", q)

    def posterior(self, x: Tensor) -> dist.MultivariateNormal:
        """The exact p(z|x).

        Args:
            x: Data, ``(B, *shape)``.

        Returns:
            A distribution of batch shape ``(B,)`` and event shape ``(latent_dim,)``.
        """
        weight, scale = self.decoder.weight, self._scale()
        whitened = weight / scale[:, None]  # shape: (features, latent)
        identity = torch.eye(self.latent_dim, dtype=weight.dtype, device=weight.device)
        precision = identity + whitened.mT @ whitened
        residual = (x.flatten(1) - self.decoder.bias) / scale
        loc = torch.linalg.solve(precision, (residual @ whitened).mT).mT
        return dist.MultivariateNormal(loc, precision_matrix=precision)

    def log_evidence(self, x: Tensor, num_samples: int = 0, seed: int = 0) -> Tensor:
        """The exact log p(x) of each datapoint.

        Args:
            x: Data, ``(B, *shape)``.
            num_samples: Of other models, as is the seed; nothing is drawn here.
            seed: The same.

        Returns:
            ``(B,)``, in nats.
        """
        del num_samples, seed
        log_prob: Tensor = dist.LowRankMultivariateNormal(
            self.decoder.bias, self.decoder.weight, self._scale().square()
        ).log_prob(x.flatten(1))
        return log_prob

    def check_data(self, x: Tensor) -> None:
        """See :meth:`LatentVariableModel.check_data`."""
        self.check_shape(x)
        if not bool(torch.isfinite(x).all()):
            raise ValueError(f"{type(self).__name__} needs finite numbers; got NaN or infinity")

    def _scale(self) -> Tensor:
        scale: Tensor = self.noise(self.decoder.weight.new_zeros(self.latent_dim))
        return scale

    def __repr__(self) -> str:
        """The model as a formula, with the shapes."""
        sizes = "×".join(map(str, self.shape))
        guide = "exact posterior" if self.family is None else f"{self.family!r} of a linear layer"
        return "\n".join(
            [
                type(self).__name__,
                f"  z     ~ Normal(0, I)   z: {self.latent_dim}",
                f"  x | z ~ Normal(Wz + m, {self.noise_family!r})   x: {sizes}",
                f"  q(z|x) = {guide}",
                f"  {sum(p.numel() for p in self.parameters()):,} parameters",
            ]
        )


class FactorAnalysis(LinearGaussian):
    r"""Linear-Gaussian model with a noise level for each feature, :math:`\Psi` diagonal.

    References:
        Pattern Recognition and Machine Learning (Bishop, 2006), section 12.2.4

    Args:
        shape: Shape of one datapoint.
        latent_dim: Number of factors.
        posterior: Amortized family of the guide; without it the guide is the exact posterior.

    Example:
        >>> import torch
        >>> fa = FactorAnalysis((5,), latent_dim=2)
        >>> x = torch.zeros(3, 5)
        >>> fa.log_evidence(x).shape, fa.posterior(x).event_shape
        (torch.Size([3]), torch.Size([2]))
    """

    def __init__(
        self, shape: tuple[int, ...], latent_dim: int = 2, posterior: Posterior | None = None
    ) -> None:
        super().__init__(shape, latent_dim, posterior)

    @property
    def noise_family(self) -> Scale:
        """One standard deviation for each feature."""
        return PerPixelScale()


class ProbabilisticPCA(LinearGaussian):
    r"""Linear-Gaussian model with one noise level, :math:`\Psi = \sigma^2 I`.

    References:
        Probabilistic Principal Component Analysis (Tipping & Bishop, 1999),
        https://doi.org/10.1111/1467-9868.00196

    Args:
        shape: Shape of one datapoint.
        latent_dim: Number of components.
        posterior: Amortized family of the guide; without it the guide is the exact posterior.

    Example:
        >>> ProbabilisticPCA((5,), latent_dim=2).noise(None)
        tensor([1., 1., 1., 1., 1.], grad_fn=<ExpandBackward0>)
    """

    def __init__(
        self, shape: tuple[int, ...], latent_dim: int = 2, posterior: Posterior | None = None
    ) -> None:
        super().__init__(shape, latent_dim, posterior)

    @property
    def noise_family(self) -> Scale:
        """One standard deviation for all features."""
        return LearnedScale()
