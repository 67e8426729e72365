"""``RESULTS.md``: all reproduced items on one page, from what their reports left behind."""

import json
import statistics
from pathlib import Path
from typing import Any

from aevb.experiments.reproduction.catalog import experiments
from aevb.experiments.reproduction.experiment import Experiment
from aevb.experiments.reproduction.results import RECORD

__all__ = ["summarize"]


def summarize(results: Path) -> str:
    """The page as Markdown.

    Args:
        results: Folder of the items' results; the page stands beside it.
    """
    found = {
        name: json.loads(path.read_text())
        for name in experiments()
        if (path := results / name / RECORD).exists()
    }
    known = {name: experiments()[name] for name in found}
    lines = ["# Results", "", *_overall(found), "", *_table(known, found), ""]
    for name, experiment in known.items():
        lines += _section(experiment, found[name], results)
    missing = [name for name in experiments() if name not in found]
    if missing:
        lines += ["## Not run yet", "", ", ".join(f"`{name}`" for name in missing), ""]
    return "\n".join(lines)


def _overall(found: dict[str, Any]) -> list[str]:
    differences = [
        abs(row["ours"] - row["published"])
        for record in found.values() if record["budget"] == "full"
        for row in record["rows"] if row["published"] is not None and row["verified"]
    ]  # fmt: skip
    if not differences:
        return ["No item has been run to the paper's budget yet."]
    return [
        f"Over the {len(differences)} figures with a published value that was read in the paper, "
        f"the median of |ours − published| is {statistics.median(differences):.2f} nats."
    ]


def _table(known: dict[str, Experiment], found: dict[str, Any]) -> list[str]:
    header = ["item", "budget", "figures", "median difference", "bands and claims", "hours"]
    rows = [header, ["---"] * len(header)]
    for name in known:
        record = found[name]
        differences = [
            abs(row["ours"] - row["published"])
            for row in record["rows"] if row["published"] is not None
        ]  # fmt: skip
        asked = sum(row["band"] is not None for row in record["rows"]) + len(record["claims"])
        met = asked - len(record["failures"])
        rows.append([
            f"[{name}](results/{name}/README.md)", record["budget"], str(len(record["rows"])),
            f"{statistics.median(differences):.2f}" if differences else "–",
            f"{met} of {asked} hold" if asked else "–", f"{record['seconds'] / 3600:.1f}",
        ])  # fmt: skip
    return [f"| {' | '.join(row)} |" for row in rows]


def _section(experiment: Experiment, record: dict[str, Any], results: Path) -> list[str]:
    lines = [f"## {experiment.title}", "", f"`aevb reproduce {experiment.name} --budget "
             f"{record['budget']}`; {experiment.source}.", ""]  # fmt: skip
    pictures = sorted((results / experiment.name).glob("*.png"))
    lines += [f"![{p.stem}](results/{experiment.name}/{p.name})\n" for p in pictures]
    for claim in record["claims"]:
        outcome = "Borne out" if claim["holds"] else "**Not borne out**"
        lines.append(f"- {outcome}: {claim['text']} ({claim['measured']}).")
    outside = [text for text in record["failures"] if not text.startswith("not borne out")]
    lines += [f"- **Outside**: {text}." for text in outside]
    return [*lines, ""]
