"""What training maximizes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.elbo import ELBO as Estimator

from aevb.inference.process.limits import refuse_below
from aevb.inference.svi.enumeration import EnumerationEstimator
from aevb.inference.svi.estimators import DivergenceEstimator, ImportanceEstimator
from aevb.inference.svi.requirements import (
    check_closed_form,
    check_density,
    check_local,
    check_mean_field,
    check_pathwise,
    check_scores,
    check_whole,
)

__all__ = [
    "ELBO",
    "IWAE",
    "BetaELBO",
    "DReG",
    "EnumeratedELBO",
    "FreeBits",
    "Objective",
    "StickingTheLanding",
]


Requirement = Callable[[str, poutine.Trace, poutine.Trace], None]


class Objective(ABC):
    """A bound on the log evidence, to be maximized; holds only its own hyperparameters.

    Example:
        >>> isinstance(IWAE(num_particles=5), Objective)
        True
    """

    _requirements: ClassVar[tuple[Requirement, ...]] = ()

    def __post_init__(self) -> None:
        """Refuse an empty average."""
        refuse_below(1, num_particles=getattr(self, "num_particles", None))

    @abstractmethod
    def estimator(self) -> Estimator:
        """A fresh Pyro loss: ``differentiable_loss(model, guide, *args)``, in nats, is −bound.

        It may have ``buffers``, a list of tensors that a step changes in place.
        """

    def check(self, model_trace: poutine.Trace, guide_trace: poutine.Trace) -> None:
        """Refuse programs that the objective is not made for, before any step.

        Args:
            model_trace: Trace of the model, replayed against the guide's.
            guide_trace: Trace of the guide.

        Raises:
            ValueError: Says why, and which objectives would do.
        """
        of_kl = (check_closed_form,) if getattr(self, "analytic_kl", False) else ()
        for requirement in (*self._requirements, *of_kl):
            requirement(type(self).__name__, model_trace, guide_trace)


@dataclass(frozen=True)
class ELBO(Objective):
    r"""The evidence lower bound, by either estimator of the AEVB paper.

    .. math::
        \mathcal{L}^A = \tfrac1L \sum_l \log p(x, z_l) - \log q(z_l|x), \qquad
        \mathcal{L}^B = -\mathrm{KL}(q(z|x) \,\|\, p(z)) + \tfrac1L \sum_l \log p(x|z_l)

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), equations 6 and 7,
        https://arxiv.org/abs/1312.6114

    Args:
        num_particles: L, draws of the latents for each datapoint and step.
        analytic_kl: Use estimator B (Pyro's ``TraceMeanField_ELBO``) in place of estimator A
            (``Trace_ELBO``). Less noise where the divergence has a closed form.
        vectorize_particles: Draw all L at once in an outer plate; turn it off for programs whose
            sites do not broadcast.

    Raises:
        ValueError: If ``num_particles`` is not positive.

    Example:
        >>> type(ELBO(analytic_kl=True).estimator()).__name__
        'TraceMeanField_ELBO'
    """

    num_particles: int = 1
    analytic_kl: bool = False
    vectorize_particles: bool = True

    def estimator(self) -> Estimator:
        """The matching Pyro loss."""
        family: type[Any] = TraceMeanField_ELBO if self.analytic_kl else Trace_ELBO
        return family(
            num_particles=self.num_particles,
            vectorize_particles=self.vectorize_particles and self.num_particles > 1,
        )


@dataclass(frozen=True)
class EnumeratedELBO(Objective):
    r"""The ELBO with discrete latents summed out: those k that the guide leaves out, exactly.

    .. math:: \mathcal{L} = E_{q(z|x)} \log \sum_k p(x, z, k) - \log q(z|x)

    The estimator is Pyro's ``TraceEnum_ELBO``. Of the model, every latent with finitely many
    values that the guide does not draw is summed out, marked or not. Of the guide, those marked
    by ``infer={"enumerate": "parallel"}`` or ``config_enumerate`` are averaged over exactly, and
    other discrete ones are drawn, with a score-function gradient. The programs must broadcast:
    enumerated values have dimensions on the left of all plates, and size 1 along their own, so
    that a sum or an index over such a plate is refused.

    References:
        Tensor Variable Elimination for Plated Factor Graphs (Obermeyer et al., 2019),
        https://arxiv.org/abs/1902.03210; Semi-Supervised Learning with Deep Generative Models
        (Kingma, Rezende, Mohamed & Welling, 2014), equation 7, https://arxiv.org/abs/1406.5298

    Args:
        num_particles: Draws of the other latents for each step.
        max_plate_nesting: Plates of the deepest site, to the left of which there is room for
            values; by default found by a run of the programs. Name it where plates come and go.
        vectorize_particles: Draw all particles at once in an outer plate.

    Raises:
        ValueError: If ``num_particles`` is not positive, or ``max_plate_nesting`` negative.

    Example:
        >>> EnumeratedELBO(max_plate_nesting=1).estimator().max_plate_nesting
        1
    """

    num_particles: int = 1
    max_plate_nesting: int | None = None
    vectorize_particles: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no number of plates."""
        super().__post_init__()
        refuse_below(0, max_plate_nesting=self.max_plate_nesting)

    def estimator(self) -> Estimator:
        """Pyro's loss, which marks what is to be summed out."""
        nesting = math.inf if self.max_plate_nesting is None else self.max_plate_nesting
        return EnumerationEstimator(
            num_particles=self.num_particles,
            max_plate_nesting=nesting,
            vectorize_particles=self.vectorize_particles and self.num_particles > 1,
            strict_enumeration_warning=False,
        )


@dataclass(frozen=True)
class IWAE(Objective):
    r"""The importance-weighted bound, tighter with every draw.

    .. math:: \mathcal{L}_K = E \log \tfrac1K \sum_k \frac{p(x, z_k)}{q(z_k|x)}

    References:
        Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), equation 8,
        https://arxiv.org/abs/1509.00519

    Args:
        num_particles: K; one is the ELBO.

    Raises:
        ValueError: If ``num_particles`` is not positive.

    Example:
        >>> IWAE(50).estimator().num_particles
        50
    """

    _requirements = (check_pathwise, check_density, check_whole)
    num_particles: int = 5

    def estimator(self) -> Estimator:
        """Log of the mean weight of each datapoint, summed."""
        return ImportanceEstimator(self.num_particles, log_of_mean=True)


@dataclass(frozen=True)
class StickingTheLanding(Objective):
    r"""The ELBO with gradients through the draws alone.

    The score of q at fixed draws is left out: its mean is zero, and without it the noise of the
    guide's gradient vanishes where the guide is exact.

    References:
        Sticking the Landing: Simple, Lower-Variance Gradient Estimators for Variational Inference
        (Roeder, Wu & Duvenaud, 2017), https://arxiv.org/abs/1703.09194

    Args:
        num_particles: L, draws for each datapoint and step.

    Raises:
        ValueError: If ``num_particles`` is not positive.

    Example:
        >>> StickingTheLanding(num_particles=2)
        StickingTheLanding(num_particles=2)
    """

    _requirements = (check_pathwise, check_scores)
    num_particles: int = 1

    def estimator(self) -> Estimator:
        """The value of the ELBO, with fewer gradients."""
        return ImportanceEstimator(self.num_particles, log_of_mean=False, path_only=True)


@dataclass(frozen=True)
class DReG(Objective):
    r"""The importance-weighted bound with doubly reparameterized gradients of the guide.

    With normalized weights :math:`\tilde w_k`,

    .. math:: \nabla_\phi \mathcal{L}_K = E \sum_k \tilde w_k^2
        \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi},

    whose signal does not drown in noise as K grows; the model's gradient is that of
    :class:`IWAE`.

    References:
        Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives (Tucker, Lawson, Gu
        & Maddison, 2019), equation 8, https://arxiv.org/abs/1810.04152

    Args:
        num_particles: K.

    Raises:
        ValueError: If ``num_particles`` is not positive.

    Example:
        >>> DReG(num_particles=64)
        DReG(num_particles=64)
    """

    _requirements = (check_pathwise, check_scores, check_whole)
    num_particles: int = 5

    def estimator(self) -> Estimator:
        """The value of IWAE, with other gradients of the guide."""
        return ImportanceEstimator(
            self.num_particles, log_of_mean=True, path_only=True, squared=True
        )


@dataclass(frozen=True)
class BetaELBO(Objective):
    r"""The ELBO with a weighted divergence, constant or warmed up; a bound at weight 1 or more.

    .. math:: E_q \log p(x|z) - \beta_t\, \mathrm{KL}(q(z|x) \,\|\, p(z)), \qquad
        \beta_t = \beta \min(1, t / T)

    References:
        beta-VAE (Higgins et al., 2017), https://openreview.net/forum?id=Sy2fzU9gl; Ladder
        Variational Autoencoders (Sønderby et al., 2016), section 2.3 (warm-up),
        https://arxiv.org/abs/1602.02282

    Args:
        beta: Weight of the divergence at the end.
        warmup_steps: T, training steps over which it grows from zero; 0 for none.
        num_particles: Draws for each datapoint and step.
        analytic_kl: Use the divergence's closed form.

    Raises:
        ValueError: If a number is negative or there are no particles.

    Example:
        >>> BetaELBO(beta=4.0, warmup_steps=1000).estimator().buffers
        [tensor(0., dtype=torch.float64)]
    """

    _requirements = (check_pathwise,)
    beta: float = 1.0
    warmup_steps: int = 0
    num_particles: int = 1
    analytic_kl: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no weight and no time."""
        super().__post_init__()
        if not self.beta >= 0:
            raise ValueError(f"beta: must be at least 0; got {self.beta}")
        refuse_below(0, warmup_steps=self.warmup_steps)

    def estimator(self) -> Estimator:
        """A loss that counts its own steps."""
        return DivergenceEstimator(
            self.num_particles, self.beta, self.warmup_steps, analytic_kl=self.analytic_kl
        )


@dataclass(frozen=True)
class FreeBits(Objective):
    r"""The ELBO, in which a latent dimension's first nats are free; below the ELBO.

    .. math:: E_q \log p(x|z) - \sum_j \max(\lambda, E_x \mathrm{KL}(q(z_j|x) \,\|\, p(z_j)))

    The mean is over the minibatch. Where dimensions have no closed form of their own, the whole
    latent is one group with :math:`\lambda` nats for each dimension.

    References:
        Improving Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016),
        appendix C.8, https://arxiv.org/abs/1606.04934

    Args:
        nats: λ, for each latent dimension.
        num_particles: Draws for each datapoint and step.

    Raises:
        ValueError: If ``nats`` is not positive or there are no particles.

    Example:
        >>> FreeBits(nats=0.5)
        FreeBits(nats=0.5, num_particles=1)
    """

    _requirements = (check_pathwise, check_local, check_mean_field)
    nats: float = 0.25
    num_particles: int = 1

    def __post_init__(self) -> None:
        """Refuse nothing for free."""
        super().__post_init__()
        if not self.nats > 0:
            raise ValueError(f"nats: must be positive; got {self.nats}")

    def estimator(self) -> Estimator:
        """The floored loss."""
        return DivergenceEstimator(self.num_particles, free_bits=self.nats)
