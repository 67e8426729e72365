"""The image models written by hand in PyTorch: no Pyro, one fused optimizer.

The loss is that of ``Trace_ELBO`` with one particle, log p(x, z) - log q(z|x) at one draw, with no
divergence in closed form. With z = m + s e, log q(z|x) is written in e, as one does by hand.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.steps.competitors import Run
from benchmarks.steps.competitors.on_torch import Loaded, load, loop
from benchmarks.steps.pyro_programs import Heads, networks
from benchmarks.steps.workloads import LEARNING_RATE, Workload

__all__ = ["build", "load"]

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def build(workload: Workload, variant: str, loaded: Loaded) -> Run:
    """There is one variant."""
    del variant
    torch.manual_seed(0)
    parts = networks(workload, loaded.device)
    losses: dict[str, Callable[..., Tensor]] = {"vae": _vae, "two-layer": _two_layer}
    negative_elbo = losses[workload.kind]
    parameters = [parameter for part in parts.values() for parameter in part.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)

    def step(data: Tensor, rows: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = negative_elbo(data.index_select(0, rows), **parts)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return loop(step, loaded)


def _vae(x: Tensor, encoder: Heads, decoder: Heads) -> Tensor:
    z, log_q = _draw(encoder(x))
    (logits,) = decoder(z)
    return _cross_entropy(logits, x) - _standard_normal(z) + log_q


def _two_layer(
    x: Tensor, encoder1: Heads, encoder2: Heads, decoder2: Heads, decoder1: Heads
) -> Tensor:
    z1, log_q1 = _draw(encoder1(x))
    z2, log_q2 = _draw(encoder2(z1))
    log_p1 = _normal(z1, decoder2(z2))
    (logits,) = decoder1(z1)
    return _cross_entropy(logits, x) - log_p1 - _standard_normal(z2) + log_q1 + log_q2


def _draw(heads: list[Tensor]) -> tuple[Tensor, Tensor]:
    """A reparameterized draw, and its log-density summed over the batch."""
    loc, log_variance = heads
    noise = torch.randn_like(loc)
    z = loc + torch.exp(0.5 * log_variance) * noise
    return z, -0.5 * (noise.square() + log_variance).sum() - z.numel() * _HALF_LOG_TWO_PI


def _standard_normal(z: Tensor) -> Tensor:
    return -0.5 * z.square().sum() - z.numel() * _HALF_LOG_TWO_PI


def _normal(z: Tensor, heads: list[Tensor]) -> Tensor:
    loc, log_variance = heads
    scaled = (z - loc).square() * torch.exp(-log_variance)
    return -0.5 * (scaled + log_variance).sum() - z.numel() * _HALF_LOG_TWO_PI


def _cross_entropy(logits: Tensor, x: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
