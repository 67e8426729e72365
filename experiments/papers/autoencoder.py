"""Why not an ordinary autoencoder: the same network with a code in place of a posterior."""

from typing import Any

import torch
from torch import Tensor

from aevb.evaluation import embed
from aevb.experiments.papers.aevb_manifolds import drawn_means
from aevb.experiments.reproduction.context import Context, Opened, standard_error
from aevb.experiments.reproduction.experiment import (
    Budget,
    Claim,
    Experiment,
    Report,
    Row,
    Training,
)
from aevb.experiments.reproduction.labels import labels
from aevb.experiments.reproduction.neighbours import NUM_CLASSES, Votes, nearest_distance, vote
from aevb.experiments.reproduction.pictures import image_grid
from aevb.inference import importance_evidence, seeded

__all__ = ["EXPERIMENTS", "decoded", "fitted_normal"]

_FAMILIES = {"autoencoder": "Delta", "VAE": "DiagonalNormal"}
_SHORT = {"autoencoder": "AE", "VAE": "VAE"}  # above panels
_NEIGHBOURS = 10
_STEPS = 10  # pictures of an interpolation, both ends included
_INTERPOLATED = 4  # pairs of test images
_SHOWN = 100


def _training(model: str, epochs: int, data: str) -> Training:
    small = data == "digits"
    flags = {
        "data": data, "binarize": "dynamic", "model": "VAE",
        "model.latent_dim": 5 if small else 20, "model.hidden": [50] if small else [500],
        "model.posterior": _FAMILIES[model], "optimizer": "Adam", "learning_rate": 1e-3,
        "weight_prior_scale": 1.0, "batch_size": 100, "validate_on": "validation", "seed": 0,
    }  # fmt: skip
    return Training(f"autoencoder-{data}-{_FAMILIES[model].lower()}", flags, epochs)


def decoded(model: Any, z: Tensor) -> Tensor:
    """E[x|z], ``(N, *shape)``.

    Args:
        model: A VAE.
        z: Latents, ``(N, latent_dim)``.
    """
    with torch.no_grad():
        means: Tensor = model.decoder(z).mean
    return means


def fitted_normal(codes: Tensor, num: int, seed: int = 0) -> Tensor:
    """Draws of the normal that has the codes' mean and covariance, ``(num, latent)``.

    Args:
        codes: ``(N, latent)``.
        num: Of draws.
        seed: Of the draws.
    """
    covariance = torch.cov(codes.double().T) + 1e-12 * torch.eye(codes.shape[1])
    normal = torch.distributions.MultivariateNormal(codes.double().mean(0), covariance)
    with seeded(seed, torch.device("cpu")):
        return normal.sample((num,)).to(codes.dtype)


def _report(context: Context) -> Report:
    settings = context.settings
    report = Report()
    reference = context.load(settings["data"]).train.evaluation()
    classes = labels(settings["data"], context.data_root)[0]
    test = context.load(settings["data"]).test.evaluation(settings["samples"])
    real = vote(test, reference, classes, _NEIGHBOURS)
    report.rows += _quality("test images", real, nearest_distance(reference[:2000], test))
    sheets, paths, errors, found = [], [], {}, {}
    for name in _FAMILIES:
        opened = context.open(_training(name, settings["epochs"], settings["data"]).name)
        x = opened.dataset.test.evaluation(settings["images"])
        means = embed(opened.model.guide, x).mean
        rows, errors[name] = _reconstruction(name, opened, x, means)
        report.rows += rows
        report.rows += _evidence(name, opened, x, settings["num_samples"])
        codes = embed(opened.model.guide, opened.dataset.train.evaluation(10_000)).mean
        for source, pictures in (
            ("its prior", drawn_means(opened.model, settings["samples"])),
            ("a normal fitted to its codes",
             decoded(opened.model, fitted_normal(codes, settings["samples"]))),
        ):  # fmt: skip
            votes = vote(pictures, reference, classes, _NEIGHBOURS)
            title = f"{name}, {source}"
            found[name, source] = votes
            covered = nearest_distance(reference[:2000], pictures)
            report.rows += _quality(title, votes, covered)
            short = "its prior" if source == "its prior" else "fitted normal"
            sheets.append((f"{_SHORT[name]}, {short}", pictures[:_SHOWN]))
        paths.append((name, _interpolations(opened.model, x, means)))
    report.figures = {
        "samples": image_grid(
            torch.stack([pictures for _, pictures in sheets]), 10, [title for title, _ in sheets]
        ),
        "interpolations": image_grid(
            torch.stack([pictures for _, pictures in paths]), _STEPS, [name for name, _ in paths]
        ),
    }
    report.claims = _claims(errors, found)
    report.notes = _NOTES
    return report


def _reconstruction(
    name: str, opened: Opened, x: Tensor, means: Tensor
) -> tuple[list[Row], dict[str, float]]:
    """Of the test images at the mean of the posterior, which is the code of the autoencoder."""
    probabilities = decoded(opened.model, means).flatten(1).double()
    flat = x.flatten(1).double()
    # a pixel that is certain and wrong costs as much as float32 can tell
    log_loss = torch.nn.functional.binary_cross_entropy(probabilities, flat, reduction="none").sum(
        1
    )
    squared = (probabilities - flat).square().mean(1)
    details = {
        "images": len(x), "epochs": int(opened.history[-1]["epoch"] or 0), "seed": 0,
        "hours": round(opened.seconds / 3600, 2),
    }  # fmt: skip
    rows = [
        Row(name, "reconstruction, −log p(x|z), test, nats", float(log_loss.mean()),
            standard_error(log_loss), details=details),
        Row(name, "reconstruction, squared error per pixel × 1000, test",
            1000 * float(squared.mean()), 1000 * standard_error(squared), details=details),
    ]  # fmt: skip
    return rows, {"mean": float(log_loss.mean()), "error": standard_error(log_loss)}


def _evidence(name: str, opened: Opened, x: Tensor, num_samples: int) -> list[Row]:
    if name == "autoencoder":
        return []  # see the notes
    evidence = importance_evidence(
        opened.model.model, opened.model.guide, x, num_samples=num_samples
    )
    values = evidence.log_evidence
    quantity = f"log p(x), {num_samples:,} importance samples, test, nats"
    return [Row(name, quantity, float(values.mean()), standard_error(values))]


def _quality(name: str, votes: Votes, covered: Tensor) -> list[Row]:
    counts = votes.classes.bincount(minlength=NUM_CLASSES).double()
    shares = counts / counts.sum()
    spread = float(torch.special.entr(shares).sum())
    details = {"pictures": len(votes.classes), "entropy of classes": f"{spread:.2f}"}
    return [
        Row(name, f"agreement of {_NEIGHBOURS} nearest training images",
            float(votes.agreement.mean()), standard_error(votes.agreement), details=details),
        Row(name, "distance to the nearest training image", float(votes.nearest.mean()),
            standard_error(votes.nearest), details=details),
        Row(name, "distance of training images to the nearest of these", float(covered.mean()),
            standard_error(covered), details=details),
    ]  # fmt: skip


def _interpolations(model: Any, x: Tensor, codes: Tensor) -> Tensor:
    """From one test image to another on a straight line of codes, ``(pairs * steps, *shape)``."""
    share = torch.linspace(0, 1, _STEPS).view(-1, 1)
    lines = [
        codes[2 * pair] * (1 - share) + codes[2 * pair + 1] * share
        for pair in range(_INTERPOLATED)
    ]
    return decoded(model, torch.cat(lines))


def _claims(errors: dict[str, Any], found: dict[tuple[str, str], Votes]) -> list[Claim]:
    lead = errors["VAE"]["mean"] - errors["autoencoder"]["mean"]
    claims = [
        Claim("the autoencoder reconstructs better", lead > 0, f"by {lead:.2f} nats an image")
    ]
    for source in ("its prior", "a normal fitted to its codes"):
        ours, theirs = found["VAE", source].agreement, found["autoencoder", source].agreement
        gain = float(ours.mean() - theirs.mean())
        error = (standard_error(ours) ** 2 + standard_error(theirs) ** 2) ** 0.5
        claims.append(
            Claim(
                f"pictures drawn from {source} are less ambiguous from the VAE", gain > 2 * error,
                f"agreement {gain:+.3f} ± {error:.3f}",
            )
        )  # fmt: skip
    return claims


_NOTES = [
    "Both have the same network, prior, weight prior, optimizer and epochs; only the posterior "
    "differs: all mass on one code, or a diagonal normal. Pixels are binarized anew at every "
    "presentation; the test images are one draw. Reconstructions are made at the mean of the "
    "posterior and scored against the binary image.",
    "The autoencoder has no held-out log-likelihood: a point has no density, so its objective "
    "log p(x, z(x)) bounds nothing and importance weights do not exist.",
    "Its codes lie where the penalty pushed them and nothing makes them fill the prior; so its "
    "pictures are drawn in two ways, from the prior of the objective, and from the normal with "
    f"the mean and covariance of its codes. The agreement of the {_NEIGHBOURS} nearest training "
    "images is a classifier's certainty without a classifier to train. Distances are Euclidean, "
    "in grey levels from 0 to 1; blurred pictures are nearer to all data than data are to each "
    "other, so a small distance alone is no merit. The last distance tells how well the pictures "
    "cover the data: from 2,000 training images.",
    "An interpolation goes along the straight line between the codes of two test images, the "
    "first ones of the file.",
]


def _budget(epochs: int, minutes: float, data: str = "mnist", **settings: Any) -> Budget:
    trainings = tuple(_training(model, epochs, data) for model in _FAMILIES)
    return Budget(trainings, minutes, {"epochs": epochs, "data": data, **settings})


EXPERIMENTS = [
    Experiment(
        "autoencoder",
        "An autoencoder and a VAE of the same network",
        "Auto-Encoding Variational Bayes (Kingma & Welling, 2013), section 2.3 (connection with "
        "autoencoders), https://arxiv.org/abs/1312.6114; the comparison is ours",
        {
            "quick": _budget(3, 1, "digits", images=100, samples=100, num_samples=50),
            "standard": _budget(40, 20, images=1000, samples=1000, num_samples=1000),
            "full": _budget(400, 150, images=10_000, samples=10_000, num_samples=5000),
        },
        _report,
    )
]
