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
    for layer in ("data", "models", "inference", "evaluation", "cli", "explore"):
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


def test_every_public_name_has_an_example() -> None:
    missing = []
    families = ("models.priors", "models.likelihoods", "models.posteriors")
    for layer in ("data", "models", *families, "inference", "evaluation", "sklearn"):
        package = importlib.import_module(f"aevb.{layer}")
        for name in package.__all__:
            value = getattr(package, name)
            # a type alias has no docstring
            if value is not Head and callable(value) and ">>>" not in (value.__doc__ or ""):
                missing.append(f"{layer}.{name}")
    assert not missing
