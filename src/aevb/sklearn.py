"""A variational autoencoder as an estimator of scikit-learn's."""

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from aevb import inference, models
from aevb.inference.process.randomness import stream

__all__ = ["VAE"]

Array = NDArray[np.float64]

_LIKELIHOODS: dict[str, models.Likelihood] = {
    # a scale that is predicted grows without bound where a row of few is fitted exactly
    "normal": models.Normal(scale=models.PerPixelScale()),
    "bernoulli": models.Bernoulli(),
    "poisson": models.Poisson(),
    "negative_binomial": models.NegativeBinomial(),
}
_ROWS_AT_ONCE = 100_000  # of draws of latents
_CPU = torch.device("cpu")


class VAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A variational autoencoder of the rows of a table, with a diagonal normal posterior.

    What other parts there are, and a verdict on the evidence, have :class:`aevb.models.VAE` and
    :func:`aevb.inference.importance_evidence`; ``model_`` is such a model.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), https://arxiv.org/abs/1312.6114

    Args:
        latent_dim: Columns of what ``transform`` returns.
        hidden: Widths of the encoder's hidden layers; the decoder's are the same, reversed.
        likelihood: ``"normal"``, of columns that are standardized first; ``"bernoulli"``,
            ``"poisson"``, ``"negative_binomial"``; or one of :mod:`aevb.models.likelihoods`.
        epochs: Passes over the rows.
        batch_size: Rows of a minibatch; fewer where there are fewer.
        learning_rate: Of Adam.
        num_samples: Importance samples of ``score_samples``.
        random_state: A number, a generator of NumPy's, or None, which draws afresh; ``seed_`` is
            what it came to.
        device: Where to train: auto, cpu or cuda.

    Attributes:
        model_: The trained :class:`aevb.models.VAE`, in float64, on the CPU.
        run_: What training gave back, an :class:`aevb.inference.Run`.
        mean_: Of the columns, 0 where they are not standardized.
        scale_: Their standard deviations, 1 where they are not standardized or constant.
        seed_: Of everything random.
        n_features_in_: Columns.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(60, 4))
        >>> vae = VAE(latent_dim=2, hidden=(8,), epochs=2, random_state=0).fit(x)
        >>> vae.transform(x).shape, vae.inverse_transform(vae.transform(x)).shape
        ((60, 2), (60, 4))
        >>> vae.score_samples(x).shape, vae.sample(5).shape
        ((60,), (5, 4))
    """

    def __init__(
        self,
        latent_dim: int = 2,
        hidden: Sequence[int] = (100,),
        likelihood: str | models.Likelihood = "normal",
        epochs: int = 50,
        batch_size: int = 100,
        learning_rate: float = 3e-3,
        num_samples: int = 100,
        random_state: Any = None,
        device: str = "auto",
    ) -> None:
        self.latent_dim = latent_dim
        self.hidden = hidden
        self.likelihood = likelihood
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.num_samples = num_samples
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train on the rows of a table.

        Args:
            X: ``(N, features)``, at least two rows.
            y: Is not looked at.

        Raises:
            ValueError: If values are missing or outside the likelihood's support, or a parameter
                is out of range.
        """
        del y
        values = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        family = self._family()
        self.mean_, self.scale_ = np.zeros(values.shape[1]), np.ones(values.shape[1])
        if isinstance(family, models.Normal):
            spread = values.std(0)
            tiny = 10 * np.finfo(np.float64).eps * np.abs(values).max(0)
            self.mean_, self.scale_ = values.mean(0), np.where(spread > tiny, spread, 1.0)
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        with stream(self.seed_, "weights", _CPU):
            model = models.VAE(
                (values.shape[1],), self.latent_dim, tuple(self.hidden), likelihood=family
            ).double()
        rows = self._tensor(values)
        model.check_data(rows)
        self.run_ = inference.fit(
            model, rows, epochs=self.epochs, batch_size=min(self.batch_size, len(rows)),
            learning_rate=self.learning_rate, seed=self.seed_, device=self.device, progress=False,
        )  # fmt: skip
        self.model_ = model.to(_CPU)
        self._n_features_out = self.latent_dim
        return self

    def transform(self, X: Any) -> Array:
        """Means of the latents, ``(N, latent_dim)``."""
        return _array(self.model_.encode(self._rows(X)))

    def inverse_transform(self, Z: Any) -> Array:
        """E[x|z] of latents ``(N, latent_dim)``, in the units of the data, ``(N, features)``.

        Raises:
            ValueError: If there are other than ``latent_dim`` columns.
        """
        check_is_fitted(self)
        latents = np.array(Z, dtype=np.float64)
        if latents.ndim != 2 or latents.shape[1] != self.latent_dim:
            raise ValueError(f"Z: expected shape (N, {self.latent_dim}); got {latents.shape}")
        return self._in_units(self.model_.decode(torch.from_numpy(latents)))

    def score_samples(self, X: Any) -> Array:
        """Importance sampling of log p(x) of each row, in nats: in expectation a lower bound.

        All rows share the draws, so that a row's score does not depend on the others.

        Args:
            X: ``(N, features)``.

        Returns:
            ``(N,)``; a log-density in the units of the data, or a log-probability of counts.
        """
        rows, model = self._rows(X), self.model_
        with stream(self.seed_, "scores", _CPU), torch.no_grad():
            noise = torch.randn(self.num_samples, 1, self.latent_dim, dtype=torch.float64)
            scores = []
            for block in rows.split(max(1, _ROWS_AT_ONCE // self.num_samples)):
                q = model.encoder(block)
                z = q.mean + q.stddev * noise
                weights = model.prior().log_prob(z) + model.decoder(z).log_prob(block)
                scores.append(torch.logsumexp(weights - q.log_prob(z), 0))
        jacobian = np.log(self.scale_).sum() + math.log(self.num_samples)
        return _array(torch.cat(scores)) - jacobian

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of :meth:`score_samples`."""
        del y
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Array:
        """Rows drawn from the model, noise of the likelihood included.

        Args:
            n_samples: N.
            random_state: As for the estimator.

        Returns:
            ``(N, features)``.
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"n_samples: must be at least 1; got {n_samples}")
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        with stream(seed, "sample", _CPU), torch.no_grad():
            return self._in_units(self.model_.model(size=n_samples))

    def _family(self) -> models.Likelihood:
        given = self.likelihood
        if isinstance(given, str) and given in _LIKELIHOODS:
            return _LIKELIHOODS[given]
        if not isinstance(given, models.Likelihood):
            raise ValueError(
                f"likelihood: expected {', '.join(map(repr, _LIKELIHOODS))} or one of "
                f"aevb.models.likelihoods; got {given!r}"
            )
        return given

    def _rows(self, X: Any) -> Tensor:
        check_is_fitted(self)
        return self._tensor(validate_data(self, X, dtype=np.float64, reset=False))

    def _tensor(self, values: Array) -> Tensor:
        return torch.from_numpy((values - self.mean_) / self.scale_)

    def _in_units(self, x: Tensor) -> Array:
        return _array(x) * self.scale_ + self.mean_


def _array(value: Tensor) -> Array:
    found: Array = value.double().numpy()
    return found
