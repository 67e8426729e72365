"""The trust report: one page of HTML that opens from disk, verdict first."""

import base64
import html
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from aevb.evaluation.trial import ESS_LIMIT, KHAT_LIMIT, RHAT_LIMIT, Trial

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
.wide img { width: 100%; max-width: 44rem; height: auto; background: white; }
p.note { font-size: .9rem; opacity: .85; }
"""


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
        "<h2>All datapoints</h2>",
        f"<div class='wide'>{_picture(_overview(trial))}</div>",
        "<h2>Chains</h2>",
        _chains(found),
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
            f"sds × {ratio:.2f}, k̂ {trial.khat[place]:.2f}{judged}"
        )
        picture = _picture(trial.plot(place))
        image = _image(trial.x[place])
        figures.append(
            f"<figure>{image}{picture}<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    return f"<div class='grid'>{''.join(figures)}</div>"


def _image(x: Tensor) -> str:
    """A datapoint that has the shape of a picture, small."""
    if x.ndim not in (2, 3):
        return ""
    values = x.movedim(0, -1) if x.ndim == 3 else x
    low, high = float(values.min()), float(values.max())
    figure = Figure(figsize=(1.1, 1.1), layout="constrained")
    axes = figure.subplots()
    axes.imshow((values.numpy() - low) / max(high - low, 1e-9), cmap="gray")
    axes.axis("off")
    return f"<div style='max-width:6rem'>{_picture(figure)}</div>"


def _overview(trial: Trial) -> Figure:
    """Errors of all datapoints at a glance."""
    figure = Figure(figsize=(10, 3), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.hist(trial.errors.mean_error.flatten().numpy(), bins=40)
    left.set_xlabel("error of means, posterior sds")
    middle.hist(trial.errors.log_scale_ratio.exp().flatten().numpy(), bins=40)
    middle.axvline(1.0, color="grey", linestyle="--")
    middle.set_xlabel("guide's sd over the chains'")
    khat = trial.khat[np.isfinite(trial.khat)]
    if len(khat):
        right.hist(khat, bins=40)
    right.axvline(KHAT_LIMIT, color="grey", linestyle="--")
    right.set_xlabel("Pareto k̂ of the importance weights")
    return figure


def _gaps(trial: Trial, found: dict[str, Any]) -> str:
    if trial.gaps is None:
        return f"<p>{html.escape(found['why_no_gaps'])}</p>"
    rows = [
        (name.replace("_", " "), f"{row['mean']:.3f}", f"{row['monte_carlo_error']:.3f}",
         f"{row['standard_error']:.3f}")
        for name, row in found["gaps"].items()
    ]  # fmt: skip
    annealed = trial.gaps.annealed
    note = "log p(x) by importance sampling"
    if annealed is not None:
        converged = int(annealed.is_converged.sum())
        note += (
            f" or annealing from the refined posterior ({annealed.num_chains} chains × "
            f"{annealed.num_temperatures} temperatures; converged at {converged} of "
            f"{len(annealed.log_evidence)} datapoints)"
        )
    header = (("nats per datapoint", "mean", "± Monte Carlo", "± over datapoints"),)
    return f"{_table(header, rows)}<p class='note'>{html.escape(note)}.</p>"


def _chains(found: dict[str, Any]) -> str:
    rows = [
        ("posteriors judged", f"{found['num_judged']} of {found['num_datapoints']}"),
        (f"largest R̂ (wanted: at most {RHAT_LIMIT})", f"{found['rhat_worst']:.3f}"),
        (f"least bulk ESS (wanted: {ESS_LIMIT:.0f})", f"{found['ess_bulk_least']:.0f}"),
        (f"least tail ESS (wanted: {ESS_LIMIT:.0f})", f"{found['ess_tail_least']:.0f}"),
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


def _picture(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='' src='data:image/png;base64,{data}'>"
