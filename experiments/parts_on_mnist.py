"""Priors, posteriors and objectives side by side on MNIST, with the same budget for each.

Settings of VAE with a VampPrior (Tomczak & Welling, 2018), section 5: 300-300 gated units each
way, 40 latents, batches of 100, dynamic binarization; here with Adam and fewer epochs.

Run: ``python -m experiments.parts_on_mnist --data-root FOLDER --epochs 20 --out runs/parts``.
Each row is written to ``OUT/NAME.json`` when it is done, and a second call makes only the missing
ones; ``OUT/table.md`` holds them all.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import pyro
import torch

from aevb import data, evaluation, inference, models
from aevb.inference import ELBO, IWAE, DReG, Objective

__all__ = ["ROWS", "main"]

# Test log-evidence where it was published for this model, with 5,000 samples after 2,000 epochs:
# Exemplar VAEs (Norouzi et al., 2020), table 1; the others were published for other models.
PUBLISHED = {"standard": "-84.45 ± 0.12", "vamp": "-82.43 ± 0.06"}

ROWS: dict[str, tuple[dict[str, Any], Objective]] = {
    "standard": ({}, ELBO()),
    "vamp": ({"prior": models.VampPrior(500)}, ELBO()),
    "iwae-5": ({}, IWAE(5)),
    "mixture": ({"prior": models.MixtureOfGaussians(500)}, ELBO()),
    "flow": ({"prior": models.NormalizingFlow(layers=4, hidden=(100,))}, ELBO()),
    "rank-one": ({"posterior": models.RankOneNormal()}, ELBO()),
    "full": ({"posterior": models.FullNormal()}, ELBO()),
    "iaf": ({"posterior": models.InverseAutoregressiveFlow(2, hidden=(100,))}, ELBO()),
    "dlgm-diagonal": ({"dlgm": models.DiagonalNormal()}, ELBO()),
    "dlgm-rank-one": ({"dlgm": models.RankOneNormal()}, ELBO()),
    "dlgm-diagonal-paper": ({"dlgm": models.DiagonalNormal(), "as_published": True}, ELBO()),
    "dlgm-rank-one-paper": ({"dlgm": models.RankOneNormal(), "as_published": True}, ELBO()),
    "dreg-5": ({}, DReG(5)),
    "iwae-50": ({}, IWAE(50)),
}


# Of the DLGM paper, as far as it is known, beside fixed binarization.
_DLGM_TRAINING: dict[str, Any] = {
    "optimizer": torch.optim.RMSprop, "batch_size": 200, "weight_prior_scale": 1.0,
}  # fmt: skip


def main() -> None:
    """Make the missing rows, then the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/parts"))
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=1000, help="test images of the evidence")
    parser.add_argument("--num-samples", type=int, default=1000)
    settings = parser.parse_args()
    settings.out.mkdir(parents=True, exist_ok=True)
    for name in settings.rows:
        path = settings.out / f"{name}.json"
        if not path.exists():
            row = make_row(name, settings)
            path.write_text(json.dumps(row, indent=1) + "\n")
        print(name, path.read_text())  # noqa: T201
    (settings.out / "table.md").write_text(table(settings.out) + "\n")


def make_row(name: str, settings: argparse.Namespace) -> dict[str, Any]:
    """Train one row and judge it."""
    parts, objective = ROWS[name]
    as_published = "as_published" in parts
    binarize = "fixed" if as_published else "dynamic"
    mnist = data.load("mnist", root=settings.data_root, binarize=binarize, seed=settings.seed)
    training = _DLGM_TRAINING if as_published else {"batch_size": 100}
    torch.manual_seed(settings.seed)
    program = build(mnist.shape, parts)
    start = time.perf_counter()
    run = inference.fit(
        program, mnist.train, objective=objective, learning_rate=5e-4, epochs=settings.epochs,
        seed=settings.seed, compile="compiled", out=settings.out / name, resume=True, **training,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    if run.stopped != "finished":
        raise SystemExit(f"{name}: stopped by {run.stopped}; the next call goes on from there")
    x = mnist.test.evaluation(settings.limit)
    evidence = inference.importance_evidence(
        program.model, program.guide, x, num_samples=settings.num_samples, seed=settings.seed
    )
    return {
        "name": name,
        "model": " ".join(repr(program).split()),
        "objective": repr(objective),
        "epochs": run.epoch,
        "level": run.level,
        "seconds": round(run.seconds, 1),
        "seconds_with_compilation": round(seconds, 1),
        "test_elbo": inference.mean_elbo(program, mnist.test, seed=settings.seed),
        **evaluation.summarize(evidence),
        "active_units": evaluation.active_units(program.guide, x, seed=settings.seed).count,
        "num_images": len(x),
        "seed": settings.seed,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": f"torch {torch.__version__}, pyro {pyro.__version__}",
    }


def build(shape: tuple[int, ...], parts: dict[str, Any]) -> models.LatentVariableModel:
    """A VAE of the parts, or the DLGM paper's model of one stochastic layer."""
    if "dlgm" in parts:
        noise = models.BitFlip(0.05)
        return models.DLGM(shape, [200], [200, 200], posterior=parts["dlgm"], input_noise=noise)
    network = models.MLP([300, 300], gated=True)
    return models.VAE(shape, latent_dim=40, network=network, **parts)


def table(folder: Path) -> str:
    """All rows there are, as Markdown."""
    lines = [
        "| row | test ELBO | log p(x), importance sampling | active units | seconds | published |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    for name in ROWS:
        path = folder / f"{name}.json"
        if path.exists():
            row = json.loads(path.read_text())
            evidence = f"{row['log_evidence']:.2f} ± {row['standard_error']:.2f}"
            lines.append(
                f"| {name} | {row['test_elbo']:.2f} | {evidence} | {row['active_units']} | "
                f"{row['seconds']:.0f} | {PUBLISHED.get(name, '–')} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
