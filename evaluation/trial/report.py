"""The trust report: one page of HTML that opens from disk, verdict first."""

from collections.abc import Iterator
from typing import Any

from aevb.evaluation.limits import ESS_LIMIT, RHAT_LIMIT
from aevb.evaluation.trial import pictures
from aevb.evaluation.trial.found import Trial
from aevb.evaluation.trial.pages import page
from aevb.evaluation.trial.verdict import decimal, headline, shown_p, words

__all__ = ["trial_page"]

# Latents whose curve is shown, beside that of log p(x, z).
_NUM_CURVES = 5


def trial_page(trial: Trial, settings: dict[str, Any], num_worst: int = 9) -> str:
    """The trial of a guide as a self-contained page.

    Args:
        trial: From :func:`aevb.evaluation.compare`.
        settings: Shown at the end: model, data, seed, versions.
        num_worst: Datapoints shown with their draws, from the worst on.

    Returns:
        HTML, with all pictures inside.

    Example:
        >>> import torch
        >>> from aevb.evaluation import compare
        >>> from aevb.models import FactorAnalysis
        >>> fa, x = FactorAnalysis((5,), 2), torch.zeros(3, 5)
        >>> trial = compare(
        ...     fa,
        ...     x,
        ...     num_chains=4,
        ...     num_samples=100,
        ...     num_warmup=100,
        ...     num_simulations=0,
        ...     num_replications=0,
        ...     num_temperatures=0,
        ...     max_steps=50,
        ... )
        >>> trial_page(trial, {"seed": 0}).lstrip()[:15].lower()
        '<!doctype html>'
    """
    found = trial.summary()
    calibration, checks, latents = trial.calibration, trial.predictive_checks, trial.latents
    return page(
        "report.html.jinja",
        __package__,
        trial=trial,
        about=_about(settings),
        headline=headline(found, settings.get("run")),
        found=found,
        settings=settings,
        worst=_worst(trial, num_worst),
        gap_rows=_gap_rows(found.get("gaps", {})),
        check_rows=_check_rows(found.get("predictive_checks", {})),
        chain_rows=_chain_rows(found),
        calibration_pictures=calibration
        and pictures.calibration_pictures(calibration, _NUM_CURVES),
        check_pictures=checks and pictures.check_pictures(checks),
        latents_picture=latents and pictures.latents_picture(latents),
        overview_pictures=pictures.overview_pictures(trial.errors, trial.weights),
    )


def _about(settings: dict[str, Any]) -> dict[str, Any]:
    """Model, data and run, as far as the settings name them."""
    named = {key: settings[key] for key in ("model", "data", "run") if settings.get(key)}
    lines = [f"{key} {value}" for key, value in named.items()]
    if "epoch" in settings:
        lines.append(f"after {settings['epoch']:,} epochs")
    return {"name": named.get("run") or named.get("data"), "lines": lines}


def _worst(trial: Trial, num: int) -> Iterator[dict[str, Any]]:
    errors, judged = trial.errors, trial.judged
    for place in errors.worst[:num].tolist():
        yield {
            "place": place,
            "data": None if trial.x is None else pictures.data_picture(trial.x[place]),
            "draws": trial.plot(place),
            "names": " and ".join(pictures.worst_names(errors, place, trial.names)),
            "distance": float(errors.energy_distance[place]),
            "p": float(errors.p_value[place]),
            "largest": float(errors.mean_error[place].abs().max()),
            "ratio": float(errors.log_scale_ratio[place].mean().exp()),
            "khat": trial.khat[place],
            "judged": judged[place],
        }


def _gap_rows(part: dict[str, Any]) -> list[list[str]]:
    figures = ("mean", "monte_carlo_error", "standard_error")
    rows = {name: row for name, row in part.items() if isinstance(row, dict)}
    return [
        [words(name), *(decimal(row[key], 3) for key in figures)] for name, row in rows.items()
    ]


def _check_rows(part: dict[str, Any]) -> list[list[str]]:
    return [
        [
            words(name), f"{row['observed']:.4g}", f"{row['replicated']:.4g}",
            f"{row['p_value_of_mean']:.3f}", f"{row['num_extreme']} of {part['num_datapoints']}",
            shown_p(row["chance_at_most"]),
        ]
        for name, row in part.get("statistics", {}).items()
    ]  # fmt: skip


def _chain_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("posteriors judged", f"{found['num_judged']} of {found['num_datapoints']}"),
        (f"largest R̂ (wanted: at most {RHAT_LIMIT})", decimal(found["rhat_worst"], 3)),
        (f"least bulk ESS (wanted: {ESS_LIMIT:.0f})", decimal(found["ess_bulk_least"], 0)),
        (f"least tail ESS (wanted: {ESS_LIMIT:.0f})", decimal(found["ess_tail_least"], 0)),
        ("divergent transitions", str(found["divergences"])),
        ("acceptance rate", f"{found['acceptance_rate']:.2f}"),
    ]
