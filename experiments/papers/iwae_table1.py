"""Table 1 of the IWAE paper on MNIST: negative log-likelihoods and active units."""

from functools import partial
from typing import Any

import torch

from aevb.data.seeds import stream_seed
from aevb.evaluation import active_units
from aevb.experiments.reproduction.context import Context, standard_error
from aevb.experiments.reproduction.experiment import (
    Budget,
    Claim,
    Experiment,
    Report,
    Row,
    Training,
)
from aevb.inference import ais_evidence, importance_evidence

__all__ = ["EPOCHS", "EXPERIMENTS", "iwae_flags", "iwae_training", "judged"]

# i = 0 to 7: 3^i epochs at 10^(-3 - i/7).
_MILESTONES = (1, 4, 13, 40, 121, 364, 1093)
_ALL_EPOCHS, _MOST_EPOCHS = 3280, 1093
# Layers, k, objective: (NLL, active units) in the paper's table 1.
_PUBLISHED = {
    (1, 1, "ELBO"): (86.76, "19"), (1, 5, "ELBO"): (86.47, "20"), (1, 5, "IWAE"): (85.54, "22"),
    (1, 50, "IWAE"): (84.78, "25"), (2, 1, "ELBO"): (85.33, "16+5"),
    (2, 5, "ELBO"): (85.01, "17+5"), (2, 5, "IWAE"): (83.89, "21+5"),
}  # fmt: skip
# Epochs of the full budget; one layer with k = 1 goes through the whole schedule.
EPOCHS = {
    (1, 1, "ELBO"): _ALL_EPOCHS, (1, 5, "IWAE"): _MOST_EPOCHS, (1, 5, "ELBO"): _MOST_EPOCHS,
    (2, 1, "ELBO"): _MOST_EPOCHS, (2, 5, "IWAE"): _MOST_EPOCHS, (2, 5, "ELBO"): _MOST_EPOCHS,
    (1, 50, "IWAE"): 121,
}  # fmt: skip
# The paper and an independent run of the whole schedule (nbip/IWAE) lie within these.
_BAND = (86.35, 86.80)


def iwae_flags(layers: int, k: int, objective: str, data: str = "mnist") -> dict[str, Any]:
    """The paper's settings.

    Args:
        layers: Of latents, 1 or 2.
        k: Draws for a gradient.
        objective: ``"ELBO"`` or ``"IWAE"``.
        data: The dataset.
    """
    model = (
        {"model": "VAE", "model.latent_dim": 50, "model.hidden": [200, 200]}
        if layers == 1
        else {"model": "HierarchicalVAE"}
    )
    return {
        "data": data, "binarize": "dynamic", **model, "objective": objective,
        "objective.num_particles": k, "initializer": "Glorot", "initializer.data_mean": True,
        "train_on": "train+validation", "validate_on": "test", "optimizer": "Adam",
        "optimizer.eps": 1e-4, "learning_rate": 1e-3, "schedule": "MultiStepLR",
        "schedule.milestones": list(_MILESTONES), "schedule.gamma": round(10 ** (-1 / 7), 6),
        "batch_size": 20, "log_every": 5, "seed": 0,
    }  # fmt: skip


def iwae_training(row: tuple[int, int, str], epochs: int, data: str = "mnist") -> Training:
    """A run of the table.

    Args:
        row: Layers, k and objective; see :func:`iwae_flags`.
        epochs: When it is done.
        data: The dataset.
    """
    layers, k, objective = row
    flags = iwae_flags(layers, k, objective, data)
    return Training(f"iwae-{data}-{layers}-{objective.lower()}-{k}", flags, epochs)


def _report(context: Context) -> Report:
    settings = context.settings
    report = Report()
    for row in settings["rows"]:
        layers, k, objective = row
        training = iwae_training(row, settings["epochs"][row], settings["data"])
        found = context.part(training.name, partial(judged, context, training.name))
        nll, units = _PUBLISHED[row]
        is_gated = row == (1, 1, "ELBO") and settings["epochs"][row] == _ALL_EPOCHS
        report.rows.append(
            Row(
                f"{layers} layer{'s' * (layers > 1)}, {objective}, k = {k}",
                f"NLL, {settings['num_samples']:,} importance samples, test",
                -found["log_evidence"], found["error"], nll,
                band=_BAND if is_gated else None,
                details={
                    "epochs": settings["epochs"][row], "active units": found["active"],
                    "published units": units, "AIS − IS": found["annealed"],
                    "images": found["images"], "binarization": "dynamic; test drawn once",
                    "seed": 0, "hours": round(found["seconds"] / 3600, 2),
                },
            )
        )  # fmt: skip
        if is_gated:
            count = int(found["active"])
            report.claims.append(
                Claim("18 to 20 units are active with k = 1", 18 <= count <= 20, str(count))
            )
    report.notes = [
        "Published values are table 1 of Importance Weighted Autoencoders (Burda, Grosse & "
        "Salakhutdinov, 2016): 3,280 epochs each. Rows with fewer epochs have left out the last "
        "learning rates. AIS − IS is the mean difference of annealed and importance-sampled "
        "log-likelihoods on the same images, with its standard error.",
    ]
    return report


def judged(context: Context, name: str) -> dict[str, Any]:
    """Evidence and active units of a training run on test images, as the budget's settings say.

    Args:
        context: With ``images``, ``block``, ``num_samples``, ``annealed``, ``chains`` and
            ``temperatures`` among its settings.
        name: Of the training.
    """
    settings = context.settings
    opened = context.open(name)
    model = opened.model
    x = opened.dataset.test.evaluation(settings["images"])
    blocks = []
    for start in range(0, len(x), settings["block"]):
        block = x[start : start + settings["block"]]

        def weigh(block: torch.Tensor = block, start: int = start) -> list[float]:
            evidence = importance_evidence(
                model.model, model.guide, block, num_samples=settings["num_samples"],
                seed=stream_seed(0, f"block {start}"),
            )  # fmt: skip
            return [float(value) for value in evidence.log_evidence]

        blocks += context.part(f"{name}-importance-{start}", weigh)
    sampled = torch.tensor(blocks, dtype=torch.float64)
    few = settings["annealed"]
    annealed = context.part(
        f"{name}-annealed",
        lambda: [
            float(value)
            for value in ais_evidence(
                model.model, x[:few], guide=model.guide, num_chains=settings["chains"],
                num_temperatures=settings["temperatures"],
            ).log_evidence
        ],
    )  # fmt: skip
    difference = torch.tensor(annealed, dtype=torch.float64) - sampled[:few]
    units = active_units(model.guide, x)
    return {
        "log_evidence": float(sampled.mean()),
        "error": standard_error(sampled),
        "annealed_evidence": float(torch.tensor(annealed).mean()),
        "annealed": f"{float(difference.mean()):.2f} ± {standard_error(difference):.2f}",
        "active": units.count,
        "images": len(x),
        "seconds": opened.seconds,
        "epochs": int(opened.history[-1]["epoch"] or 0),
    }


def _budget(
    rows: tuple[tuple[int, int, str], ...], epochs: dict[Any, int], minutes: float,
    data: str = "mnist", **settings: Any,
) -> Budget:  # fmt: skip
    trainings = tuple(iwae_training(row, epochs[row], data) for row in rows)
    return Budget(trainings, minutes, {"rows": rows, "epochs": epochs, "data": data, **settings})


_ROWS = tuple(EPOCHS)
EXPERIMENTS = [
    Experiment(
        "iwae-table1",
        "IWAE table 1, MNIST",
        "Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), table 1, "
        "https://arxiv.org/abs/1509.00519",
        {
            "quick": _budget(
                _ROWS[:2], dict.fromkeys(_ROWS, 2), 1, "digits", num_samples=50, images=20,
                block=20, annealed=5, chains=4, temperatures=20,
            ),
            "standard": _budget(
                _ROWS[:3], dict.fromkeys(_ROWS, 13), 30, num_samples=1000, images=1000,
                block=1000, annealed=20, chains=8, temperatures=500,
            ),
            "full": _budget(
                _ROWS, EPOCHS, 900, num_samples=5000, images=10_000, block=1000,
                annealed=100, chains=16, temperatures=1000,
            ),
        },
        _report,
    )
]  # fmt: skip
