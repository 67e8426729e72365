"""How often two standard errors cover log p(x) where importance sampling says that it is trusted.

Posteriors are normal, of 1 to 50 dimensions, with independent normals for guides: correlated ones
that such a guide cannot follow, and exact ones that it misses by a factor of its scale or by a
shift. Weights are drawn from them directly, as the model's and the guide's densities would give.
Skewed, heavy-tailed and bimodal ones, on which nothing was chosen, follow.

Run: ``python -m aevb.experiments.trusted_evidence``; a few minutes.
"""

import argparse
import math
import platform
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributions as dist

from aevb.inference import pooled_khat
from aevb.inference.evidence.importance import estimates_from_log_weights
from aevb.inference.evidence.psis import khat_limit
from aevb.inference.process import randomness

__all__ = ["main"]

_DIMENSIONS = (1, 2, 5, 10, 20, 50)
_AT_ONCE = 100  # datapoints, to bound the memory
_OLD_LIMIT = 0.7


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num_samples", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--num_datapoints", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("experiments/results"))
    settings = parser.parse_args()
    device = torch.device("cpu")
    lines = [_head(settings)]
    for num_samples in settings.num_samples:
        rows = []
        with randomness.stream(settings.seed, f"trusted {num_samples}", device):
            for dim in _DIMENSIONS:
                for name, precision, factor, shift in _guides(dim):
                    found = _found(precision, factor, shift, num_samples, settings.num_datapoints)
                    rows.append((name, dim, *found))
            others = _of_others(num_samples, settings.num_datapoints)
        lines += [_table(num_samples, rows), _OTHERS, *_rows(others)]
    settings.out.mkdir(parents=True, exist_ok=True)
    (settings.out / "trusted_evidence.md").write_text("\n".join(lines) + "\n")


def _guides(dim: int) -> Iterator[tuple[str, Tensor, float, float]]:
    """Name, precision of the posterior, factor of the guide's scales, and shift in them."""
    eye = torch.eye(dim, dtype=torch.float64)
    for factor in (0.5, 0.7, 0.8, 0.9, 1.3):
        yield f"scales × {factor}", eye, factor, 0.0
    for shift in (0.2, 0.4, 0.6):
        yield f"means off by {shift} sds", eye, 1.0, shift
    if dim == 1:
        return
    for correlation in (0.1, 0.3, 0.5, 0.7, 0.9):
        covariance = correlation + (1 - correlation) * eye
        yield f"correlation {correlation}", torch.linalg.inv(covariance), 1.0, 0.0
    for loading in (0.1, 0.2, 0.4, 0.8):
        weights = loading * torch.randn(2 * dim, dim, dtype=torch.float64)
        yield f"factor analysis, loadings {loading}", eye + weights.T @ weights, 1.0, 0.0


def _others(
    num: int,
) -> Iterator[tuple[str, dist.Distribution, Callable[[Tensor], Tensor], Tensor]]:
    """Name, guide, log p(x, z) and log p(x), of posteriors that no limit was chosen on."""
    one = torch.ones(num, dtype=torch.float64)
    for shape, rate in ((0.7, 0.5), (0.1, 0.1)):
        prior = dist.Gamma(shape * one, rate * one)
        x = torch.poisson(prior.sample())
        about = torch.digamma(x + shape) - math.log(1 + rate)
        yield (
            f"Gamma({shape}, {rate}) and Poisson, log-normal guide",
            dist.LogNormal(about, torch.polygamma(1, x + shape).sqrt()),
            lambda z, x=x, prior=prior: prior.log_prob(z) + dist.Poisson(z).log_prob(x),
            dist.NegativeBinomial(shape * one, probs=one / (1 + rate)).log_prob(x),
        )
    half = dist.Beta(0.5 * one, 0.5 * one)
    x = dist.Binomial(8, half.sample()).sample()
    binomial = torch.lgamma(9 * one) - torch.lgamma(x + 1) - torch.lgamma(9 - x)
    yield (
        "Beta(0.5, 0.5) and binomial, flatter Beta guide",
        dist.Beta(0.8 * x + 0.8, 0.8 * (8 - x) + 0.8),
        lambda z, x=x: half.log_prob(z) + dist.Binomial(8, z).log_prob(x),
        binomial + torch.lgamma(x + 0.5) + torch.lgamma(8.5 - x) - torch.lgamma(9 * one)
        - math.log(math.pi),
    )  # fmt: skip
    heavy = dist.StudentT(2 * one)
    x = heavy.sample() + 2 * torch.randn(num, dtype=torch.float64)

    def with_heavy_tails(z: Tensor, x: Tensor = x) -> Tensor:
        return heavy.log_prob(z) + dist.Normal(z, 2.0).log_prob(x)

    mean, sd, exact = _by_quadrature(with_heavy_tails, 200.0)
    yield (
        "Student t prior of 2 degrees, normal guide",
        dist.Normal(mean, 0.9 * sd),
        (with_heavy_tails),
        exact,
    )
    weights = torch.tensor([0.9, 0.1], dtype=torch.float64)
    places = torch.tensor([0.0, 4.0], dtype=torch.float64)
    x = 0.3 * torch.randn(num, dtype=torch.float64)

    def mixed(value: Tensor, factor: float, scale: float) -> Tensor:
        normals = dist.Normal(factor * places, scale).log_prob(value.unsqueeze(-1))
        return torch.logsumexp(weights.log() + normals, -1)

    yield (
        "modes of 0.9 and 0.1, 4 sds apart, guide of the first",
        dist.Normal(0.3 * x, 0.9 * one),
        lambda z, x=x: mixed(z, 1.0, 1.0) + dist.Normal(0.1 * z, 0.3).log_prob(x),
        mixed(x, 0.1, 0.1**0.5),
    )
    x = torch.randn(num, dtype=torch.float64) ** 2 + 0.3 * torch.randn(num, dtype=torch.float64)

    def mirrored(z: Tensor, x: Tensor = x) -> Tensor:
        return dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z**2, 0.3).log_prob(x)

    root = x.clamp(min=0.05).sqrt()
    guide = dist.Normal(root, (0.15 / root).clamp(max=0.4))
    yield "two mirrored modes, guide of one", guide, mirrored, _by_quadrature(mirrored, 6.0)[2]


def _by_quadrature(
    log_joint: Callable[[Tensor], Tensor], end: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and sd of the posterior, and log p(x), of each datapoint."""
    grid = torch.linspace(-end, end, 20_001, dtype=torch.float64).unsqueeze(-1)
    values = log_joint(grid)
    share = values.softmax(0)
    mean = (share * grid).sum(0)
    sd = (share * (grid - mean).square()).sum(0).sqrt()
    return mean, sd, torch.logsumexp(values, 0) + math.log(2 * end / 20_000)


def _of_others(num_samples: int, num: int) -> list[tuple[Any, ...]]:
    rows = []
    for name, guide, log_joint, exact in _others(num):
        z = guide.sample((num_samples,))
        estimates = estimates_from_log_weights(log_joint(z) - guide.log_prob(z))
        rows.append((name, "–", *_judged(estimates, exact, num_samples)))
    return rows


def _found(
    precision: Tensor, factor: float, shift: float, num_samples: int, num: int
) -> tuple[float, float, float, float, float]:
    """Median k̂; share trusted and its coverage by the old rule and by the pooled one."""
    dim = len(precision)
    scale = factor / precision.diagonal().sqrt()
    parts = []
    for _ in range(0, num, _AT_ONCE):
        normal = torch.randn(num_samples, _AT_ONCE, dim, dtype=torch.float64)
        z = (normal + shift) * scale
        log_q = -0.5 * normal.square().sum(-1) - scale.log().sum()
        log_p = -0.5 * ((z @ precision) * z).sum(-1) + 0.5 * torch.logdet(precision)
        parts.append(estimates_from_log_weights(log_p - log_q))
    each = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return _judged(each, torch.zeros(()), num_samples)


def _judged(
    each: dict[str, Tensor], exact: Tensor, num_samples: int
) -> tuple[float, float, float, float, float]:
    khat = each["khat"].numpy()
    # up to the rounding of weights that are all equal
    away = (each["log_evidence"] - exact).abs()
    covered = (away <= 2 * each["standard_error"] + 1e-12).numpy()
    alone = khat <= _OLD_LIMIT
    pooled = pooled_khat(khat, num_samples) <= khat_limit(num_samples)
    return (
        float(np.median(khat)),
        alone.mean(), covered[alone].mean() if alone.any() else math.nan,
        pooled.mean(), covered[pooled].mean() if pooled.any() else math.nan,
    )  # fmt: skip


def _head(settings: argparse.Namespace) -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "numpy"))
    return f"""# Where importance sampling says that its estimate is trusted

`python -m aevb.experiments.trusted_evidence`, seed {settings.seed},
{settings.num_datapoints:,} datapoints of each guide; {versions}, Python
{platform.python_version()}. Posteriors are normal and guides independent normals, so that
log p(x) is known. “Covered” is the share of the trusted datapoints whose estimate lies within
two of its own standard errors of the truth; wanted is 0.90 with each guide. “Alone” trusts a
datapoint whose own k̂ is at most {_OLD_LIMIT}; “pooled” is what `is_trusted` says: the upper
limit of k̂ in view of all datapoints. A guide at whose datapoints nothing is trusted has no share
covered."""


def _table(
    num_samples: int, rows: list[tuple[str, int, float, float, float, float, float]]
) -> str:
    body = "\n".join(_rows(rows))
    known = [row[6] for row in rows if not math.isnan(row[6])]
    old = [row[4] for row in rows if not math.isnan(row[4])]
    return f"""
## {num_samples:,} draws

Of {len(rows)} guides {len(known)} have trusted datapoints. Covered: pooled {min(known):.2f} at
the least, {np.median(known):.2f} at the median, below 0.90 with {sum(v < 0.9 for v in known)};
alone {min(old):.2f} at the least, below 0.90 with {sum(v < 0.9 for v in old)} of {len(old)}. The
limit is {khat_limit(num_samples):.2f}.

| guide | dimensions | k̂, median | alone: trusted | covered | pooled: trusted | covered |
|---|--:|--:|--:|--:|--:|--:|
{body}"""


_OTHERS = """
Posteriors that are not normal, on which nothing was chosen. Weights tell of the tails that draws
reach: a mode, or a spike at the edge of the support, that the guide never visits is not in them,
and what is trusted then may be too low.

| posterior, guide | dimensions | k̂ | alone: trusted | covered | pooled: trusted | covered |
|---|--:|--:|--:|--:|--:|--:|"""


def _rows(rows: list[tuple[Any, ...]]) -> list[str]:
    def shown(value: float) -> str:
        return "–" if math.isnan(value) else f"{value:.2f}"

    return [
        f"| {name} | {dim} | {' | '.join(map(shown, figures))} |" for name, dim, *figures in rows
    ]


if __name__ == "__main__":
    main()
