"""Wake-sleep: the recognition model learns from what the generative model dreams."""

from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.infer.elbo import ELBO as Estimator
from torch import Tensor

from aevb.inference.process import randomness
from aevb.inference.process.devices import device_of
from aevb.inference.programs.guide_checks import counts_for_nothing
from aevb.inference.programs.layouts import value_of
from aevb.inference.programs.protocol import ProgramPair
from aevb.inference.programs.simulate import simulate, unobserved
from aevb.inference.svi.feeds import Data
from aevb.inference.svi.fit import fit
from aevb.inference.svi.objectives import Objective
from aevb.inference.svi.requirements import check_scores
from aevb.inference.svi.run import Run
from aevb.inference.svi.site_sums import latent_names

__all__ = ["WakeSleep", "wake_sleep"]


def _check_sites(name: str, model_trace: poutine.Trace, guide_trace: poutine.Trace) -> None:
    """What the model dreams is all that the guide draws."""
    for site_name in latent_names(guide_trace):
        site = guide_trace.nodes[site_name]
        if site_name not in model_trace and not counts_for_nothing(site):
            raise ValueError(
                f"{name}: site {site_name!r} of the guide is none of the model's, as in an "
                "autoguide, so that no dream holds a value for it: write a guide that draws the "
                "model's latents given the data, or use ELBO()"
            )


@dataclass(frozen=True)
class WakeSleep(Objective):
    r"""Both phases of wake-sleep in one step, in place of the gradient of one bound.

    Awake, the model learns from the guide's draws; asleep, the guide learns from the model's:

    .. math::
        \nabla_\theta \log p_\theta(x, z), \quad z \sim q_\phi(z|x), \qquad
        \nabla_\phi \log q_\phi(\tilde z|\tilde x), \quad
        (\tilde x, \tilde z) \sim p_\theta

    Latents may be of any kind, discrete ones too: no gradient goes through a draw. What is
    recorded is the ELBO of the wake phase's draws, which no step ascends as a whole.

    References:
        The wake-sleep algorithm for unsupervised neural networks (Hinton et al., 1995),
        https://doi.org/10.1126/science.7761831; the baseline of Auto-Encoding Variational Bayes
        (Kingma & Welling, 2013), section 5, https://arxiv.org/abs/1312.6114

    Example:
        >>> from aevb.models import VAE
        >>> vae, x = VAE((8, 8)), torch.zeros(5, 8, 8)
        >>> bool(WakeSleep().estimator().differentiable_loss(vae.model, vae.guide, x) > 0)
        True
    """

    _requirements = (check_scores, _check_sites)

    def estimator(self) -> Estimator:
        """A Pyro loss whose value is −ELBO and whose gradient is that of both phases."""
        return WakeSleepEstimator()


class WakeSleepEstimator(Estimator):
    """See :class:`WakeSleep`."""

    def __init__(self) -> None:
        super().__init__(num_particles=1)
        self._sources: tuple[str | None, ...] | None = None

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """−ELBO, a scalar in nats, with the gradients of both phases.

        Raises:
            ValueError: If it cannot be told which arguments are the data.
        """
        if self._sources is None:
            self._sources = _data_places(model, guide, args, kwargs)
        with torch.no_grad():
            awake = poutine.trace(guide).get_trace(*args)
        seen = poutine.trace(poutine.replay(model, trace=awake)).get_trace(*args)
        log_p = seen.log_prob_sum()
        with torch.no_grad():
            elbo = log_p - awake.log_prob_sum()
            dream = poutine.trace(unobserved(model)).get_trace(*args)
        dreamt = [
            value if name is None else value_of(dream, name).to(value.dtype)
            for value, name in zip(args, self._sources, strict=True)
        ]
        latents = {name: value_of(dream, name) for name in latent_names(awake) if name in dream}
        recognized = poutine.trace(poutine.condition(guide, data=latents)).get_trace(*dreamt)
        log_q = recognized.log_prob_sum()
        surrogate = log_p + log_q
        return surrogate.detach() - surrogate - elbo

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """−ELBO."""
        with torch.no_grad():
            return float(self.differentiable_loss(model, guide, *args, **kwargs))

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """−ELBO; gradients are added to the parameters'."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return float(loss.detach())

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError  # Pyro's loop over particles is not used


def wake_sleep(program: ProgramPair, data: Data, **settings: Any) -> Run:
    """Train a model and its guide by wake-sleep: :func:`fit` with :class:`WakeSleep`.

    Args:
        program: As for :func:`fit`; both phases update at every step.
        data: The same, without keyword arguments.
        settings: Of :func:`fit`, the objective aside.

    Returns:
        The run, whose objective is the ELBO.

    Raises:
        ValueError: As :func:`fit`, and if it cannot be told which arguments are the data.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> run = wake_sleep(FactorAnalysis((5,), 2), torch.randn(100, 5), epochs=2, batch_size=50)
        >>> run.step
        4
    """
    return fit(program, data, objective=WakeSleep(), **settings)


def _data_places(
    model: Any, guide: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str | None, ...]:
    """The observed site that each argument is the data of."""
    if kwargs:
        raise ValueError(
            f"WakeSleep: takes data by position; got keyword arguments {sorted(kwargs)}"
        )
    with randomness.stream(0, "dream", device_of(model, args=args)):
        simulation = simulate(model, *args)
    if simulation.hidden:
        raise ValueError(
            f"WakeSleep: sites {sorted(simulation.hidden)} observe what is no argument, so that "
            "the guide could not see what the model dreams"
        )
    with torch.no_grad(), randomness.stream(0, "recognition", device_of(model, args=args)):
        draws = poutine.trace(guide).get_trace(*args)
        scores = [
            poutine.trace(poutine.replay(guide, trace=draws)).get_trace(*given).log_prob_sum()
            for given in (args, simulation.args)
        ]
    if bool(scores[0] == scores[1]):
        raise ValueError(
            "WakeSleep: the guide has the same density at other data, so that no dream teaches it "
            "anything: let it look at its arguments, or use ELBO()"
        )
    return simulation.sources
