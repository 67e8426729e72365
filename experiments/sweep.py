"""Every prior with every likelihood, posterior and objective, on data of a dozen numbers.

Run: ``python -m experiments.sweep --out table.md``; with ``--quick`` only so many combinations
that any two parts meet, which takes seconds in place of a quarter of an hour.
"""

import argparse
import itertools
import math
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from aevb import inference, models
from aevb.cli.parts import FAMILIES, members
from aevb.inference import FreeBits, Objective
from aevb.inference.programs.joint import Joint
from aevb.models import Likelihood, Posterior, Prior

__all__ = ["Outcome", "axes", "combinations", "covering", "examine", "main", "summary"]

# Smaller than their defaults, so that a combination takes milliseconds.
_SMALL: dict[str, dict[str, Any]] = {
    "VampPrior": {"components": 3},
    "MixtureOfGaussians": {"components": 3},
    "NormalizingFlow": {"layers": 2, "hidden": (6,)},
    "InverseAutoregressiveFlow": {"layers": 1, "hidden": (6,)},
    "PlanarFlow": {"layers": 1},
    "Binomial": {"total_count": 3},
    "Categorical": {"num_classes": 3},
    "DiscretizedLogistic": {"levels": 4},
    "DiscretizedLogisticMixture": {"components": 2, "levels": 4},
    "IWAE": {"num_particles": 3},
    "DReG": {"num_particles": 3},
    "FreeBits": {"nats": 1e-6},  # more would leave a prior without gradients, as it should
}
_EXTRA: dict[str, list[dict[str, Any]]] = {
    "ELBO": [{"num_particles": 3}, {"analytic_kl": True}],
    "BetaELBO": [{"beta": 2.0, "warmup_steps": 2}],
    "NormalizingFlow": [{"layers": 2, "hidden": (6,), "coupling": True}],
}
_LEFT_OUT = {"EnumeratedELBO"}  # of models without discrete latents it is the ELBO
_AXES = ("prior", "likelihood", "posterior", "objective")
_SHAPE = (4,)
_LATENT_DIM = 3
_DATAPOINTS = 6
_DRAWS = 200

Combination = tuple[Prior, Likelihood, Posterior, Objective]


@dataclass(frozen=True)
class Outcome:
    """What became of one combination.

    Attributes:
        parts: The four parts.
        verdict: ``"trains"``, ``"refused"`` or ``"fails"``.
        reason: Why it was refused, or what is wrong.
    """

    parts: Combination
    verdict: str
    reason: str = ""

    def row(self) -> dict[str, str]:
        """As text, by axis."""
        shown = dict(zip(_AXES, map(repr, self.parts), strict=True))
        return {**shown, "verdict": self.verdict, "reason": self.reason}


def main(words: Sequence[str] | None = None) -> None:
    """Print the table, and write it to ``--out``."""
    parser = argparse.ArgumentParser(description="train every combination of parts three steps")
    parser.add_argument("--quick", action="store_true", help="only until any two parts have met")
    parser.add_argument("--seed", type=int, default=0, help="of data, weights and draws")
    parser.add_argument("--out", type=Path, help="table to write, .md")
    flags = parser.parse_args(words)
    chosen = covering() if flags.quick else list(combinations())
    table = summary(examine(parts, flags.seed) for parts in tqdm(chosen, leave=False))
    print(table)  # noqa: T201
    if flags.out is not None:
        flags.out.write_text(f"# Every combination of parts\n\n{table}\n")


def axes() -> dict[str, list[Any]]:
    """Small examples of every exported part, by axis."""
    return {
        axis: [
            part(**settings)
            for part in members(*FAMILIES[axis])
            if part.__name__ not in _LEFT_OUT
            for settings in [_SMALL.get(part.__name__, {}), *_EXTRA.get(part.__name__, [])]
        ]
        for axis in _AXES
    }


def combinations() -> Iterator[Combination]:
    """All of them."""
    yield from itertools.product(*axes().values())


def covering() -> list[Combination]:
    """Few of them, in which any two parts of different axes meet."""
    parts = list(axes().values())
    wanted = {
        (i, a, j, b)
        for i, j in itertools.combinations(range(len(parts)), 2)
        for a in range(len(parts[i]))
        for b in range(len(parts[j]))
    }
    generator = torch.Generator().manual_seed(0)
    chosen = []
    while wanted:
        i, a, j, b = min(wanted)
        best: tuple[int, list[int]] = (-1, [])
        for _ in range(30):
            trial = [int(torch.randint(len(p), (), generator=generator)) for p in parts]
            trial[i], trial[j] = a, b
            gain = len(_pairs(trial) & wanted)
            best = max(best, (gain, trial))
        wanted -= _pairs(best[1])
        chosen.append(tuple(part[n] for part, n in zip(parts, best[1], strict=True)))
    return chosen


def examine(parts: Combination, seed: int = 0) -> Outcome:
    """Train three steps, and look at everything that the product of parts promises.

    Either construction refuses the parts with a reason, or training is finite, moves every
    parameter, survives a checkpoint, and its ELBO is below the importance-sampled evidence within
    five standard errors.

    Args:
        parts: Prior, likelihood, posterior, objective.
        seed: Of data, weights and draws.
    """
    prior, likelihood, posterior, objective = parts
    torch.manual_seed(seed)
    x = _data(likelihood)
    try:
        program = models.VAE(
            _SHAPE, _LATENT_DIM, [5], prior=prior, likelihood=likelihood, posterior=posterior
        )
        before = {name: value.clone() for name, value in program.state_dict().items()}
        with tempfile.TemporaryDirectory() as folder:
            run = inference.fit(
                program, x, objective=objective, steps=3, batch_size=_DATAPOINTS, seed=seed,
                device="cpu", compile="eager", out=folder, progress=False,
            )  # fmt: skip
            state = inference.load_checkpoint(Path(folder) / inference.CHECKPOINT)
    except ValueError as error:
        reason = " ".join(str(error).split())
        # a refusal names the part that refuses; anything else is a mistake
        refused = any(reason.startswith(type(part).__name__) for part in parts)
        return Outcome(parts, "refused" if refused else "fails", reason)
    except (ArithmeticError, RuntimeError, TypeError, NotImplementedError) as error:
        return Outcome(parts, "fails", f"{type(error).__name__}: {' '.join(str(error).split())}")
    problem = _problem(program, run, before, state, x, seed, objective)
    return Outcome(parts, "fails" if problem else "trains", problem)


def summary(outcomes: Iterable[Outcome]) -> str:
    """How many combinations of each part train, and the reasons of the others, as Markdown."""
    outcomes = list(outcomes)
    lines = ["| axis | part | trains | refused | fails |", "| --- | --- | --: | --: | --: |"]
    for number, axis in enumerate(_AXES):
        counts: dict[str, Counter[str]] = {}
        for outcome in outcomes:
            counts.setdefault(repr(outcome.parts[number]), Counter())[outcome.verdict] += 1
        for part, count in counts.items():
            figures = " | ".join(f"{count[v]:,}" for v in ("trains", "refused", "fails"))
            lines.append(f"| {axis} | `{part}` | {figures} |")
    total = Counter(outcome.verdict for outcome in outcomes)
    shown = ", ".join(f"{total[v]:,} {v}" for v in ("trains", "refused", "fails"))
    lines += ["", f"{len(outcomes):,} combinations: {shown}.", ""]
    reasons = Counter((o.verdict, o.reason) for o in outcomes if o.verdict != "trains")
    lines += [f"- {verdict}, {n:,} ×: {reason}" for (verdict, reason), n in reasons.most_common()]
    return "\n".join(lines)


def _pairs(numbers: list[int]) -> set[tuple[int, int, int, int]]:
    return {(i, numbers[i], j, numbers[j]) for i, j in itertools.combinations(range(4), 2)}


def _data(likelihood: Likelihood) -> Tensor:
    """Data on the support: draws of the likelihood itself."""
    with torch.no_grad():
        module = likelihood.build(2, _SHAPE)
        return module(torch.randn(_DATAPOINTS, 2)).sample()


def _problem(
    program: models.VAE,
    run: inference.Run,
    before: dict[str, Tensor],
    state: dict[str, Any],
    x: Tensor,
    seed: int,
    objective: Objective,
) -> str:
    """The first promise that is not kept, or nothing."""
    if not math.isfinite(run.history[-1]["train_objective"]):
        return "the objective is not finite"
    after = program.state_dict()
    trainable = [name for name, p in program.named_parameters() if p.requires_grad]
    still = [name for name in trainable if torch.equal(before[name], after[name])]
    if isinstance(objective, FreeBits):
        # a divergence estimated from one draw may fall below any floor, and then has no gradient
        still = [name for name in still if not name.startswith("prior.")]
    if still:
        return f"no gradient reaches {', '.join(still)}"
    if any(not torch.equal(state["weights"][name], value) for name, value in after.items()):
        return "the checkpoint holds other weights"
    if isinstance(program.parts[2], models.Delta):
        return ""  # a point mass has no evidence
    return _bound_problem(program, x, seed)


def _bound_problem(program: models.VAE, x: Tensor, seed: int) -> str:
    """Whether the ELBO of some draws exceeds the evidence of others."""
    callables = program.model, program.guide
    joint = Joint(program.model, x, guide=program.guide)
    torch.manual_seed(seed + 1)
    latents, log_q = joint.draw(_DRAWS)
    elbos = joint.log_joint(latents) - log_q
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of k̂, which three steps cannot make small
        evidence = inference.importance_evidence(*callables, x, num_samples=_DRAWS, seed=seed)
    elbo, error = elbos.mean(0), elbos.std(0) / math.sqrt(_DRAWS)
    allowed = 5 * (error.square() + evidence.standard_error.square()).sqrt() + 1e-4
    above = elbo - evidence.log_evidence - allowed
    if not bool((above <= 0).all()):
        return f"the ELBO exceeds the evidence by {float(above.max()):.3g} nats"
    return ""


if __name__ == "__main__":
    main()
