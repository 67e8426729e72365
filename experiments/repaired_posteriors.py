"""Posteriors of test images, repaired: evidence beside annealing, and means beside long chains.

Run: ``python -m aevb.experiments.repaired_posteriors RUN``, where RUN is a run folder of ``aevb
train``. Finished parts are kept in RUN and not computed again.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from aevb import inference
from aevb.cli.configurations import reopen
from aevb.cli.parser import Parsers
from aevb.cli.runs import open_run
from aevb.inference import LogDensity
from aevb.inference.evidence.proposals import fit_proposal
from aevb.inference.programs.joint import Joint

__all__ = ["main"]

_GRADIENT_COST = 3
_SAMPLES = 5000
_CHAINS, _TEMPERATURES, _LEAPFROG = 16, 300, 10
_BLOCK = 100  # images whose annealing or chains are one part


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data_root", type=Path)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--annealed", type=int, default=300, help="images of which annealing")
    parser.add_argument("--compared", type=int, default=100, help="posteriors beside long chains")
    parser.add_argument("--out", type=Path, default=Path("experiments/results"))
    settings = parser.parse_args()
    configuration = reopen(Parsers()["train"], settings.run)
    saved = open_run(configuration, settings.run, data_root=settings.data_root)
    model, x = saved.at_means, saved.values("test", settings.limit)
    part = _Parts(settings.run / f"repaired-{settings.limit}")
    figures = {
        "guide": part("guide", lambda: _importance(model, x, "guide")),
        "refined": part("refined", lambda: _importance(model, x, "refined")),
        "posterior": part("posterior", lambda: _posterior(model, x)),
    }
    annealed: list[float] = []
    for start in range(0, settings.annealed, _BLOCK):
        block = x[start : min(start + _BLOCK, settings.annealed)]
        annealed += part(f"annealed-{start}", partial(_annealed, model, block))
    chains: list[list[float]] = []
    for start in range(0, settings.compared, _BLOCK):
        block = x[start : min(start + _BLOCK, settings.compared)]
        chains += part(f"chains-{start}", partial(_chains, model, block))
    settings.out.mkdir(parents=True, exist_ok=True)
    page = _page(figures, torch.tensor(annealed), torch.tensor(chains), settings)
    (settings.out / "repaired_posteriors.md").write_text(page)


class _Parts:
    """What was computed before, by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str, compute: Callable[[], Any]) -> Any:
        path = self._folder / f"{name}.json"
        if not path.exists():
            value = compute()
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".partial")
            unfinished.write_text(json.dumps(value))
            unfinished.replace(path)
        return json.loads(path.read_text())


def _importance(model: Any, x: torch.Tensor, proposal: Any) -> dict[str, Any]:
    began = time.perf_counter()
    found = inference.importance_evidence(
        model.model, model.guide, x, num_samples=_SAMPLES, proposal=proposal
    )
    return {
        "log_evidence": found.log_evidence.tolist(),
        "standard_error": found.standard_error.tolist(),
        "trusted": int(found.is_trusted.sum()),
        "khat": float(found.khat.median()),
        "ess": float(found.ess.median()),
        "evaluations": _fit_evaluations(model, x[:_BLOCK]) if proposal == "refined" else 0,
        "seconds": time.perf_counter() - began,
    }


def _fit_evaluations(model: Any, x: torch.Tensor) -> int:
    """Of the model at each of a block of images, for its proposal."""
    return fit_proposal(Joint(model.model, x, guide=model.guide)).num_evaluations


def _annealed(model: Any, x: torch.Tensor) -> list[float]:
    found = inference.ais_evidence(
        model.model, x, guide=model.guide, num_chains=_CHAINS, num_temperatures=_TEMPERATURES,
        num_leapfrog_steps=_LEAPFROG,
    )  # fmt: skip
    values: list[float] = found.log_evidence.tolist()
    return values


def _posterior(model: Any, x: torch.Tensor) -> dict[str, Any]:
    began = time.perf_counter()
    found = inference.posterior(model, x)
    return {
        "summary": found.summary(),
        "seconds": time.perf_counter() - began,
        "mean": found.mean.tolist(),
        "passed": found.is_passed.tolist(),
        "source": found.source.tolist(),
        "ess": found.ess.tolist(),
    }


def _chains(model: Any, x: torch.Tensor) -> list[list[list[float]]]:
    """Mean, standard deviation and its standard error of each dimension, by long chains."""
    draws = inference.hmc(
        model.model, x, guide=model.guide, start=LogDensity.guide_draws, num_samples=1500, seed=1
    )
    u = draws.unconstrained.double()
    sd = u.std((0, 1))
    # chains are independent
    error = u.mean(1).std(0) / u.shape[0] ** 0.5
    found = torch.stack([u.mean((0, 1)), sd, error, draws.rhat.unsqueeze(-1).expand_as(sd)], -1)
    values: list[list[list[float]]] = found.tolist()
    return values


def _page(
    figures: dict[str, Any], annealed: torch.Tensor, chains: torch.Tensor, settings: Any
) -> str:
    guide, refined, repaired = (figures[name] for name in ("guide", "refined", "posterior"))
    count, summary = len(guide["log_evidence"]), repaired["summary"]
    few = len(annealed)
    difference = torch.tensor(refined["log_evidence"])[:few] - annealed
    error = float(difference.std()) / few**0.5
    # evaluations of the fit, counted as the repaired posteriors that it gave have them
    fit = refined["evaluations"]
    spent = _CHAINS * (_TEMPERATURES - 1) * (_LEAPFROG + 1) * _GRADIENT_COST
    mean, sd, noise, rhat = chains.double().unbind(-1)
    ours = torch.tensor(repaired["mean"])[: len(mean)].double()
    apart = (ours - mean) / sd
    mixed = rhat[:, 0] <= 1.01
    own = noise / sd
    within = (apart.abs() <= 0.1).double().mean(-1)[mixed]
    rms = apart.square().mean(-1).sqrt()[mixed]
    return f"""# Posteriors repaired

`python -m aevb.experiments.repaired_posteriors RUN`: a VAE 784-500-20 after 200 epochs of MNIST
(`aevb train --data mnist --binarize dynamic --model VAE --model.latent_dim 20 --model.hidden
[500] --epochs 200 --learning_rate 1e-3`, seed 0), the first {count:,} test images, seed 0, torch
{torch.__version__}. Seconds were measured while other work ran, and say little.

| log p(x) | nats | ± over images | trusted | k̂, median | evaluations an image |
|---|--:|--:|--:|--:|--:|
{_row("the guide as proposal", guide, count, _SAMPLES)}
{_row("a refined proposal", refined, count, fit + _SAMPLES)}
| annealing, {_CHAINS} chains × {_TEMPERATURES} temperatures, the first {few} | \
{float(annealed.mean()):.3f} | {float(annealed.std()) / few**0.5:.2f} | | | {spent:,} |

Refined less annealed, on those {few}: {float(difference.mean()):+.4f} ± {error:.4f} nats
(wanted: within 0.05), for {(fit + _SAMPLES) / spent:.3f} of its evaluations (wanted: at most 0.1;
a gradient counts as three); trusted at {refined["trusted"]} of {count} (wanted: 95 %; by the guide
{guide["trusted"]}).

`inference.posterior`, {summary["num_samples"]:,} draws each: {summary["num_passed"]} of
{summary["num_posteriors"]} passed, in {repaired["seconds"] / 60:.1f} minutes (wanted: all, in 15);
sources {", ".join(f"{n} {k}" for k, n in summary["sources"].items() if n)}; effective draws
{summary["ess_least"]:.0f} at the least, {summary["ess_median"]:.0f} at the median;
{summary["num_evaluations_mean"]:,.0f} evaluations an image.

Beside long chains (16 × 1,500 draws) at {int(mixed.sum())} posteriors at which those mixed, of
{len(mean)}: means are within 0.1 posterior standard deviations at
{float((rms <= 0.1).double().mean()):.1%} of the posteriors by the root mean square over dimensions
(wanted: 99 %), at
{float((within == 1).double().mean()):.1%} in all 20 dimensions at once, and in
{float(within.mean()):.2%} of all dimensions. The chains' own standard error is
{float(own.mean()):.3f} standard deviations on average.
"""


def _row(name: str, found: dict[str, Any], count: int, evaluations: int) -> str:
    values = torch.tensor(found["log_evidence"])
    return (
        f"| {name}, {_SAMPLES:,} draws | {float(values.mean()):.3f} | "
        f"{float(values.std()) / count**0.5:.2f} | {found['trusted']} of {count} | "
        f"{found['khat']:.2f} | {evaluations:,} |"
    )


if __name__ == "__main__":
    main()
