"""The experiments there are: every module of ``experiments.papers`` lists its ``EXPERIMENTS``."""

import importlib
import pkgutil
from functools import cache

from aevb.experiments import papers
from aevb.experiments.reproduction.experiment import Experiment

__all__ = ["experiments"]


@cache
def experiments() -> dict[str, Experiment]:
    """By name, in the order of the papers.

    Raises:
        ValueError: If two have one name.
    """
    found: dict[str, Experiment] = {}
    for module in pkgutil.iter_modules(papers.__path__):
        loaded = importlib.import_module(f"{papers.__name__}.{module.name}")
        for experiment in loaded.EXPERIMENTS:
            if experiment.name in found:
                raise ValueError(f"experiments: two are called {experiment.name}")
            found[experiment.name] = experiment
    return found
