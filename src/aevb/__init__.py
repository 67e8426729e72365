"""Deep latent-variable models in Pyro that can be trusted and are fast."""

from importlib.metadata import version

from aevb import data, evaluation, inference, models

__version__ = version("aevb")

__all__ = ["__version__", "data", "evaluation", "inference", "models"]
