"""Table 1 of the DLGM paper: test log-likelihoods on fixed binarized MNIST."""

import math
from functools import partial
from typing import Any

import torch

from aevb.experiments.papers.iwae_table1 import judged
from aevb.experiments.reproduction.context import Context
from aevb.experiments.reproduction.experiment import (
    Budget,
    Claim,
    Experiment,
    Report,
    Row,
    Training,
)

__all__ = ["EXPERIMENTS", "dlgm_flags", "dlgm_training"]

# As quoted from the paper by others: the paper's own table was not read.
_PUBLISHED = {
    "factor analysis": 106.00, "wake-sleep": 91.30, "diagonal": 87.30, "rank-one": 86.60,
}  # fmt: skip
_SEEDS = {
    "factor analysis": (0,),
    "wake-sleep": (0,),
    "diagonal": (0, 1, 2),
    "rank-one": (0, 1, 2),
}


def dlgm_flags(row: str, seed: int, data: str = "mnist", epochs: int = 2000) -> dict[str, Any]:
    """Two layers of 200 rectified units and 200 latents, as far as the settings are known.

    Args:
        row: Of the table.
        seed: Of weights, noise and the one binary draw of the data.
        data: The dataset.
        epochs: Of the whole run: the rate falls to a third at 70 and 90 % of them.
    """
    family = "RankOneNormal" if row == "rank-one" else "DiagonalNormal"
    flags = {
        "data": data, "binarize": "fixed", "model": "DLGM", "model.latent_dims": [200],
        "model.hidden": [] if row == "factor analysis" else [200, 200],
        "model.posterior": family, "model.input_noise": "BitFlip",
        "model.input_noise.probability": 0.05, "model.latent_noise": "GaussianNoise",
        "model.latent_noise.scale": 0.05, "optimizer": "RMSprop", "learning_rate": 3e-4,
        "schedule": "MultiStepLR", "schedule.milestones": [epochs * 7 // 10, epochs * 9 // 10],
        "schedule.gamma": 0.3, "weight_prior_scale": 1.0, "batch_size": 200, "log_every": 5,
        "seed": seed,
    }  # fmt: skip
    return flags | ({"algorithm": "wake-sleep"} if row == "wake-sleep" else {})


def dlgm_training(row: str, seed: int, epochs: int, data: str = "mnist") -> Training:
    """A run of the table, for other items to share.

    Args:
        row: Of the table.
        seed: See :func:`dlgm_flags`.
        epochs: Of the run.
        data: The dataset.
    """
    name = f"dlgm-{data}-{row.replace(' ', '-')}-seed{seed}"
    return Training(name, dlgm_flags(row, seed, data, epochs), epochs)


def _report(context: Context) -> Report:
    settings = context.settings
    report = Report()
    means: dict[str, list[float]] = {}
    for row, published in _PUBLISHED.items():
        if row not in settings["rows"]:
            continue
        found = [
            context.part(name, partial(judged, context, name))
            for seed in settings["rows"][row]
            for name in [dlgm_training(row, seed, settings["epochs"], settings["data"]).name]
        ]
        values = [-each["annealed_evidence"] for each in found]
        means[row] = values
        for kind, figures in (
            (f"NLL, {settings['num_samples']:,} importance samples, test",
             [-each["log_evidence"] for each in found]),
            (f"NLL, annealing on {settings['annealed']} images", values),
        ):  # fmt: skip
            between = torch.tensor(figures, dtype=torch.float64)
            error = float(between.std()) / math.sqrt(len(found)) if len(found) > 1 else None
            report.rows.append(
                Row(
                    row, kind, float(between.mean()), error, published, verified=False,
                    details={
                        "epochs": settings["epochs"], "seeds": len(found),
                        "active units": ", ".join(str(each["active"]) for each in found),
                        "binarization": "fixed",
                        "hours": round(sum(each["seconds"] for each in found) / 3600, 2),
                    },
                )
            )  # fmt: skip
    if {"diagonal", "rank-one"} <= means.keys():
        pairs = torch.tensor(means["diagonal"]) - torch.tensor(means["rank-one"])
        report.rows.append(
            Row(
                "diagonal − rank-one", f"difference of NLL, annealing, {len(pairs)} seeds",
                float(pairs.mean()),
                float(pairs.std()) / math.sqrt(len(pairs)) if len(pairs) > 1 else None,
                0.70, verified=False,
            )
        )  # fmt: skip
        report.claims.append(
            Claim(
                "the rank-one posterior trains the better model", float(pairs.mean()) > 0,
                f"{float(pairs.mean()):+.2f} nats",
            )
        )  # fmt: skip
    report.notes = [
        "The paper's values are known from quotations. So are the sizes, RMSprop, noise on the "
        "recognition model's input and on its draws, and a Gaussian prior on the weights; the "
        "amounts (5 % of bits flipped, scale 0.05, prior scale 1), the rate and the number of "
        "epochs are ours. Errors are between seeds.",
    ]
    return report


def _budget(
    rows: dict[str, tuple[int, ...]], epochs: int, minutes: float, data: str = "mnist",
    **settings: Any,
) -> Budget:  # fmt: skip
    trainings = tuple(
        dlgm_training(row, seed, epochs, data)
        for number in range(max(map(len, rows.values())))
        for row, seeds in rows.items() for seed in seeds[number : number + 1]
    )  # fmt: skip
    return Budget(trainings, minutes, {"rows": rows, "epochs": epochs, "data": data, **settings})


EXPERIMENTS = [
    Experiment(
        "dlgm-table1",
        "DLGM table 1, binarized MNIST",
        "Stochastic Backpropagation and Approximate Inference in Deep Generative Models (Rezende, "
        "Mohamed & Wierstra, 2014), table 1, https://arxiv.org/abs/1401.4082",
        {
            "quick": _budget(
                {"diagonal": (0,), "rank-one": (0,)}, 2, 1, "digits", num_samples=50, images=20,
                block=20, annealed=5, chains=4, temperatures=20,
            ),
            "standard": _budget(
                {"diagonal": (0,), "rank-one": (0,)}, 50, 25, num_samples=1000, images=1000,
                block=1000, annealed=20, chains=8, temperatures=500,
            ),
            "full": _budget(
                _SEEDS, 2000, 400, num_samples=5000, images=10_000, block=1000, annealed=100,
                chains=16, temperatures=1000,
            ),
        },
        _report,
    )
]  # fmt: skip
