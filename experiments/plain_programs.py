"""Programs as Pyro's users write them: how they are trained, sampled and weighed.

Each program of `tests/helpers/plain_programs` is trained for some steps beside ``pyro.infer.SVI``
from the same parameters and the same random state, sampled by HMC, and weighed by importance
sampling and annealing, against its exact posterior.

Run: ``python -m experiments.plain_programs``; minutes, on a machine that is otherwise idle, for
its times mean nothing on another. ``--programs NAME ...`` for some, ``--quick`` to see it work.
"""

import argparse
import copy
import importlib
import statistics
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.ops.stats import effective_sample_size
from torch import Tensor

from aevb import inference
from aevb.inference.programs.joint import Joint
from aevb.inference.programs.program import data_plate_size
from benchmarks.common.machine import commit, describe_cpu, installed_versions

__all__ = ["Sizes", "main", "plain_programs", "row"]

RESULT = Path(__file__).parent / "results" / "plain_programs.md"
SEED = 0
RATE = 0.02
COMPARED_STEPS = 50
_COLUMNS = (
    "program",
    "style",
    "steps",
    "off `SVI` by",
    "speed of a step against `SVI`",
    "draws at once by",
    "worst HMC mean (SE)",
    "log evidence",
    "importance",
    "k̂",
    "AIS",
)


@dataclass(frozen=True)
class Sizes:
    """How much is done for each program.

    Attributes:
        draws: Of each of 8 chains, and as many to warm up.
        guide_steps: Training of the proposal.
        weights: Of importance sampling.
        temperatures: Of annealing, with 64 chains.
        timed_steps: Steps timed at once, five times over.
    """

    draws: int = 300
    guide_steps: int = 1500
    weights: int = 5000
    temperatures: int = 200
    timed_steps: int = 100


QUICK = Sizes(draws=40, guide_steps=40, weights=100, temperatures=10, timed_steps=5)


def main() -> None:
    """Write the table, or print it where not all of it was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", nargs="*", default=[], help="names; all if left out")
    parser.add_argument("--quick", action="store_true", help="sizes that only show that it works")
    options = parser.parse_args()
    plain = plain_programs()
    torch.set_num_threads(1)
    sizes = QUICK if options.quick else Sizes()
    chosen = [p for p in plain.PROGRAMS if not options.programs or p.name in options.programs]
    lines = []
    for record in chosen:
        with plain.float64(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lines.append(row(record, sizes))
        print(lines[-1], file=sys.stderr, flush=True)  # noqa: T201
    text = "\n".join([_header(sizes), _line(_COLUMNS), _line(["---"] * len(_COLUMNS)), *lines])
    if options.quick or options.programs:
        print(text)  # noqa: T201
    else:
        RESULT.write_text(text + "\n")


def row(record: Any, sizes: Sizes) -> str:
    """One line of the table.

    Args:
        record: A program.
        sizes: How much is done.
    """
    cells = [record.name, record.style, *_training(record, sizes)]
    cells += _sampled(record, sizes)
    exact = "–" if record.known is None else _sum(record.truth().log_evidence)
    cells += [exact, *_weighed(record, sizes), _annealed(record, sizes)]
    return _line(cells)


def plain_programs() -> Any:
    """The module of programs, which lives with the tests."""
    folder = str(Path(__file__).parent.parent / "tests" / "helpers")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module("plain_programs")


def _header(sizes: Sizes) -> str:
    found = installed_versions()
    versions = ", ".join(f"{name} {found[name]}" for name in ("python", "torch", "pyro-ppl"))
    return (
        "# Programs as Pyro's users write them\n\n"
        f"`python -m experiments.plain_programs`, seed {SEED}, one thread of {describe_cpu()}, "
        f'{versions}, commit {commit()}; float64. Steps: `compile="traced"`, largest difference '
        f"from `SVI` relative to each tensor's largest number after {COMPARED_STEPS} steps of "
        "Adam from the same parameters and random state; speed is the median of five turns of "
        f"{sizes.timed_steps} steps of each. HMC: 8 chains × {sizes.draws} "
        f"draws. Importance sampling: {sizes.weights:,} draws of a guide after "
        f"{sizes.guide_steps:,} steps. AIS: 64 chains × {sizes.temperatures} temperatures from "
        "the prior. Evidence in nats, ± one standard error.\n"
    )


def _line(cells: Any) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _refusal(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def _sum(value: Tensor) -> str:
    return f"{float(value.sum()):.3f}"


# Training


def _training(record: Any, sizes: Sizes) -> list[str]:
    """Level or reason, difference from SVI, and relative speed."""
    try:
        level, off = _beside_svi(record)
        speed = _speed(record, sizes.timed_steps)
    except Exception as error:  # a row says what happened, whatever it was
        return [_refusal(error), "–", "–"]
    return [level, off, speed]


def _program(record: Any) -> inference.Program:
    return inference.Program(record.model, record.guide(record.model))


def _plate_size(record: Any) -> int:
    size, _ = data_plate_size(poutine.trace(record.model).get_trace(*record.args)) or (1, 1)
    return size


def _fit(record: Any, program: Any, steps: int, **options: Any) -> tuple[Any, str]:
    """A run, and its level or the reason why it is eager."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = inference.fit(
            program, record.args, steps=steps, seed=SEED, device="cpu", learning_rate=RATE,
            **options,
        )  # fmt: skip
    reasons = [str(w.message) for w in caught if "run eagerly" in str(w.message)]
    return run, reasons[0] if reasons else run.level


def _beside_svi(record: Any) -> tuple[str, str]:
    beginning: dict[str, Any] = {}

    def optimizer(parameters: Any, lr: float) -> torch.optim.Optimizer:
        # made between the creation of the parameters and the first step
        beginning["random"] = torch.get_rng_state()
        beginning["program"] = copy.deepcopy(program.state_dict())
        return torch.optim.Adam(parameters, lr=lr)

    program = _program(record)
    _, level = _fit(record, program, COMPARED_STEPS, compile="traced", optimizer=optimizer)
    prefix = "guide_program."
    svi, guide = _svi(record)
    guide.load_state_dict(
        {
            name.removeprefix(prefix): value
            for name, value in beginning["program"].items()
            if name.startswith(prefix)
        }
    )
    torch.set_rng_state(beginning["random"])
    for _ in range(COMPARED_STEPS):
        svi.step(*record.args)
    found = program.state_dict()
    off = max(
        float((found[prefix + name] - value).abs().max() / value.abs().max().clamp(min=1e-3))
        for name, value in guide.state_dict().items()
    )
    return level, f"{off:.0e}"


def _svi(record: Any) -> tuple[SVI, Any]:
    """Pyro's own loop, with the epsilon of Adam that makes up for `fit`'s smaller gradients."""
    pyro.clear_param_store()
    model = record.model
    guide = record.guide(model)
    guide(*record.args)  # an autoguide makes its parameters at the first call
    settings = {"lr": RATE, "eps": 1e-8 * _plate_size(record)}
    adam = pyro.optim.PyroOptim(torch.optim.Adam, settings)
    return SVI(model, guide, adam, Trace_ELBO()), guide


def _speed(record: Any, steps: int) -> str:
    """How many steps `fit` makes while SVI makes one, medians of five turns each."""
    program, size = _program(record), _plate_size(record)
    # a row of metrics for each turn; the first has the making of the graph in it
    run, _ = _fit(record, program, 6 * steps, compile="traced", log_every=steps)
    ours = [size * steps / line["datapoints_per_second"] for line in run.history[1:]]
    svi, _ = _svi(record)
    theirs = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(steps):
            svi.step(*record.args)
        theirs.append(time.perf_counter() - start)
    return f"{statistics.median(theirs) / statistics.median(ours):.1f}×"


# Sampling and evidence


def _sampled(record: Any, sizes: Sizes) -> list[str]:
    """How HMC evaluates the program, and the largest error of a mean in standard errors."""
    try:
        draws = inference.hmc(
            record.model, *record.args, num_chains=8, num_samples=sizes.draws,
            num_warmup=sizes.draws, seed=SEED,
        )  # fmt: skip
    except Exception as error:
        return [_refusal(error), "–"]
    way = Joint(record.model, *record.args).way
    if record.known is None:
        return [way, "not refused"]
    truth = record.truth()
    worst = 0.0
    for name, mean in truth.means.items():
        varies = truth.sds[name] > 0
        values = draws.samples[name].reshape(8, sizes.draws, -1)[..., varies]
        effective = effective_sample_size(values, chain_dim=0, sample_dim=1)
        spread = values.std((0, 1)) / effective.clamp(max=8.0 * sizes.draws).sqrt()
        off = (values.mean((0, 1)) - mean[varies]).abs() / spread
        worst = max(worst, float(off.max()))
    return [way, f"{worst:.1f}"]


def _weighed(record: Any, sizes: Sizes) -> list[str]:
    """The importance-sampled evidence, and k̂."""
    try:
        program = _program(record)
        _fit(record, program, sizes.guide_steps)
        found = inference.importance_evidence(
            program.model, program.guide, *record.args, num_samples=sizes.weights, seed=SEED
        )
    except Exception as error:
        return [_refusal(error), "–"]
    return [_with_error(found), f"{float(found.khat.max()):.2f}"]


def _annealed(record: Any, sizes: Sizes) -> str:
    try:
        found = inference.ais_evidence(
            record.model, *record.args, num_chains=64, num_temperatures=sizes.temperatures,
            seed=SEED,
        )  # fmt: skip
    except Exception as error:
        return _refusal(error)
    return _with_error(found)


def _with_error(found: Any) -> str:
    error = float(found.standard_error.square().sum().sqrt())
    return f"{_sum(found.log_evidence)} ± {error:.3f}"


if __name__ == "__main__":
    main()
