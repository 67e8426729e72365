"""What the figures of a trial say: in sentences, and in lines."""

import math
from typing import Any

from aevb.evaluation.limits import ESS_LIMIT, FALSE_DISCOVERY_RATE, RHAT_LIMIT

__all__ = ["counted", "decimal", "headline", "sentences", "shown_p", "table", "words"]


_FAULTS = {
    "too narrow": "too narrow for its errors (the truth lies in its tails too often)",
    "too wide": "too wide (the truth lies in its middle too often)",
    "too low": "shifted (its draws are too low)",
    "too high": "shifted (its draws are too high)",
}
# Fewer say little about a variance over the data.
_FEW_DATAPOINTS = 100
# Fewer simulations or replications have little power against any guide.
_FEW_DRAWS = 100
# Standard errors by which two gaps must differ for one to be called larger.
_CLEAR = 2.0
# Part of the datapoints that may lack a diagnostic when a mean over them is compared.
_LACKING = 0.05


def sentences(found: dict[str, Any]) -> list[str]:
    """What may be believed of a guide.

    Args:
        found: From :meth:`aevb.evaluation.Trial.summary`.
    """
    lines = [*_against_chains(found), _weights(found)]
    parts = {
        "gaps": ("gaps", _gaps),
        "calibration": ("calibration", _calibration),
        "predictive_checks": ("predictive checks", _predictive),
        "latents": ("active units", _latents),
    }
    for name, (title, said) in parts.items():
        missing = f"No {title}: {found.get(f'why_no_{name}')}."
        lines.append(said(found[name]) if name in found else missing)
    return lines


def headline(found: dict[str, Any], run: str | None = None) -> dict[str, str]:
    """The verdict in one line, its colour, and what to do next.

    Args:
        found: From :meth:`aevb.evaluation.Trial.summary`.
        run: Folder of the run, where it is one; commands are for it, and else functions.

    Returns:
        ``level``, one of good, fair and bad; its ``word``; ``text``; and ``next``.
    """
    total, judged, differing = (
        found[f"num_{name}"] for name in ("datapoints", "judged", "differing")
    )
    corrected = found["num_corrected"]
    repair = f"aevb posterior {run}" if run else "aevb.inference.posterior(program, x)"
    longer = f"aevb compare {run} --num_samples 2000 --num_warmup 2000"
    longer = longer if run else "aevb.evaluation.compare(program, x, num_samples=2000)"
    calibrated = "calibration" not in found or found["calibration"]["is_calibrated"]
    if judged < (1 - _LACKING) * total:
        level, text, following = (
            "fair",
            f"The chains mixed at {judged or 'none'} of {counted(total, 'datapoint')}: draw "
            "longer before anything is believed.",
            longer,
        )
    elif differing <= _LACKING * judged and calibrated:
        level, text, following = (
            "good",
            f"The guide agrees with the chains at {judged - differing} of "
            f"{counted(judged, 'datapoint')}: its draws may be used as they are.",
            f"aevb evaluate {run}"
            if run
            else "aevb.inference.importance_evidence(model, guide, x)",
        )
    elif corrected >= (1 - _LACKING) * total:
        level, text, following = (
            "fair",
            f"The guide is off, but importance weights correct it at {corrected} of "
            f"{counted(total, 'datapoint')}: use its draws with their weights.",
            repair,
        )
    else:
        where = f"{differing} of {counted(judged, 'datapoint')}" if differing else "simulated data"
        level, text, following = (
            "bad",
            f"The guide is wrong at {where}, and importance weights correct it at {corrected} of "
            f"{total}: its draws need repair.",
            repair,
        )
    word = {"good": "Green.", "fair": "Amber.", "bad": "Red."}[level]
    return {"level": level, "word": word, "text": text, "next": following}


def table(found: dict[str, Any]) -> str:
    """The figures in lines, with their errors.

    Args:
        found: From :meth:`aevb.evaluation.Trial.summary`.
    """
    rows = {name: _number(value) for name, value in found.items() if not isinstance(value, dict)}
    if "gaps" in found:
        part = found["gaps"]
        for name, row in part.items():
            if isinstance(row, dict):
                over = decimal(row["standard_error"], 3)
                rows[name] = f"{_pm(row, 3)} (over datapoints ± {over})"
        for name in ("untrusted", "unrefined"):
            rows[name] = f"{part[f'num_{name}']} of {counted(part['num_datapoints'], 'datapoint')}"
    if "calibration" in found:
        part = found["calibration"]
        rows["calibration"] = (
            f"{shown_p(part['p_value'])}, "
            f"{counted(part['num_simulations'], 'simulated datapoint')} × "
            f"{counted(part['num_draws'], 'draw')}"
        )
        rows["miscalibrated"] = (
            f"{part['num_straying']} of {counted(len(part['dimensions']), 'dimension')}"
        )
    if "predictive_checks" in found:
        part = found["predictive_checks"]
        for name, row in part["statistics"].items():
            rows[f"check {name}"] = (
                f"{row['observed']:.4g}, replicated {row['replicated']:.4g}; extreme at "
                f"{row['num_extreme']} of {counted(part['num_datapoints'], 'datapoint')}"
            )
    if "latents" in found:
        part = found["latents"]
        over = f"over {counted(part['num_datapoints'], 'datapoint')}"
        rows["active units"] = f"{part['active_units']} of {part['latents']} ({over})"
        rows["kl"] = f"{_kl(part)}, {over}"
    return "\n".join(f"{name.replace('_', ' '):<26}{value}" for name, value in rows.items())


def shown_p(value: float) -> str:
    """A p-value with its sign, as far as it means something."""
    return f"p = {value:.2g}" if value >= 1e-4 else "p < 0.0001"


def decimal(value: float | None, digits: int) -> str:
    """A number with so many digits, never "-0.00"; a dash if it is not defined."""
    return "–" if value is None or not math.isfinite(value) else f"{value:z.{digits}f}"


def counted(count: int, noun: str) -> str:
    """A number with its noun: ``1 datapoint``, ``2,000 datapoints``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _against_chains(found: dict[str, Any]) -> list[str]:
    total, judged = found["num_datapoints"], found["num_judged"]
    lines = []
    if judged < total:
        lines.append(
            f"{total - judged} of {counted(total, 'posterior')} cannot be judged: their "
            f"chains did not converge (R̂ above {RHAT_LIMIT}, fewer than {ESS_LIMIT:.0f} effective "
            "draws, or divergences). Draw longer."
        )
    if judged:
        low = found["scale_ratio"] < 1
        lines.append(
            f"At {found['num_differing']} of {counted(judged, 'judged posterior')} the guide's "
            f"draws differ from the chains' (false discovery rate {FALSE_DISCOVERY_RATE}); its "
            "means are off by "
            f"{found['mean_error_rms']:.2f} posterior standard deviations (root mean square), "
            f"and its standard deviations are {abs(1 - found['scale_ratio']):.0%} too "
            f"{'small' if low else 'large'} on average."
        )
    return lines


def _weights(found: dict[str, Any]) -> str:
    total, undefined = found["num_datapoints"], found["num_khat_undefined"]
    corrected = found["num_corrected"]
    if undefined:
        return "Whether importance weights correct the guide is unknown below 25 samples (k̂)."
    where = f"{corrected or 'none'} of {counted(total, 'datapoint')}"
    return f"Importance weights correct the guide at {where}, as far as k̂ tells."


def _gaps(found: dict[str, Any]) -> str:
    gap, family, network = (
        found[f"{name}_gap"] for name in ("inference", "approximation", "amortization")
    )
    total, bounded, unrefined = (
        found[f"num_{name}"] for name in ("datapoints", "untrusted", "unrefined")
    )
    said = f"Its ELBO is {'at least ' if bounded else ''}{_pm(gap)} nats below log p(x)"
    if bounded:
        said += f", which is only bounded from below at {bounded} of {total}"
    said += (
        f": {_pm(family)} for its family and {_pm(network)} for amortization (± Monte Carlo error)"
    )
    if unrefined:
        said += (
            f"; refinement stopped early at {unrefined} of {total}, where the family's part is "
            "too large and amortization's too small"
        )
    larger = _larger(found["difference_of_gaps"], bounded / total, unrefined / total)
    if larger is None:
        return f"{said}. Which of the two is larger cannot be told."
    other = {"encoder": "family", "family": "encoder"}[larger]
    return f"{said}. A better {larger} would gain more than a better {other}."


def _larger(difference: dict[str, Any], bounded: float, unrefined: float) -> str | None:
    """Which part of the gap; shares of datapoints where one of them is only bounded from below."""
    mean, error = difference["mean"], difference["monte_carlo_error"]
    if mean is None or error is None or abs(mean) <= _CLEAR * error:
        return None
    if mean > 0:  # less refinement than there could be moves nats from amortization to the family
        return "family" if unrefined <= _LACKING else None
    return "encoder" if bounded <= _LACKING else None


def _calibration(found: dict[str, Any]) -> str:
    count = found["num_simulations"]
    where = (
        f"On {counted(count, 'datapoint')} simulated from the model itself, which are not the "
        "data above,"
    )
    dimensions, p = found["dimensions"], shown_p(found["p_value"])
    if found["is_calibrated"] and count < _FEW_DRAWS:
        return (
            f"{where} nothing speaks against the guide ({p}), but these are too few simulations "
            f"({count}) to tell."
        )
    if found["is_calibrated"]:
        return (
            f"{where} the guide looks calibrated: nothing speaks against it in any of "
            f"{counted(len(dimensions), 'dimension')} ({p})."
        )
    stray = {name: row for name, row in dimensions.items() if row["strays"]}
    latent = next((name for name in stray if name != "log_joint"), None)
    if latent is None:
        wrong = (
            f"only in log p(x, z), which is {stray['log_joint']['fault']} at its draws, and in no "
            "single latent"
        )
    else:
        wrong = (
            f"in {len(stray)} of {counted(len(dimensions), 'dimension')}, worst of the latents in "
            f"{latent}, where it is {_FAULTS[stray[latent]['fault']]}"
        )
    return f"{where} the guide is not calibrated ({p}): {wrong}."


def _predictive(found: dict[str, Any]) -> str:
    rows, total = found["statistics"], found["num_datapoints"]
    count = found["num_replications"]
    few = f" These are too few replications ({count}) to tell." if count < _FEW_DRAWS else ""
    surprising = [words(name) for name, row in rows.items() if row["chance_at_most"] < 0.05]
    if not surprising and not any(row["num_extreme"] for row in rows.values()):
        names = " or ".join(map(words, rows))
        return (
            f"None of {counted(total, 'datapoint')} is unlike the model's replications of it by "
            f"{names}. "
            + (
                few.strip()
                or "Such checks are conservative: they do not show that the model fits."
            )
        )
    counts = ", ".join(f"{row['num_extreme']} by {words(name)}" for name, row in rows.items())
    most = found["expected_extreme_share_at_most"] * total
    said = (
        f"Of {counted(total, 'datapoint')} {counts} are unlike the model's replications of them "
        f"(posterior predictive p within {found['level'] / 2} of 0 or 1; with the right model "
        f"and posterior at most about {most:.1f} on average by each)"
    )
    if not surprising:
        return f"{said}, which chance alone may give.{few}"
    return (
        f"{said}: model or guide misses something of these data, seen in their "
        f"{', '.join(surprising)}, by that count or by the mean over them all."
    )


def _latents(found: dict[str, Any]) -> str:
    count = found["num_datapoints"]
    few = "; few for such a count" if count < _FEW_DATAPOINTS else ""
    return (
        f"{found['active_units']} of {found['latents']} latents are active (their posterior means "
        f"have a variance above {found['threshold']} over {counted(count, 'datapoint')}{few}); "
        f"the guide's KL from the prior is {_kl(found)}."
    )


def _kl(found: dict[str, Any]) -> str:
    if found["kl"] is None:
        return f"not defined: {found['why_no_kl']}"
    error = found["kl_error"]
    said = decimal(found["kl"], 2) + (f" ± {decimal(error, 2)}" if error else "")
    return f"{said} nats per datapoint"


def _pm(row: dict[str, Any], digits: int = 2) -> str:
    error = row["monte_carlo_error"]
    mean = decimal(row["mean"], digits)
    return mean if error is None else f"{mean} ± {decimal(error, digits)}"


def words(name: str) -> str:
    """A figure's name in words."""
    return name.replace("_", " ")


def _number(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return f"{value:z.4g}" if isinstance(value, float) else str(value)
