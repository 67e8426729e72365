"""A run folder as a repository of the Hugging Face Hub: its model card."""

import json
from pathlib import Path
from typing import Any

import yaml

from aevb.cli.files import refuse_read_only, write_text
from aevb.cli.runs import CONFIG, REPORT, SavedRun

__all__ = ["card"]

CARD = "README.md"

_MARK = "<!-- written by `aevb card`, which replaces it -->"
_HUB = {
    "mnist": "ylecun/mnist",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
    "svhn": "ufldl-stanford/svhn",
}
_PICTURES = ("samples.png", "reconstructions.png", "manifold.png", "loss.png")
_SETTINGS = (
    "algorithm", "objective", "optimizer", "learning_rate", "schedule", "batch_size", "epochs",
    "patience", "weight_prior_scale", "precision", "seed",
)  # fmt: skip


def card(saved: SavedRun, license: str | None = None, name: str | None = None) -> dict[str, Any]:
    """Write the model card of a run, README.md, from what lies in its folder.

    It says what was trained on what, every evidence with its errors and verdict, what the trial
    found, and how to load it. The folder is then a repository of the Hugging Face Hub; pushing
    it is left to you.

    Args:
        saved: The run.
        license: Identifier of the Hub's for the weights, as mit; otherwise none is stated.
        name: Title; by default the folder's name.

    Returns:
        The card, the number of evidences on it, and the command that pushes the folder.
    """
    folder, path = saved.folder, saved.folder / CARD
    refuse_read_only(folder)
    if path.exists() and _MARK not in path.read_text():
        raise ValueError(f"{path}: is none that this command wrote; move it away first")
    title = name or folder.resolve().name
    evidence = _evidence(folder)
    front = yaml.safe_dump(
        _front_matter(saved, title, license, evidence), sort_keys=False, allow_unicode=True
    )
    sections = [
        f"# {title}",
        _MARK,
        _introduction(saved),
        _evidence_section(saved, evidence),
        _trial_section(folder),
        _settings_section(folder),
        _data_section(saved),
        _loading_section(),
        _pictures_section(folder),
    ]
    write_text(path, f"---\n{front}---\n\n" + "\n\n".join(filter(None, sections)) + "\n")
    return {
        "run": str(folder),
        "card": str(path),
        "evidences": len(evidence),
        "push": f"hf upload USER/{title} {folder} --exclude 'tensorboard/*'",
    }


def _evidence(folder: Path) -> list[dict[str, Any]]:
    """What ``evaluate`` has written, in order of the files' names."""
    found = []
    for path in sorted(folder.glob("evidence-*.json")):
        figures = json.loads(path.read_text())
        found.append({"file": path.name, **figures})
    return found


def _front_matter(
    saved: SavedRun, title: str, license: str | None, evidence: list[dict[str, Any]]
) -> dict[str, Any]:
    dataset = saved.dataset
    front: dict[str, Any] = {
        "library_name": "aevb",
        "tags": [
            "variational-autoencoder", "deep-latent-variable-model", "variational-inference",
            "pyro", "pytorch",
        ],
    }  # fmt: skip
    if license is not None:
        front["license"] = license
    if dataset.name in _HUB:
        front["datasets"] = [_HUB[dataset.name]]
    results = [
        {
            "task": {"type": "density-estimation", "name": "Density estimation"},
            "dataset": {
                "name": f"{dataset.name} ({dataset.train.binarize} binarization)",
                "type": _HUB.get(dataset.name, dataset.name),
                "split": figures["split"],
            },
            "metrics": [
                {
                    "type": "log_evidence",
                    "name": f"log p(x), nats per datapoint, {_verdict(figures)}",
                    "value": figures["log_evidence"],
                }
            ],
        }
        for figures in evidence
        if figures.get("log_evidence") is not None and _is_current(saved, figures)
    ]
    if results:
        front["model-index"] = [{"name": title, "results": results}]
    return front


def _introduction(saved: SavedRun) -> str:
    kind = type(saved.model).__name__
    changed = " Its weights are latent; figures are at their means." if saved.weights else ""
    return (
        f"A `{kind}` of {saved.dataset.name}, trained for {saved.epoch:,} epochs by aevb.{changed}"
        f"\n\n```text\n{saved.model!r}\n```"
    )


def _evidence_section(saved: SavedRun, evidence: list[dict[str, Any]]) -> str:
    if not evidence:
        return "## Evidence\n\nNot estimated yet (`aevb evaluate RUN`)."
    lines = [
        "## Evidence",
        "",
        "Nats per datapoint: mean ± standard error of the mean over datapoints (in brackets the "
        "Monte Carlo error for just these).",
        "",
        "| estimator | data | log p(x) | ELBO | verdict |",
        "|---|---|--:|--:|---|",
    ]
    for figures in evidence:
        stale = "" if _is_current(saved, figures) else f" (of epoch {figures.get('epoch')})"
        where = f"{figures['num_datapoints']:,} of {figures['split']}"
        why = f": {figures['why']}" if "why" in figures else ""
        elbo = _number(figures.get("elbo"), figures.get("elbo_standard_error"))
        row = [
            figures.get("estimator", figures["file"]) + stale, where, _estimate(figures), elbo,
            f"**{_verdict(figures)}**{why}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines)


def _estimate(figures: dict[str, Any]) -> str:
    if "lower" in figures:
        error = figures.get("gap_standard_error")
        gap = _number(figures.get("gap"), error)
        return f"{_number(figures['lower'])} to {_number(figures['upper'])}, gap {gap}"
    estimate = _number(figures.get("log_evidence"), figures.get("standard_error"))
    noise = figures.get("monte_carlo_error")
    return estimate if noise is None else f"{estimate} ({noise:.2g})"


def _number(value: float | None, error: float | None = None) -> str:
    if value is None:
        return "–"
    shown = f"{value:,.2f}".replace("-", "−")
    return shown if error is None else f"{shown} ± {error:.2f}"


def _verdict(figures: dict[str, Any]) -> str:
    return str(figures.get("verdict", "not judged"))


def _is_current(saved: SavedRun, figures: dict[str, Any]) -> bool:
    return bool(figures.get("epoch", saved.epoch) == saved.epoch)


def _trial_section(folder: Path) -> str:
    path = folder / REPORT[1]
    if not path.is_file():
        return "## Posterior\n\nNot put on trial yet (`aevb compare RUN`)."
    sentences = json.loads(path.read_text()).get("verdict") or []
    return "\n".join(["## Posterior", "", *(f"- {sentence}" for sentence in sentences)])


def _settings_section(folder: Path) -> str:
    settings = yaml.safe_load((folder / CONFIG).read_text())
    lines = ["## Training", "", "| setting | value |", "|---|---|"]
    for key in _SETTINGS:
        value = settings.get(key)
        if isinstance(value, dict):
            value = str(value.get("class_path", value)).rpartition(".")[2]
        if value is not None:
            lines.append(f"| {key} | {value} |")
    versions = json.loads((folder / "record.json").read_text()).get("versions", {})
    made = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join([*lines, "", f"All settings are in `{CONFIG}`. Made with {made}."])


def _data_section(saved: SavedRun) -> str:
    record = saved.dataset.record()
    sizes = ", ".join(f"{size:,} {name}" for name, size in record["sizes"].items())
    shape = "×".join(map(str, record["shape"]))
    return (
        f"## Data\n\n{record['name']}: {sizes} datapoints of {shape}; {record['split_rule']}. "
        f"Raw values ({record['dtype']}) are divided by {record['divisor']:g}; binarization: "
        f"{record['binarize']}. SHA-256 of the raw values: `{record['sha256']}`."
    )


def _loading_section() -> str:
    return """## How to load it

```python
from huggingface_hub import snapshot_download
import aevb

run = aevb.open(snapshot_download("USER/NAME"))
```

`aevb evaluate FOLDER`, `aevb compare FOLDER` and the others take the downloaded folder too; data
that lie elsewhere than here are named by `--data_root`. Opening executes no code of the
repository: weights are safetensors (`weights.safetensors`, without pickle), and a configuration
may only name classes that are trusted. The weights alone are read by
`safetensors.torch.load_file("weights.safetensors")`."""


def _pictures_section(folder: Path) -> str:
    names = [name for name in _PICTURES if (folder / name).is_file()]
    pictures = [f"![{name.removesuffix('.png')}]({name})" for name in names]
    return "\n\n".join(["## Pictures", *pictures]) if names else ""
