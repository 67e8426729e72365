"""What a trained model makes of data and latents: its programs run for their distributions."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro import distributions as dist
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import Independent, TransformedDistribution

from aevb.data.seeds import stream_seed

__all__ = ["latent_sites", "log_mean_weight", "looking", "mean_given", "posterior_means"]

_ROWS_AT_ONCE = 4096


@contextmanager
def looking(model: nn.Module, seed: int, purpose: str) -> Iterator[None]:
    """Evaluation mode, no gradients and a stream of random numbers; afterwards all as it was."""
    device = next(model.parameters()).device
    modes = {module: module.training for module in model.modules()}
    cuda = [device] if device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(cuda):
        torch.manual_seed(stream_seed(seed, purpose))
        model.eval()
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode


def latent_sites(model: Any, x: Tensor) -> dict[str, Any]:
    """Sites of the latents of datapoints in the guide, ``"z"``, or ``"z1"`` to ``"zL"``."""
    nodes = poutine.trace(model.guide).get_trace(x).nodes
    found = {
        name: node
        for name, node in nodes.items()
        if node["type"] == "sample"
        and any(frame.name == "data" for frame in node["cond_indep_stack"])
        and not node["infer"].get("is_auxiliary")
        and type(node["fn"]).__name__ != "_Subsample"
    }
    return dict(sorted(found.items(), key=lambda item: (len(item[0]), item[0])))


def posterior_means(model: Any, x: Tensor, num_samples: int) -> tuple[Tensor, ...]:
    """``(B, size)`` of each layer: in closed form, unless it depends on draws or has none."""
    first, second = latent_sites(model, x), latent_sites(model, x)
    known = {name: _mean(first[name]["fn"], second[name]["fn"]) for name in first}
    if any(mean is None for mean in known.values()):
        total = {name: torch.zeros_like(site["value"]).double() for name, site in first.items()}
        at_once = max(1, _ROWS_AT_ONCE // len(x))
        for start in range(0, num_samples, at_once):
            num = min(at_once, num_samples - start)
            for name, site in latent_sites(model, _repeated(x, num)).items():
                total[name] += site["value"].double().unflatten(0, (num, len(x))).sum(0)
        drawn = {name: (t / num_samples).to(first[name]["value"]) for name, t in total.items()}
        known = {name: drawn[name] if mean is None else mean for name, mean in known.items()}
    return tuple(mean for mean in known.values() if mean is not None)


def _mean(fn: Any, again: Any) -> Tensor | None:
    try:
        mean, other = fn.mean, again.mean
    except (NotImplementedError, AttributeError):
        return None
    finite = bool(torch.isfinite(mean).all())
    return mean if finite and torch.equal(mean, other) else None


def mean_given(model: Any, z: tuple[Tensor, ...]) -> Tensor:
    """E[x|z]."""
    size = len(z[0])
    nodes = poutine.trace(model.model).get_trace(size=1).nodes
    names = sorted(
        name
        for name, node in nodes.items()
        if node["type"] == "sample" and name.startswith("z") and name != "x"
    )
    if len(names) != len(z):
        raise ValueError(f"z: expected latents {', '.join(names)}; got {len(z)}")
    given = poutine.condition(model.model, data=dict(zip(names, z, strict=True)))
    fn: Any = poutine.trace(given).get_trace(size=size).nodes["x"]["fn"]
    mean: Tensor = fn.mean
    return mean


def log_mean_weight(model: Any, x: Tensor, num_samples: int) -> Tensor:
    """Log of the mean importance weight of each datapoint, ``(B,)``."""
    if getattr(model, "has_latent_weights", False):
        raise ValueError("log_evidence: weights are latent; use at_mean_weights()")
    if any(isinstance(_innermost(s["fn"]), dist.Delta) for s in latent_sites(model, x).values()):
        raise ValueError("log_evidence: the guide is a single point, which has no density")
    blocks = []
    for block in x.split(_ROWS_AT_ONCE):
        at_once = max(1, _ROWS_AT_ONCE // len(block))
        parts = [
            _log_weights(model, block, min(at_once, num_samples - start))
            for start in range(0, num_samples, at_once)
        ]
        blocks.append(torch.logsumexp(torch.cat(parts), 0) - math.log(num_samples))
    return torch.cat(blocks)


def _log_weights(model: Any, x: Tensor, num: int) -> Tensor:
    """``(num, B)``, float64."""
    rows = _repeated(x, num)
    q = poutine.trace(model.guide).get_trace(rows)
    p = poutine.trace(poutine.replay(model.model, trace=q)).get_trace(rows)
    for trace in (q, p):
        trace.compute_log_prob()
    terms = [
        sign * node["log_prob"].double()
        for sign, trace in ((1, p), (-1, q))
        for node in trace.nodes.values()
        if node["type"] == "sample" and type(node["fn"]).__name__ != "_Subsample"
    ]
    return torch.stack([term.expand(len(rows)) for term in terms]).sum(0).view(num, len(x))


def _repeated(x: Tensor, num: int) -> Tensor:
    return x.repeat(num, *[1] * (x.ndim - 1))


def _innermost(fn: Any) -> Any:
    while isinstance(fn, Independent | TransformedDistribution):
        fn = fn.base_dist
    return fn
