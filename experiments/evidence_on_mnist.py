"""What one VAE's evidence is by four estimators, and where its inference gap comes from.

Run: ``python -m experiments.evidence_on_mnist RUN``, after ``aevb train --data mnist --model VAE
--model.latent_dim 20 --model.hidden [500] --epochs 200 --learning_rate 1e-3 --out RUN``. Blocks of
images that are done lie in the run folder and are not done again.

References:
    On the Quantitative Analysis of Decoder-Based Generative Models (Wu et al., 2017),
    https://arxiv.org/abs/1611.04273; Inference Suboptimality in Variational Autoencoders (Cremer,
    Li & Duvenaud, 2018), https://arxiv.org/abs/1801.03558
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from aevb import data
from aevb.cli.runs import write_json
from aevb.data.seeds import stream_seed
from aevb.evaluation import inference_gaps
from aevb.inference import ais_evidence, bdmc_evidence, importance_evidence
from aevb.models import VAE

__all__ = ["main", "table"]

LATENT_DIM, HIDDEN = 20, [500]
BLOCK = 50
FEW, MANY = 50, 5000
CHAINS, TEMPERATURES = 16, 300
PARTICLES = 20
SIMULATED = 100

# Rows of the table: what it is, and how it is named in a block.
_ROWS = {
    "ELBO": "elbo",
    "ELBO of the refined posteriors": "refined",
    f"importance sampling, {FEW} draws": "few",
    f"importance sampling, {MANY} draws": "many",
    f"annealing, {CHAINS} chains × {TEMPERATURES} temperatures": "annealed",
}
_GAPS = {
    "approximation gap": ("annealed", "refined"),
    "amortization gap": ("refined", "elbo"),
}


def main() -> None:
    """Estimate what is not yet on disk, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a trained run")
    parser.add_argument("--limit", type=int, default=1000, help="test images")
    parser.add_argument("--data-root", type=Path, default=None, help="folder of the data")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    x = data.load("mnist", root=options.data_root, binarize="dynamic").test
    x = x.evaluation(options.limit)
    vae = VAE(x.shape[1:], LATENT_DIM, HIDDEN).eval()
    vae.load_state_dict(load_file(options.run / "weights.safetensors"))
    blocks = [
        _block(vae, x[start : start + BLOCK], start, options) for start in range(0, len(x), BLOCK)
    ]
    print(table(blocks, _bounds(vae, x[:SIMULATED], options)))  # noqa: T201


def table(blocks: list[dict[str, Any]], bounds: dict[str, Any]) -> str:
    """Means over all images as Markdown, with both errors.

    Args:
        blocks: As written, a list for each quantity and its error.
        bounds: Of bidirectional Monte Carlo.
    """
    lines = ["| | nats | ± Monte Carlo | ± over images |", "| --- | --: | --: | --: |"]
    rows = {
        shown: (_column(blocks, name), _column(blocks, f"{name}_error"))
        for shown, name in _ROWS.items()
    }
    for shown, (upper, lower) in _GAPS.items():
        errors = (_column(blocks, f"{name}_error").square() for name in (upper, lower))
        rows[shown] = _column(blocks, upper) - _column(blocks, lower), sum(errors).sqrt()
    for shown, (values, errors) in rows.items():
        noise = float(errors.square().sum().sqrt()) / len(values)
        spread = float(values.std()) / math.sqrt(len(values))
        lines.append(f"| {shown} | {float(values.mean()):.2f} | {noise:.2f} | {spread:.2f} |")
    khat = torch.tensor([value for block in blocks for value in block["khat"]])
    sound = sum(sum(block["converged"]) for block in blocks)
    gap, error = bounds["gap"], bounds["gap_error"]
    seconds = sum(block["seconds"] for block in blocks) + bounds["seconds"]
    return "\n".join(
        [
            *lines,
            "",
            f"k̂ above 0.7 at {int((khat > 0.7).sum())} of {len(khat)}; annealing converged at "
            f"{sound}; gap of bidirectional Monte Carlo on {bounds['num_simulated']} simulated "
            f"images {gap:.3f} ± {error:.3f}; {seconds:.0f} seconds.",
        ]
    )


def _column(blocks: list[dict[str, Any]], name: str) -> Tensor:
    return torch.tensor([value for block in blocks for value in block[name]], dtype=torch.float64)


def _block(vae: VAE, x: Tensor, start: int, options: argparse.Namespace) -> dict[str, Any]:
    seed: int = options.seed
    path = options.run / f"evidence-block-{start}-{len(x)}-seed{seed}.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    began = time.perf_counter()
    few, many = (
        importance_evidence(
            vae.model, vae.guide, x, num_samples=number, seed=stream_seed(seed, f"block {start}")
        )
        for number in (FEW, MANY)
    )
    refined = inference_gaps(
        vae.model,
        vae.guide,
        x,
        num_samples=MANY,
        num_particles=PARTICLES,
        seed=stream_seed(seed, f"block {start}"),
    ).refined
    annealed = ais_evidence(
        vae.model, x, guide=vae.guide, num_chains=CHAINS, num_temperatures=TEMPERATURES,
        seed=stream_seed(seed, f"block {start}"),
    )  # fmt: skip
    pairs = {
        "elbo": (many.elbo, many.elbo_standard_error),
        "refined": (refined.elbo, refined.elbo_standard_error),
        "few": (few.log_evidence, few.standard_error),
        "many": (many.log_evidence, many.standard_error),
        "annealed": (annealed.log_evidence, annealed.standard_error),
    }
    found: dict[str, Any] = {name: value.tolist() for name, (value, _) in pairs.items()}
    found |= {f"{name}_error": error.tolist() for name, (_, error) in pairs.items()}
    found |= {
        "khat": many.khat.tolist(),
        "converged": annealed.is_trusted.tolist(),
        "seconds": time.perf_counter() - began,
    }
    write_json(path, found)
    return found


def _bounds(vae: VAE, x: Tensor, options: argparse.Namespace) -> dict[str, Any]:
    seed: int = options.seed
    path = options.run / f"evidence-bounds-{len(x)}-seed{seed}.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    began = time.perf_counter()
    bounds = bdmc_evidence(
        vae.model, x, guide=vae.guide, num_chains=CHAINS, num_temperatures=TEMPERATURES,
        seed=seed,
    )  # fmt: skip
    gap = bounds.gap
    found = {
        "gap": float(gap.mean()),
        "gap_error": float(gap.std()) / math.sqrt(len(gap)),
        "num_simulated": len(gap),
        "seconds": time.perf_counter() - began,
    }
    write_json(path, found)
    return found


if __name__ == "__main__":
    main()
