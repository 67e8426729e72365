"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib
import pkgutil
from types import ModuleType

import pytest

import aevb
from aevb.models.likelihoods import Head


def modules() -> list[str]:
    """All modules of the package, by their installed names."""
    names = []
    for layer in ("data", "models", "inference", "evaluation", "cli"):
        package: ModuleType = importlib.import_module(f"aevb.{layer}")
        found = pkgutil.walk_packages(package.__path__, f"aevb.{layer}.")
        names += [module.name for module in found]
    return names + [f"aevb.{m.name}" for m in pkgutil.iter_modules(aevb.__path__[:1])]


@pytest.mark.parametrize("name", modules())
def test_examples_print_what_they_say(name: str) -> None:
    module = importlib.import_module(name)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testmod(module, optionflags=options, verbose=False)
    assert result.failed == 0


def test_public_callables_of_the_layers_have_examples() -> None:
    """Abstract classes, records and errors have nothing to run."""
    missing = []
    families = ("models.priors", "models.likelihoods", "models.posteriors")
    for layer in ("data", "models", *families, "inference", "evaluation"):
        package = importlib.import_module(f"aevb.{layer}")
        for name in package.__all__:
            value = getattr(package, name)
            if value is not Head and callable(value) and ">>>" not in (value.__doc__ or ""):
                missing.append(f"{layer}.{name}")
    exempt = {
        "evaluation.Gaps",  # results are shown under what returns them
        "evaluation.PosteriorErrors",
        "evaluation.embedding_plot",  # writes pictures
        "evaluation.evidence_curve",
        "evaluation.image_grid",
        "evaluation.prior_means",  # shown under prior_samples
        "evaluation.training_curve",
        "evaluation.trial_page",
        "inference.AISEvidence",
        "inference.BDMCEvidence",
        "inference.CompiledStep",  # shown under compiled_step
        "inference.Evidence",
        "inference.HMCEvidence",
        "inference.ImportanceEvidence",
        "inference.NoDensityError",
        "inference.NoFamilyError",
        "inference.NonFiniteLossError",
        "inference.Objective",
        "inference.Pilot",  # shown under adaptive_schedule
        "inference.ProgramPair",
        "inference.Refinement",
        "inference.Rise",
        "inference.load_checkpoint",  # shown under save_checkpoint
        "inference.mean_elbo",
        "models.Initializer",
        "models.LatentVariableModel",
        "models.InputNoise",
        "models.Likelihood",
        "models.LinearGaussian",
        "models.Network",
        "models.Posterior",
        "models.Prior",
        "models.Weights",
        "models.likelihoods.Likelihood",
        "models.posteriors.Posterior",
        "models.priors.Prior",
        "models.Scale",
    }
    assert set(missing) <= exempt
