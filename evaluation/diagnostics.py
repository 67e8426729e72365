"""Whether the chains of each posterior may be used: R̂ and effective sample sizes."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from aevb.inference import Draws

__all__ = ["ess_bulk", "ess_tail", "rhat"]


def rhat(draws: Draws) -> NDArray[np.float64]:
    """R̂ of each posterior, the largest over its dimensions; above 1.01 it did not converge.

    It is that of ranks and of ranks of distances from the median, in unconstrained coordinates.

    References:
        Rank-Normalization, Folding, and Localization: An Improved R-hat (Vehtari, Gelman, Simpson,
        Carpenter & Bürkner, 2021), https://arxiv.org/abs/1903.08008

    Args:
        draws: Of :func:`aevb.inference.hmc`.

    Returns:
        ``(batch,)``, or ``()`` for a joint posterior; NaN with fewer than two chains or four
        draws, and where all draws are equal.

    Example:
        >>> import torch
        >>> from aevb import inference, models
        >>> fa = models.FactorAnalysis((5,), 2)
        >>> draws = inference.hmc(fa.model, torch.zeros(3, 5), num_samples=100, num_warmup=100)
        >>> rhat(draws).shape, bool((rhat(draws) < 1.1).all())
        ((3,), True)
        >>> bool((ess_bulk(draws) > 100).all()), bool((ess_tail(draws) > 100).all())
        (True, True)
    """
    return _array(draws.rhat)


def ess_bulk(draws: Draws) -> NDArray[np.float64]:
    """Effective number of draws for the middle of each posterior, the least over its dimensions.

    Args:
        draws: As for :func:`rhat`, where the reference is too.

    Returns:
        ``(batch,)``, or ``()`` for a joint posterior; NaN with fewer than four draws, and where
        all draws are equal, which ArviZ takes to be independent.

    Example:
        >>> import torch
        >>> from aevb import inference, models
        >>> draws = inference.hmc(models.FactorAnalysis((5,), 2).model, torch.zeros(3, 5))
        >>> ess_bulk(draws).shape
        (3,)
    """
    return _array(draws.ess_bulk)


def ess_tail(draws: Draws) -> NDArray[np.float64]:
    """Effective number of draws for the 5 and 95 % quantiles, the least over dimensions.

    Args:
        draws: As for :func:`rhat`, where the reference is too.

    Returns:
        ``(batch,)``, or ``()`` for a joint posterior; NaN with fewer than four draws, and where
        no draw is beyond a quantile because a chain stands still there.

    Example:
        >>> import torch
        >>> from aevb import inference, models
        >>> draws = inference.hmc(models.FactorAnalysis((5,), 2).model, torch.zeros(3, 5))
        >>> ess_tail(draws).shape
        (3,)
    """
    return _array(draws.ess_tail)


def _array(values: Tensor) -> NDArray[np.float64]:
    return np.asarray(values.cpu().numpy(), dtype=np.float64)
