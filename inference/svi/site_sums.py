"""Log-probabilities of a program's sites, summed to what an objective needs."""

import math
from typing import Any

from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from aevb.inference.programs.guide_checks import sites

__all__ = ["Sums", "latent_names"]


def latent_names(guide_trace: poutine.Trace) -> list[str]:
    """Sites that the guide draws, without those that count for nothing, such as input noise."""
    return [
        name
        for name, site in sites(guide_trace)
        if not site["is_observed"] and getattr(site["fn"], "_mask", None) is not False
    ]


class Sums:
    """How log-probabilities of shape ``(K, *plates)`` become one number for each posterior.

    If every site lies in the rightmost ``"data"`` plate, each datapoint has a posterior of its own
    and sums have shape ``(K, B)``; otherwise there is one joint posterior and they are ``(K, 1)``.

    Args:
        traces: Of model and guide.
        num_particles: K.
        nesting: Plates of the deepest site, without the one of the particles.
    """

    def __init__(self, *traces: poutine.Trace, num_particles: int, nesting: int) -> None:
        self.num_particles = num_particles
        self.nesting = nesting
        found = [site for trace in traces for _, site in sites(trace)]
        self.per_datapoint = all(map(_in_data_plate, found))
        scales = {float(s["scale"]) for s in found if not isinstance(s["scale"], Tensor)}
        tensors = any(isinstance(site["scale"], Tensor) for site in found)
        # of subsampled or tempered programs, what every site is multiplied by
        self.scale = scales.pop() if len(scales) == 1 and not tensors else math.nan
        if self.per_datapoint and math.isnan(self.scale):
            raise ValueError("sites of one datapoint are scaled differently: use ELBO()")

    def __call__(self, site: Any, log_prob: Tensor | None = None) -> Tensor:
        """Sum the log-probability of one site.

        Args:
            site: Of a trace.
            log_prob: In place of ``site["fn"].log_prob(site["value"])``.

        Returns:
            ``(K, B)`` or ``(K, 1)``, nats; scaled only where there is one joint posterior.
        """
        if log_prob is None:
            log_prob = site["fn"].log_prob(site["value"])
        scale = 1.0 if self.per_datapoint else site["scale"]
        log_prob = scale_and_mask(log_prob, scale, site["mask"])
        while log_prob.ndim < self.nesting:
            log_prob = log_prob.unsqueeze(0)
        if self.num_particles == 1:
            log_prob = log_prob.unsqueeze(0)
        if self.per_datapoint:  # (K, *plates, B)
            return log_prob.reshape(self.num_particles, -1, log_prob.shape[-1]).sum(1)
        return log_prob.reshape(self.num_particles, -1).sum(1, keepdim=True)


def _in_data_plate(site: Any) -> bool:
    return any(frame.name == "data" and frame.dim == -1 for frame in site["cond_indep_stack"])
