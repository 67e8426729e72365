"""Bounds as Pyro losses: importance weighted, with path gradients, and with a weighted divergence.

Each works on any Pyro model and guide whose latents can be reparameterized. Where every site lies
in a ``"data"`` plate the bound is taken for each datapoint, otherwise for all data jointly.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from pyro import poutine
from pyro.infer.elbo import ELBO
from torch import Tensor
from torch.distributions import Independent, kl_divergence

from aevb.inference.programs.guide_checks import sites
from aevb.inference.svi.site_sums import Sums, latent_names

__all__ = ["DivergenceEstimator", "ImportanceEstimator"]


class _Estimator(ELBO):
    """What the estimators share: particles in an outer plate, and Pyro's interface."""

    def __init__(self, num_particles: int) -> None:
        super().__init__(
            num_particles=num_particles,
            max_plate_nesting=math.inf,
            vectorize_particles=num_particles > 1,
        )

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Minus the bound, a scalar in nats, with its gradients."""
        if self.max_plate_nesting == math.inf:
            self._guess_max_plate_nesting(model, guide, args, kwargs)
        if self.num_particles > 1:
            model = self._vectorized_num_particles(model)
            guide = self._vectorized_num_particles(guide)
        return self.negative_bound(lambda: model(*args, **kwargs), lambda: guide(*args, **kwargs))

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Minus the bound, without gradients."""
        with torch.no_grad():
            return float(self.differentiable_loss(model, guide, *args, **kwargs))

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Minus the bound; gradients are added to the parameters', as SVI wants them."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()
        return float(loss.detach())

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError  # Pyro's loop over particles is not used

    def negative_bound(self, model: Callable[[], Any], guide: Callable[[], Any]) -> Tensor:
        """The estimate, from the two programs."""
        raise NotImplementedError

    def sums(self, *traces: poutine.Trace) -> Sums:
        """How this estimator's log-probabilities are summed."""
        nesting = int(self.max_plate_nesting) - (self.num_particles > 1)
        return Sums(*traces, num_particles=self.num_particles, nesting=nesting)


class ImportanceEstimator(_Estimator):
    r"""Log of an average of K importance weights, or average of their logs.

    Args:
        num_particles: K.
        log_of_mean: The importance-weighted bound; otherwise the ELBO, averaged over K draws.
        path_only: Leave out the score :math:`\partial \log q(z; \phi) / \partial \phi` at fixed z,
            whose mean is zero: gradients of the guide go through its draws alone.
        squared: Weigh the gradients through the draws by squared normalized weights, as the doubly
            reparameterized gradient does.
    """

    def __init__(
        self,
        num_particles: int,
        log_of_mean: bool,
        path_only: bool = False,
        squared: bool = False,
    ) -> None:
        super().__init__(num_particles)
        self.log_of_mean = log_of_mean
        self.path_only = path_only
        self.squared = squared
        self.is_replayed = False  # whether a second run of the guide was found to be the same

    def negative_bound(self, model: Callable[[], Any], guide: Callable[[], Any]) -> Tensor:
        """See :class:`_Estimator`."""
        guide_trace = poutine.trace(guide).get_trace()
        # draws as the densities see them: gradients on their way back to the guide pass here
        draws: dict[str, Any] = {
            n: guide_trace.nodes[n]["value"] for n in latent_names(guide_trace)
        }
        if self.squared:
            draws = {name: value.clone() for name, value in draws.items()}
        seen = _with_values(guide_trace, draws)
        model_trace = poutine.trace(poutine.replay(model, trace=seen)).get_trace()
        sums = self.sums(model_trace, guide_trace)
        log_p = torch.stack(
            torch.broadcast_tensors(*(sums(site) for _, site in sites(model_trace)))
        ).sum(0)
        log_w = log_p - self._log_q(guide, guide_trace, draws, sums)
        if self.squared and self.num_particles > 1:
            self._weigh_path_gradients(draws, torch.softmax(log_w.detach().double(), 0), sums)
        if self.log_of_mean:
            # float64, because a thousand float32 weights of one size lose three digits
            bounds = torch.logsumexp(log_w.double(), 0) - math.log(self.num_particles)
            bound = bounds.to(log_w.dtype).sum()
        else:
            bound = log_w.mean(0).sum()
        return -bound * sums.scale if sums.per_datapoint else -bound

    def _log_q(
        self,
        guide: Callable[[], Any],
        guide_trace: poutine.Trace,
        draws: dict[str, Tensor],
        sums: Sums,
    ) -> Tensor:
        sites: dict[str, Any] = {name: guide_trace.nodes[name] for name in draws}
        if not self.path_only:
            parts = [sums(site) for site in sites.values()]
            return torch.stack(torch.broadcast_tensors(*parts)).sum(0)
        # the distribution of one latent may depend on another, along a path that must stay
        along = _sites_at(guide, guide_trace, draws) if len(draws) > 1 else sites
        if not self.is_replayed and along is not sites:
            _refuse_other_density(sites, along)
            self.is_replayed = True
        # the same densities at fixed values have the gradient that is to be left out, and no other
        fixed_values = {name: value.detach() for name, value in draws.items()}
        fixed = sites if along is sites else _sites_at(guide, guide_trace, fixed_values)
        total: Tensor = torch.zeros(())
        for name, value in draws.items():
            full = sums(along[name], along[name]["fn"].log_prob(value))
            score = sums(fixed[name], fixed[name]["fn"].log_prob(fixed_values[name]))
            total = total + full - (score - score.detach())
        return total

    def _weigh_path_gradients(self, draws: dict[str, Tensor], weights: Tensor, sums: Sums) -> None:
        """Multiply the gradient that reaches each draw by its normalized weight."""
        for value in draws.values():
            if not value.requires_grad:
                continue
            # (K, B) → (K, 1, ..., B, 1, ...): plates between, event dimensions behind
            shape = [len(weights)] + [1] * (value.ndim - 1)
            if sums.per_datapoint:
                shape[int(self.max_plate_nesting) - 1] = weights.shape[1]
            value.register_hook(partial(torch.mul, weights.reshape(shape).to(value.dtype)))


class DivergenceEstimator(_Estimator):
    r"""Expected log-likelihood less a weighted or floored divergence from the prior.

    Arguments are those of ``BetaELBO`` and ``FreeBits``, whose ``nats`` are ``free_bits`` here.

    Attributes:
        buffers: The number of steps made so far, which a step moves on by one.
    """

    def __init__(
        self,
        num_particles: int,
        beta: float = 1.0,
        warmup_steps: int = 0,
        free_bits: float = 0.0,
        analytic_kl: bool = False,
    ) -> None:
        super().__init__(num_particles)
        self.beta = beta
        self.warmup_steps = warmup_steps
        self.free_bits = free_bits
        self.analytic_kl = analytic_kl
        self.buffers = [torch.zeros((), dtype=torch.float64)] if warmup_steps else []

    def negative_bound(self, model: Callable[[], Any], guide: Callable[[], Any]) -> Tensor:
        """See :class:`_Estimator`."""
        guide_trace = poutine.trace(guide).get_trace()
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace()
        sums = self.sums(model_trace, guide_trace)
        fit = torch.zeros(())
        divergence = torch.zeros(())
        for name, site in sites(guide_trace):
            if name not in model_trace:  # an autoguide's own, of which the others are functions
                divergence = divergence + sums(site).mean(0).sum()
        for name, site in sites(model_trace):
            if name in guide_trace:
                pair = guide_trace.nodes[name], site
                divergence = divergence + self._divergence(*pair, sums)
            else:
                fit = fit + sums(site).mean(0).sum()
        negative = self._weight() * divergence - fit
        return negative * sums.scale if sums.per_datapoint else negative

    def _weight(self) -> Tensor | float:
        if not self.buffers:
            return self.beta
        made = self.buffers[0]
        weight = self.beta * (made / self.warmup_steps).clamp(max=1.0).float()
        made.add_(1)
        return weight

    def _divergence(self, q_site: Any, p_site: Any, sums: Sums) -> Tensor:
        """Of one site, summed over all its plates."""
        q, p = q_site["fn"], p_site["fn"]
        if self.free_bits and q_site["mask"] is None and p_site["mask"] is None:
            per_dimension = _divergence_by_dimension(q, p)
            if per_dimension is not None:
                average = per_dimension.flatten(0, -2).mean(0)  # (latent_dim,)
                used = average.clamp(min=self.free_bits).sum()
                return used * (per_dimension[..., 0].numel() / self.num_particles)
        if self.analytic_kl:
            site_sums = sums(q_site, kl_divergence(q, p))
        else:
            site_sums = sums(q_site) - sums(p_site)
        if self.free_bits:  # the whole latent is one group
            floor = self.free_bits * q.event_shape.numel()
            return site_sums.mean().clamp(min=floor) * site_sums.shape[1]
        return site_sums.mean(0).sum()


def _divergence_by_dimension(q: Any, p: Any) -> Tensor | None:
    """KL(q_j || p_j), ``(*batch, latent_dim)``, or None without a closed form for each."""
    if not all(isinstance(d, Independent) and d.reinterpreted_batch_ndims == 1 for d in (q, p)):
        return None
    try:
        divergence: Tensor = kl_divergence(q.base_dist, p.base_dist)
    except NotImplementedError:
        return None
    return divergence.expand(q.batch_shape + q.event_shape)


def _with_values(trace: poutine.Trace, values: dict[str, Tensor]) -> poutine.Trace:
    """A copy of a trace with other values at its latent sites, to replay a program against."""
    copy = trace.copy()
    for name, value in values.items():
        copy.nodes[name] = {**trace.nodes[name], "value": value}
    return copy


def _sites_at(
    program: Callable[[], Any], trace: poutine.Trace, values: dict[str, Tensor]
) -> dict[str, Any]:
    """The sites of a program when its latents have the given values."""
    replayed = poutine.replay(program, trace=_with_values(trace, values))
    again = poutine.trace(replayed).get_trace()
    return {name: again.nodes[name] for name in values}


def _refuse_other_density(first: dict[str, Any], again: dict[str, Any]) -> None:
    """A guide that draws what is no site is another guide when it runs again."""
    for name, site in first.items():
        value = site["value"].detach()
        before, after = (s["fn"].log_prob(value).detach() for s in (site, again[name]))
        if not torch.allclose(before, after, rtol=1e-3, atol=1e-3, equal_nan=True):
            raise ValueError(
                f"site {name!r}: its density changes when the guide runs again at the same draws, "
                "because something random in it is no site, such as nn.Dropout; its gradient "
                "cannot leave out the score: use ELBO() or IWAE(), or input_noise=Dropout()"
            )
