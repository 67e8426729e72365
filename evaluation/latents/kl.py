"""Nats that each dimension of the latents carries."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro import distributions as dist
from pyro import poutine
from torch import Tensor
from torch.distributions import kl_divergence

from aevb.evaluation.latents.embedding import check_samples, column_names, refuse_joint
from aevb.evaluation.limits import BYTES_AT_ONCE
from aevb.inference.process import randomness
from aevb.inference.process.devices import device_of
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.joint import Joint
from aevb.inference.programs.layouts import batch_shape, by_datapoint, in_plate, sites, value_of

__all__ = ["KLPerDimension", "kl_per_dimension"]


@dataclass(frozen=True)
class KLPerDimension:
    """Divergence of posterior from prior, in parts whose sum is the ELBO's KL term.

    Attributes:
        kl: In nats, ``(N, parts)``.
        standard_error: Of Monte Carlo; 0 where the closed form was used.
        names: Of the parts: ``"z[0]"`` for a dimension, or ``"z"`` for a whole site where the
            posterior or the prior does not factorize over its dimensions.
        seed: Of the draws.

    Example:
        >>> KLPerDimension(torch.ones(3, 2), torch.zeros(3, 2), ("z[0]", "z[1]"), seed=0).mean
        tensor([1., 1.])
    """

    kl: Tensor
    standard_error: Tensor
    names: tuple[str, ...]
    seed: int

    @property
    def mean(self) -> Tensor:
        """Over datapoints, ``(parts,)``."""
        return self.kl.mean(0)

    @property
    def mean_standard_error(self) -> Tensor:
        """Of Monte Carlo, for ``mean``, ``(parts,)``."""
        return self.standard_error.square().sum(0).sqrt() / len(self.kl)

    def __repr__(self) -> str:
        """One line."""
        return (
            f"KLPerDimension({float(self.mean.sum()):.3f} nats in {len(self.names)} parts, mean "
            f"of {len(self.kl)}, seed={self.seed})"
        )


def kl_per_dimension(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    num_samples: int = 1000,
    seed: int = 0,
) -> KLPerDimension:
    r"""The KL term of the ELBO, datapoint by datapoint and dimension by dimension.

    .. math:: E_{q(z|x)} \left[ \log q(z_d \mid x, \cdot) - \log p(z_d \mid \cdot) \right]

    The closed form of the two distributions is used where there is one, averaged over draws of
    what they depend on (the latents above them); the rest is Monte Carlo. Parts add up to the KL.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), appendix B,
        https://arxiv.org/abs/1312.6114

    Args:
        model: Pyro program of the joint distribution.
        guide: Pyro program of the posterior.
        args: Arguments of both.
        num_samples: Draws, where they are needed.
        seed: Of the draws; torch's global random state is left as it was.

    Raises:
        ValueError: If ``num_samples`` is below 2, a latent site does not lie in the data plate, or
            model and guide do not fit.

    Example:
        >>> from aevb.models import VAE
        >>> vae, x = VAE((4, 4), latent_dim=2), torch.zeros(3, 4, 4)
        >>> divergence = kl_per_dimension(vae.model, vae.guide, x)
        >>> divergence.kl.shape, float(divergence.standard_error.max())
        (torch.Size([3, 2]), 0.0)
    """
    check_samples(num_samples)
    device = device_of(model, guide, args=args)
    with torch.no_grad(), randomness.stream(seed, "kl", device), argument_checks(False):
        joint = Joint(model, *args, guide=guide)
        refuse_joint(joint.layout)
        if (joint.way, joint.guide_way) != ("plate", "plate"):
            raise ValueError(
                "model: divergences of single dimensions need sites that broadcast under an "
                "outer plate of draws; index from the right, and leave room for plates on the left"
            )
        parts = _divergences(joint, 2)
        if all(bool((part == part[:1]).all()) for part in parts.values()):
            parts = {name: part[:1] for name, part in parts.items()}  # draws change nothing
        else:
            at_once = max(1, BYTES_AT_ONCE // joint.cost(joint.draw(1)[0]).num_bytes)
            blocks = [
                _divergences(joint, min(at_once, num_samples - start))
                for start in range(0, num_samples, at_once)
            ]
            parts = {name: torch.cat([block[name] for block in blocks]) for name in parts}
    means, errors = [], []
    for part in parts.values():
        constant = bool((part == part[:1]).all())
        means.append(part[0] if constant else part.mean(0))
        error = torch.zeros_like(part[0]) if constant else part.std(0) / len(part) ** 0.5
        errors.append(error)
    return KLPerDimension(
        torch.cat(means, -1), torch.cat(errors, -1), column_names(parts, means), seed
    )


def _divergences(joint: Joint, num: int) -> dict[str, Tensor]:
    """Closed forms or log-ratios at draws of the guide, ``(num, N, parts)`` by site."""
    guide: Any = joint.guide
    layout = joint.layout
    trace = poutine.trace(in_plate(guide, layout, num)).get_trace(*joint.args)
    latents = {name: value_of(trace, name) for name, _ in sites(trace)}
    prior = joint.run(joint.model, latents)
    parts = {}
    for name, site in sites(trace):
        value, plates = latents[name], batch_shape(site, layout, num)
        q: Any = site["fn"]
        p: Any = prior.nodes[name]["fn"]
        inner_q, inner_p = _without_independent(q), _without_independent(p)
        event = torch.Size()
        if not inner_q.event_shape and not inner_p.event_shape:
            q, p, event = inner_q, inner_p, q.event_shape  # each dimension is a part
        try:
            divergence = kl_divergence(q, p)
        except NotImplementedError:
            divergence = q.log_prob(value) - p.log_prob(value)
        parts[name] = by_datapoint(divergence.double().expand(plates + event), layout)
    return parts


def _without_independent(fn: Any) -> Any:
    while isinstance(fn, dist.Independent | torch.distributions.Independent):
        fn = fn.base_dist
    return fn
