"""What a command returns: figures for programs, and a few lines for people."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "Told",
    "counted",
    "evidence_lines",
    "in_short",
    "next_steps",
    "of_run",
    "rows",
    "sentence",
    "with_error",
]


class Told(dict[str, Any]):
    """The figures of a command, which ``--json`` prints, with the text that is printed otherwise.

    Args:
        figures: JSON-able.
        text: Lines for a person.

    Example:
        >>> told = Told({"mse": 0.5}, "Off by 0.5.")
        >>> told["mse"], told.text
        (0.5, 'Off by 0.5.')
    """

    def __init__(self, figures: dict[str, Any], text: str) -> None:
        super().__init__(figures)
        self.text = text


def in_short(model: Any) -> str:
    """A model by its name and sizes.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> in_short(FactorAnalysis((5,), 2))
        'FactorAnalysis (2 latents, 20 parameters)'
    """
    sizes = []
    latents = getattr(model, "latent_dim", None)
    if isinstance(latents, int):
        sizes.append(counted(latents, "latent"))
    sizes.append(counted(sum(p.numel() for p in model.parameters()), "parameter"))
    return f"{type(model).__name__} ({', '.join(sizes)})"


def counted(count: int, noun: str) -> str:
    """A number with its noun."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def with_error(mean: float | None, error: float | None, digits: int = 2) -> str:
    """A mean with its standard error; a dash stands for what is not defined.

    Example:
        >>> with_error(-23.7104, 0.2251), with_error(1.0, None)
        ('-23.71 ± 0.23', '1.00 ± –')
    """
    return f"{_decimal(mean, digits)} ± {_decimal(error, digits)}"


def _decimal(value: float | None, digits: int) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:z,.{digits}f}"


def rows(entries: Mapping[str, str | None]) -> str:
    """Lines of a name and what there is to say of it; None is left out."""
    shown = {name: text for name, text in entries.items() if text}
    width = max(map(len, shown), default=0)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in shown.items())


def evidence_lines(figures: dict[str, Any]) -> dict[str, str | None]:
    """Bound, evidence and verdict of an evaluation, a line each.

    Args:
        figures: Of ``aevb evaluate``.
    """
    if figures.get("verdict") is None:
        return {"evidence": f"none: {figures.get('why')}"}
    on = counted(figures["num_datapoints"], f"{figures['split']} datapoint")
    unit = "nats per datapoint"
    bound = None
    if "elbo" in figures:
        bound = f"ELBO {with_error(figures['elbo'], figures['elbo_standard_error'])} {unit}"
    if "lower" in figures:
        gap = with_error(figures["gap"], figures["gap_standard_error"])
        lower, upper = (_decimal(figures[side], 2) for side in ("lower", "upper"))
        evidence = f"log p(x) between {lower} and {upper} {unit}, a gap of {gap}"
    else:
        sign = {"trusted": "=", "lower bound": "≥"}.get(figures["verdict"], "≈")
        mean = with_error(figures["log_evidence"], figures["standard_error"])
        noise = _decimal(figures["monte_carlo_error"], 3)
        evidence = f"log p(x) {sign} {mean} {unit} (Monte Carlo error {noise})"
    bits = figures.get("bits_per_dimension")
    return {
        "bound": bound,
        "evidence": evidence,
        "": f"by {figures['estimator']} on {on}"
        + (f"; {bits:.3f} bits per dimension" if bits else ""),
        "verdict": sentence(figures),
    }


def sentence(figures: dict[str, Any]) -> str:
    """What may be believed of an evaluation."""
    verdict, total = figures["verdict"], figures["num_datapoints"]
    if verdict == "trusted":
        where = figures.get("untrusted", 0)
        passed = "every datapoint passes" if not where else f"{total - where} of {total} pass"
        one = "the bounds hold" if "lower" in figures else "the evidence may be believed"
        return f"trusted: {one}, {passed if 'untrusted' in figures else 'chains pass'} its test"
    if figures.get("proposal") == "guide" and figures.get("khat_median") is not None:
        return (
            f"{figures['untrusted']:,} of {counted(total, 'datapoint')} need a better posterior "
            f"than the guide's: `aevb posterior {figures['run']}`"
        )
    if figures.get("proposal") == "refined" and figures.get("khat_median") is not None:
        return (
            f"{figures['untrusted']:,} of {counted(total, 'datapoint')} need more than a proposal "
            f"fitted to each: `{figures['better']}`"
        )
    return f"{verdict}: {figures['why']}"


def next_steps(steps: Sequence[tuple[str, str]]) -> str:
    """Commands to go on with, and what each is for."""
    width = max(len(command) for command, _ in steps)
    return "\n".join(["next:", *(f"  {c:<{width}}  {text}" for c, text in steps)])


def of_run(folder: Path) -> dict[str, tuple[str, str]]:
    """The commands that a run can be given, by name, with what each is for."""
    return {
        "evaluate": (
            f"aevb evaluate {folder} --proposal refined",
            "evidence by a proposal fitted to each datapoint",
        ),
        "annealing": (f"aevb evaluate {folder} --estimator ais", "evidence by annealing"),
        "posterior": (f"aevb posterior {folder}", "posteriors that pass their test"),
        "compare": (f"aevb compare {folder}", "where the guide is wrong, against chains"),
        "sample": (f"aevb sample {folder}", "draws from the model"),
        "embed": (f"aevb embed {folder}", "where the posterior puts the data"),
    }
