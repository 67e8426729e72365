"""What the figures of a trial say: in sentences, and in lines."""

from typing import Any

__all__ = ["counted", "sentences", "shown_p", "table"]

# Vehtari et al. (2021): chains beyond these are not to be used.
RHAT_LIMIT = 1.01
ESS_LIMIT = 400.0
# Vehtari et al. (2024), section 3.2.4: above 0.7 the sample size needed is impractical.
KHAT_LIMIT = 0.7
# Share of false ones among the datapoints whose draws are called different.
FALSE_DISCOVERY_RATE = 0.05

_FAULTS = {
    "too narrow": "too narrow for its errors (the truth lies in its tails too often)",
    "too wide": "too wide (the truth lies in its middle too often)",
    "too low": "shifted (its draws are too low)",
    "too high": "shifted (its draws are too high)",
}
# Fewer say little about a variance over the data.
_FEW_DATAPOINTS = 100


def sentences(found: dict[str, Any]) -> list[str]:
    """What may be believed of a guide.

    Args:
        found: From :meth:`aevb.evaluation.Trial.summary`.
    """
    lines = _against_chains(found)
    many, total = found["num_khat_above_0.7"], found["num_datapoints"]
    lines.append(
        f"Importance weights correct the guide at {total - many} of {total} datapoints "
        f"(k̂ at most {KHAT_LIMIT})" + (", and not at the others." if many else ".")
    )
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


def table(found: dict[str, Any]) -> str:
    """The figures in lines, with their errors.

    Args:
        found: From :meth:`aevb.evaluation.Trial.summary`.
    """
    rows = {name: _number(value) for name, value in found.items() if not isinstance(value, dict)}
    for name, row in found.get("gaps", {}).items():
        rows[name] = (
            f"{row['mean']:.3f} ± {row['monte_carlo_error']:.3f} "
            f"(over datapoints ± {row['standard_error']:.3f})"
        )
    if "calibration" in found:
        part = found["calibration"]
        rows["calibration"] = (
            f"{shown_p(part['p_value'])}, {part['num_simulations']} simulated datapoints × "
            f"{part['num_draws']} draws"
        )
        rows["miscalibrated"] = f"{part['num_straying']} of {len(part['dimensions'])} dimensions"
    if "predictive_checks" in found:
        part = found["predictive_checks"]
        for name, row in part["statistics"].items():
            rows[f"check {name}"] = (
                f"{row['observed']:.4g}, replicated {row['replicated']:.4g}; extreme at "
                f"{row['num_extreme']} of {part['num_datapoints']} datapoints"
            )
    if "latents" in found:
        part = found["latents"]
        over = f"over {part['num_datapoints']} datapoints"
        rows["active units"] = f"{part['active_units']} of {part['latents']} ({over})"
        rows["kl"] = f"{_kl(part)} ({over})"
    return "\n".join(f"{name.replace('_', ' '):<26}{value}" for name, value in rows.items())


def shown_p(value: float) -> str:
    """A p-value with its sign, as far as it means something."""
    return f"p = {value:.2g}" if value >= 1e-4 else "p < 0.0001"


def counted(count: int, noun: str) -> str:
    """A number with its noun: ``1 datapoint``, ``2,000 datapoints``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _against_chains(found: dict[str, Any]) -> list[str]:
    total, judged = found["num_datapoints"], found["num_judged"]
    lines = []
    if judged < total:
        lines.append(
            f"{total - judged} of {total} posteriors cannot be judged: their chains did not "
            f"converge (R̂ above {RHAT_LIMIT}, fewer than {ESS_LIMIT:.0f} effective draws, or "
            "divergences). Draw longer."
        )
    if judged:
        low = found["scale_ratio"] < 1
        lines.append(
            f"At {found['num_differing']} of {judged} judged posteriors the guide's draws "
            f"differ from the chains' (false discovery rate {FALSE_DISCOVERY_RATE}); its "
            "means are off by "
            f"{found['mean_error_rms']:.2f} posterior standard deviations (root mean square), "
            f"and its standard deviations are {abs(1 - found['scale_ratio']):.0%} too "
            f"{'small' if low else 'large'} on average."
        )
    return lines


def _gaps(found: dict[str, Any]) -> str:
    gap, family, network = (
        found[f"{name}_gap"] for name in ("inference", "approximation", "amortization")
    )
    larger = "family" if family["mean"] > network["mean"] else "encoder"
    return (
        f"Its ELBO is {_pm(gap)} nats below log p(x): {_pm(family)} for its family and "
        f"{_pm(network)} for amortization, so that a better {larger} would gain more "
        "(± Monte Carlo error)."
    )


def _calibration(found: dict[str, Any]) -> str:
    where = (
        f"On {found['num_simulations']:,} datapoints simulated from the model itself, which are "
        "not the data above,"
    )
    dimensions, p = found["dimensions"], shown_p(found["p_value"])
    if found["is_calibrated"]:
        return (
            f"{where} the guide looks calibrated: nothing speaks against it in any of "
            f"{len(dimensions)} dimensions ({p})."
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
            f"in {len(stray)} of {len(dimensions)} dimensions, worst of the latents in {latent}, "
            f"where it is {_FAULTS[stray[latent]['fault']]}"
        )
    return f"{where} the guide is not calibrated ({p}): {wrong}."


def _predictive(found: dict[str, Any]) -> str:
    rows, total = found["statistics"], found["num_datapoints"]
    surprising = [_words(name) for name, row in rows.items() if row["chance_at_most"] < 0.05]
    if not surprising and not any(row["num_extreme"] for row in rows.values()):
        names = " or ".join(map(_words, rows))
        return (
            f"None of {total} datapoints is unlike the model's replications of it by {names}. "
            "Such checks are conservative: they do not show that the model fits."
        )
    counts = ", ".join(f"{row['num_extreme']} by {_words(name)}" for name, row in rows.items())
    most = found["expected_extreme_share_at_most"] * total
    said = (
        f"Of {total} datapoints {counts} are unlike the model's replications of them (posterior "
        f"predictive p within {found['level'] / 2} of 0 or 1; with the right model and posterior "
        f"at most about {most:.1f} on average by each)"
    )
    if not surprising:
        return f"{said}, which chance alone may give."
    return (
        f"{said}: model or guide misses something of these data, seen in their "
        f"{', '.join(surprising)}, by that count or by the mean over them all."
    )


def _latents(found: dict[str, Any]) -> str:
    count = found["num_datapoints"]
    few = "; few for such a count" if count < _FEW_DATAPOINTS else ""
    return (
        f"{found['active_units']} of {found['latents']} latents are active (their posterior means "
        f"have a variance above {found['threshold']} over {count:,} datapoints{few}); the guide's "
        f"KL from the prior is {_kl(found)} nats per datapoint."
    )


def _kl(found: dict[str, Any]) -> str:
    error = found["kl_error"]
    return f"{found['kl']:.2f}" + (f" ± {error:.2f}" if error else "")


def _pm(row: dict[str, float]) -> str:
    return f"{row['mean']:.2f} ± {row['monte_carlo_error']:.2f}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
