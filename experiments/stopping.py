"""How late and how often wrongly ``steps="auto"`` stops, beside what hindsight would have needed.

Each program of `tests/helpers/plain_programs` whose log-density can be evaluated at several
draws is fitted by ADVI, many runs at once: full-rank and diagonal normals, two learning rates of
Adam, several seeds. The bounds and parameters of every run are shown to the rule of
``inference/svi/stopping.py`` as `fit` shows them.

Run: ``python -m experiments.stopping``; ten minutes. ``--programs NAME ...`` for some.
"""

import argparse
import math
import statistics
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest

from aevb.inference.mcmc.path_gradients import PathGradient
from aevb.inference.programs.log_density import LogDensity
from aevb.inference.svi.stopping import BoundWatch, UntilConverged
from benchmarks.common.machine import commit, describe_cpu, installed_versions
from experiments.plain_programs import plain_programs

__all__ = ["hindsight", "main", "runs", "stops"]

RESULT = Path(__file__).parent / "results" / "stopping.md"
RATES = (0.01, 0.03)
EVERY = 20  # steps between kept parameters, of which the rule is shown the latest
NOISE_SHARE, LEAST = 0.5, 0.05  # of the margin, as in the rule

Array = Any


def main() -> None:
    """Write the table, or print it where only some programs were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", nargs="*", default=[], help="names; all if left out")
    parser.add_argument("--steps", type=int, default=6000, help="of the long runs")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each setting")
    parser.add_argument("--seed", type=int, default=0, help="of the first one")
    parser.add_argument("--rates", nargs=2, type=float, default=RATES, help="of Adam")
    options = parser.parse_args()
    torch.set_num_threads(1)
    plain = plain_programs()
    lines, ratios, false, reached = [], [], 0, 0
    for record in plain.PROGRAMS:
        if options.programs and record.name not in options.programs:
            continue
        try:
            with plain.float64(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                bounds, kept = runs(record, options)
        except ValueError as error:
            lines.append(f"| {record.name} | {' '.join(str(error).split())[:80]} | – | – | – |")
            continue
        needed, found, wrong = [], [], 0
        for trace, points in zip(bounds.T, kept, strict=True):
            first, margin, smoothed, final = hindsight(trace)
            step = stops(trace, points)
            needed.append(max(first, 150))
            found.append(step or len(trace))
            reached += step is not None
            wrong += step is not None and final - smoothed(step) > margin
        own = [a / b for a, b in zip(found, needed, strict=True)]
        ratios += own
        false += wrong
        cells = (
            record.name, f"{statistics.median(needed):.0f}", f"{statistics.median(found):.0f}",
            f"{statistics.median(own):.2f}", f"{wrong} of {len(own)}",
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], file=sys.stderr, flush=True)  # noqa: T201
    text = _page(lines, ratios, false, reached, options)
    if options.programs or options.seed or tuple(options.rates) != RATES:
        print(text)  # noqa: T201
    else:
        RESULT.write_text(text)


def runs(record: Any, options: argparse.Namespace) -> tuple[Array, Array]:
    """Bounds ``(steps, runs)`` of ADVI, and parameters ``(runs, steps / EVERY, parameters)``."""
    density = LogDensity(record.model, *record.args)
    steps, rates, seeds = options.steps, options.rates, options.seeds
    count, batch, dim = 2 * len(rates) * seeds, density.batch, density.dim
    full = np.repeat([0.0, 1.0], count // 2)[:, None, None, None]
    rate = np.tile(np.repeat(rates, seeds), 2)
    rng = np.random.default_rng(options.seed)
    values = {
        "mean": 0.1 * rng.standard_normal((count, batch, dim)),
        "log_scale": np.full((count, batch, dim), math.log(0.1)),
        "lower": np.zeros((count, batch, dim, dim)),
    }
    first = {name: np.zeros_like(value) for name, value in values.items()}
    second = {name: np.zeros_like(value) for name, value in values.items()}
    evaluate = PathGradient(density, num_evaluations=steps)
    bounds, kept = np.empty((steps, count)), []
    for step in range(steps):
        noise = rng.standard_normal((count, batch, dim))
        mixed = noise + np.einsum("cbij,cbj->cbi", values["lower"], noise)
        scale = np.exp(values["log_scale"])
        point = evaluate(torch.from_numpy(values["mean"] + scale * mixed))
        log_joint, gradient = point[1].numpy(), point[2].numpy()
        log_q = -values["log_scale"].sum(-1) - 0.5 * (noise**2 + math.log(2 * math.pi)).sum(-1)
        bounds[step] = (log_joint - log_q).sum(-1)
        outer = (gradient * scale)[..., :, None] * noise[..., None, :]
        gradients = {
            "mean": gradient,
            "log_scale": gradient * scale * mixed + 1,
            "lower": full * np.tril(outer, -1),
        }
        for name, g in gradients.items():  # Adam
            first[name] += 0.1 * (g - first[name])
            second[name] += 0.001 * (g * g - second[name])
            root = np.sqrt(second[name] / (1 - 0.999 ** (step + 1))) + 1e-8
            shape = (count,) + (1,) * (g.ndim - 1)
            values[name] += rate.reshape(shape) * first[name] / (1 - 0.9 ** (step + 1)) / root
        if step % EVERY == EVERY - 1:
            flat = [value.reshape(count, -1) for value in values.values()]
            kept.append(np.concatenate(flat, 1).astype(np.float32))
    sound = np.isfinite(bounds).all(0)
    return bounds[:, sound], np.stack(kept, 1)[sound]


def stops(trace: Array, points: Array) -> int | None:
    """The step at which the rule ends a run, or None."""
    watch = BoundWatch(UntilConverged())
    while (step := watch.step + watch.steps_to_look) <= len(trace):
        watch.add(trace[watch.step : step].tolist())
        point = torch.from_numpy(points[step // EVERY - 1])
        if watch.look([point], 1.0):
            return step
    return None


def hindsight(trace: Array) -> tuple[int, float, Any, float]:
    """First step from which on the smoothed bound stays within the margin of its last quarter.

    Returns:
        The step; the margin; the smoothed bound as a function of the step; its final value.
    """
    last = trace[-len(trace) // 4 :]
    noise = float(np.median([part.std() for part in np.array_split(last, 60)]))
    margin, final = max(NOISE_SHARE * noise, LEAST), float(last.mean())
    sums = np.concatenate([[0.0], np.cumsum(trace)])

    def smoothed(step: int) -> float:
        low = max(0, int(min(step - 100, step / 1.1)))
        high = min(len(trace), int(max(step + 100, step * 1.1)))
        return float((sums[high] - sums[low]) / (high - low))

    steps = list(range(100, len(trace), 20))
    below = [i for i, step in enumerate(steps) if smoothed(step) < final - margin]
    index = below[-1] + 1 if below else 0
    return steps[index] if index < len(steps) else len(trace), margin, smoothed, final


def _page(lines: list[str], ratios: list[float], false: int, reached: int, options: Any) -> str:
    found = installed_versions()
    versions = ", ".join(f"{name} {found[name]}" for name in ("python", "torch", "pyro-ppl"))
    count = len(ratios)
    share = 100 * false / max(1, count)
    limit = binomtest(false, count).proportion_ci().high
    quick = 100 * sum(ratio <= 1.5 for ratio in ratios) / max(1, count)
    return (
        "# When to stop\n\n"
        f"`python -m experiments.stopping`, seed {options.seed}, one thread of {describe_cpu()}, "
        f"{versions}, commit {commit()}; float64. Each program: ADVI with diagonal and full-rank "
        f"normals, Adam at {options.rates[0]:g} and {options.rates[1]:g}, {options.seeds} runs of "
        f"each, {options.steps:,} steps; medians over its runs. Hindsight: the first step from "
        "which the smoothed bound (means over ±10 %, at least ±100 steps) stays within the margin "
        "of the mean of the last quarter, and at least 150. Margin: half the standard deviation "
        "of a step's bound in the last quarter, at least 0.05 nats. A stop is false if the "
        "smoothed bound is then further below. A run that is not stopped counts with all its "
        "steps.\n\n"
        "The constants of the rule were chosen on these programs, so this is how well it fits "
        "them, not how well it does on others. The limit is that of Clopper and Pearson, as if "
        "runs of one program were independent.\n\n"
        "| | found | target |\n|---|--:|--:|\n"
        f"| false stops | {false} of {count} ({share:.1f} %) | at most 1 % |\n"
        f"| their share, upper end of the 95 % interval | {100 * limit:.1f} % | – |\n"
        f"| steps over hindsight's, median | {statistics.median(ratios):.2f} | 1.5 |\n"
        f"| the same, mean | {statistics.mean(ratios):.2f} | 1.5 |\n"
        f"| runs within 1.5 times hindsight's | {quick:.0f} % | all |\n"
        f"| runs that were stopped | {reached} of {count} | all |\n\n"
        "| program | hindsight | auto | ratio | false stops |\n|---|--:|--:|--:|--:|\n"
        + "\n".join(lines)
        + "\n"
    )


if __name__ == "__main__":
    main()
