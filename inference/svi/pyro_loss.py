"""Pyro's own losses as objectives."""

from dataclasses import dataclass
from typing import Any

from pyro.infer.elbo import ELBO as Estimator
from torch import Tensor

from aevb.inference.svi.objectives import Objective

__all__ = ["PyroLoss", "SurrogateEstimator", "as_objective"]


def as_objective(objective: Objective | Estimator) -> Objective:
    """An objective itself; a loss of ``pyro.infer`` as one."""
    return objective if isinstance(objective, Objective) else PyroLoss(objective)


@dataclass(frozen=True)
class PyroLoss(Objective):
    """Any of Pyro's own losses, as ``TraceGraph_ELBO()`` or ``TraceEnum_ELBO()``.

    :func:`fit` makes one of what it is given; a loss that knows only surrogates of its gradients,
    as ``TraceGraph_ELBO`` does, trains by these.

    Args:
        loss: Of ``pyro.infer``.

    Raises:
        ValueError: If the loss cannot be differentiated.

    Example:
        >>> from pyro.infer import TraceGraph_ELBO
        >>> PyroLoss(TraceGraph_ELBO())
        PyroLoss(TraceGraph_ELBO, num_particles=1)
    """

    loss: Estimator

    def __post_init__(self) -> None:
        """Refuse what is no such loss."""
        known = ("differentiable_loss", "_loss_and_surrogate_loss")
        if not isinstance(self.loss, Estimator) or not any(hasattr(self.loss, k) for k in known):
            raise ValueError(
                "objective: expected one of aevb.inference's objectives or a loss of pyro.infer "
                f"that can be differentiated, as Trace_ELBO(); got {self.loss!r}"
            )

    def estimator(self) -> Estimator:
        """The loss itself, or one that has its surrogate's gradients."""
        if hasattr(self.loss, "differentiable_loss"):
            return self.loss
        return SurrogateEstimator(self.loss)

    def __repr__(self) -> str:
        """Without an address, so that a resumed run is known by it."""
        return f"PyroLoss({type(self.loss).__name__}, num_particles={self.loss.num_particles})"


class SurrogateEstimator(Estimator):
    """A loss with gradients only through a surrogate, as ``TraceGraph_ELBO``, as one number."""

    def __init__(self, loss: Any) -> None:
        super().__init__(
            num_particles=loss.num_particles,
            max_plate_nesting=loss.max_plate_nesting,
            vectorize_particles=loss.vectorize_particles,
        )
        self._loss = loss

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The loss, with the gradients of its surrogate."""
        self._loss.max_plate_nesting = self.max_plate_nesting
        elbo, surrogate = self._loss._loss_and_surrogate_loss(model, guide, args, kwargs)
        return surrogate - surrogate.detach() - elbo.detach()

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        return self._loss._get_trace(model, guide, args, kwargs)
