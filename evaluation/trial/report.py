"""The trust report: one page of HTML that opens from disk, verdict first."""

import base64
import html
import io
from collections.abc import Iterable
from typing import Any

from matplotlib.figure import Figure

from aevb.evaluation.limits import ESS_LIMIT, RHAT_LIMIT
from aevb.evaluation.trial.compare import Trial
from aevb.evaluation.trial.pictures import (
    calibration_pictures,
    check_pictures,
    data_picture,
    latents_picture,
    overview_pictures,
)
from aevb.evaluation.trial.verdict import counted, decimal, shown_p

__all__ = ["trial_page"]

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.verdict { border-left: 4px solid #47c; padding: .2rem 1rem; background: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .7rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid var(--line); padding: .5rem; }
figure img { width: 100%; height: auto; background: white; }
figcaption { font-size: .85rem; }
.small { max-width: 6rem; }
.wide { max-width: 36rem; }
p.note { font-size: .9rem; opacity: .85; }
"""


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
    """
    found = trial.summary()
    sections = [
        "<h1>What may be believed of this posterior</h1>",
        "<div class='verdict'>"
        + "".join(f"<p>{html.escape(line)}</p>" for line in trial.verdict())
        + "</div>",
        "<h2>The worst datapoints</h2>",
        "<p class='note'>By energy distance between the guide's draws and the chains'; two latent "
        "dimensions in which they differ most, on the unconstrained scale.</p>",
        _worst(trial, num_worst),
        "<h2>Evidence and gaps</h2>",
        _gaps(trial, found),
        "<h2>Calibration</h2>",
        _calibration(trial, found),
        "<h2>Predictive checks</h2>",
        _checks(trial, found),
        "<h2>Latents</h2>",
        _latents(trial, found),
        "<h2>Diagnostics</h2>",
        _chains(found),
        "<p class='note'>Errors and k̂ of all datapoints:</p>",
        _grid((picture, "") for picture in overview_pictures(trial.errors, trial.khat)),
        "<h2>Settings</h2>",
        _table((("setting", "value"),), settings.items()),
    ]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>Trust report</title><style>{_STYLE}</style></head><body>"
        + "\n".join(sections)
        + "</body></html>\n"
    )


def _worst(trial: Trial, num: int) -> str:
    errors = trial.errors
    figures = []
    for place in errors.worst[:num].tolist():
        judged = "" if trial.judged[place] else "; its chains did not converge"
        largest = float(errors.mean_error[place].abs().max())
        ratio = float(errors.log_scale_ratio[place].mean().exp())
        caption = (
            f"Datapoint {place}: energy distance {float(errors.energy_distance[place]):.3f} "
            f"(p = {float(errors.p_value[place]):.3f}), largest error of a mean {largest:.2f} sd, "
            f"sds × {ratio:.2f}, k̂ {decimal(trial.khat[place], 2)}{judged}"
        )
        image = None if trial.x is None else data_picture(trial.x[place])
        small = "" if image is None else f"<div class='small'>{_picture(image)}</div>"
        figures.append(_figure(trial.plot(place), caption, small))
    return f"<div class='grid'>{''.join(figures)}</div>"


def _gaps(trial: Trial, found: dict[str, Any]) -> str:
    if trial.gaps is None:
        return _missing(found, "gaps")
    rows = [
        (name.replace("_", " "),
         *(decimal(row[key], 3) for key in ("mean", "monte_carlo_error", "standard_error")))
        for name, row in found["gaps"].items() if isinstance(row, dict)
    ]  # fmt: skip
    annealed = trial.gaps.annealed
    note = "log p(x) by importance sampling"
    if annealed is not None:
        converged = int(annealed.is_trusted.sum())
        note += (
            f" or annealing from the refined posterior ({annealed.num_chains} chains × "
            f"{annealed.num_temperatures} temperatures; converged at {converged} of "
            f"{counted(len(annealed.log_evidence), 'datapoint')})"
        )
    part = found["gaps"]
    total = counted(part["num_datapoints"], "datapoint")
    if part["num_untrusted"]:
        note += (
            f"; at {part['num_untrusted']} of {total} no estimate may be trusted, and the "
            "largest, a lower bound, is taken"
        )
    if part["num_unrefined"]:
        note += (
            f"; refinement stopped before it converged at {part['num_unrefined']} of {total}, "
            "where the approximation gap is too large and the amortization gap too small"
        )
    header = (("nats per datapoint", "mean", "± Monte Carlo", "± over datapoints"),)
    return f"{_table(header, rows)}<p class='note'>{html.escape(note)}.</p>"


def _calibration(trial: Trial, found: dict[str, Any]) -> str:
    calibration = trial.calibration
    if calibration is None:
        return _missing(found, "calibration")
    rows = found["calibration"]["dimensions"]
    figures = calibration_pictures(calibration, _NUM_CURVES)
    captions = []
    for name in figures:
        row = rows[name]
        stray = f"; {row['fault']}" if row["strays"] else ""
        title = "log p(x, z)" if name == "log_joint" else name
        captions.append(f"{title}: {shown_p(row['p_value'])}{stray}")
    note = (
        f"{counted(len(calibration.ranks), 'latent')} were drawn from the prior, and data from "
        f"them: not the data of this trial. Each is ranked among {calibration.num_draws} draws "
        "of the guide given its data; of an exact guide 95 % of the curves stay within the grey "
        "band. A rise and then a fall stand for a guide that is too narrow, the reverse for one "
        "too wide, a hill for draws that are too high, a valley for draws that are too low; "
        "captions name the larger fault. Shown are the "
        f"worst latents and log p(x, z); orange ones stray even in view of the {len(rows)} "
        f"dimensions that were looked at ({shown_p(calibration.p_value)} over all)."
    )
    return _note(note) + _grid(zip(figures.values(), captions, strict=True))


def _checks(trial: Trial, found: dict[str, Any]) -> str:
    check = trial.predictive_checks
    if check is None:
        return _missing(found, "predictive_checks")
    part = found["predictive_checks"]
    rows = [
        (name.replace("_", " "), f"{row['observed']:.4g}", f"{row['replicated']:.4g}",
         f"{row['p_value_of_mean']:.3f}", f"{row['num_extreme']} of {part['num_datapoints']}",
         shown_p(row["chance_at_most"]))
        for name, row in part["statistics"].items()
    ]  # fmt: skip
    header = (
        ("statistic", "data", "replications", "p of the mean", "extreme", "chance, at most"),
    )
    note = (
        f"{check.num_draws:,} replications of each datapoint, from the guide's draws. Extreme: p "
        f"within {part['level'] / 2} of 0 or 1, as at most about "
        f"{part['expected_extreme_share_at_most']:.1%} of datapoints are with the right model and "
        "posterior. The last column bounds the chance of so many, or of such a mean, in view of "
        "all that was looked at. Posterior predictive p-values are conservative, since the "
        "posterior has seen the same data: a right model heaps them about one half. Heaps at 0 or "
        "1 are data unlike the model's."
    )
    captions = [name.replace("_", " ") for name in check.p_values]
    pictures = zip(check_pictures(check).values(), captions, strict=True)
    return _table(header, rows) + _note(note) + _grid(pictures)


def _latents(trial: Trial, found: dict[str, Any]) -> str:
    if trial.latents is None:
        return _missing(found, "latents")
    part = found["latents"]
    idle = part["active_units"] < part["latents"]
    note = (
        f"Mean KL from the prior over {counted(part['num_datapoints'], 'datapoint')}. "
        f"{part['active_units']} of {part['latents']} latents are active, that is, their "
        f"posterior means have a variance above {part['threshold']}"
        + ("; the others are grey." if idle else ".")
    )
    picture = latents_picture(trial.latents)
    return _note(note) + ("" if picture is None else _grid([(picture, "")], "wide"))


def _chains(found: dict[str, Any]) -> str:
    rows = [
        ("posteriors judged", f"{found['num_judged']} of {found['num_datapoints']}"),
        (f"largest R̂ (wanted: at most {RHAT_LIMIT})", decimal(found["rhat_worst"], 3)),
        (f"least bulk ESS (wanted: {ESS_LIMIT:.0f})", decimal(found["ess_bulk_least"], 0)),
        (f"least tail ESS (wanted: {ESS_LIMIT:.0f})", decimal(found["ess_tail_least"], 0)),
        ("divergent transitions", str(found["divergences"])),
        ("acceptance rate", f"{found['acceptance_rate']:.2f}"),
    ]
    return _table((("of the worst dimension of the worst datapoint", ""),), rows)


def _table(header: Iterable[tuple[str, ...]], rows: Iterable[tuple[Any, ...]]) -> str:
    def line(cells: Iterable[Any], tag: str) -> str:
        return "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells)

    head = "".join(f"<tr>{line(cells, 'th')}</tr>" for cells in header)
    body = "".join(f"<tr>{line(cells, 'td')}</tr>" for cells in rows)
    return f"<div class='scroll'><table>{head}{body}</table></div>"


def _missing(found: dict[str, Any], name: str) -> str:
    why = found[f"why_no_{name}"]
    return f"<p>None: {html.escape(why)}.</p>"


def _note(text: str) -> str:
    return f"<p class='note'>{html.escape(text)}</p>"


def _grid(pictures: Iterable[tuple[Figure, str]], kind: str = "grid") -> str:
    return f"<div class='{kind}'>{''.join(_figure(*each) for each in pictures)}</div>"


def _figure(figure: Figure, caption: str, before: str = "") -> str:
    text = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{before}{_picture(figure)}{text}</figure>"


def _picture(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='' src='data:image/png;base64,{data}'>"
