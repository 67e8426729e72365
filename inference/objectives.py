"""What training maximizes."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.elbo import ELBO as Estimator

__all__ = ["ELBO", "Objective"]


class Objective(ABC):
    """A bound on the log evidence, to be maximized; holds only its own hyperparameters."""

    @abstractmethod
    def estimator(self) -> Estimator:
        """A fresh Pyro loss: ``differentiable_loss(model, guide, *args)``, in nats, is −bound."""


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

    def __post_init__(self) -> None:
        """Refuse an empty average."""
        if self.num_particles < 1:
            raise ValueError(f"num_particles: must be at least 1; got {self.num_particles}")

    def estimator(self) -> Estimator:
        """The matching Pyro loss."""
        family: type[Any] = TraceMeanField_ELBO if self.analytic_kl else Trace_ELBO
        return family(
            num_particles=self.num_particles,
            vectorize_particles=self.vectorize_particles and self.num_particles > 1,
        )
