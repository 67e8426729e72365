"""What a model would have us see: draws, reconstructions, and the plane of a 2-D latent space."""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from aevb.inference.process.devices import device_of
from aevb.inference.process.randomness import stream

__all__ = ["latent_manifold", "prior_means", "prior_samples", "reconstructions"]

Program = Callable[..., Any]


def prior_samples(model: Program, num: int, seed: int = 0) -> Tensor:
    """Draws of ``x`` from the model, noise of the likelihood included.

    Args:
        model: Pyro program ``model(x=None, size=1)`` of this package's form.
        num: N.
        seed: Of the draws; torch's global random state is left as it was.

    Returns:
        ``(N, *shape)``.

    Example:
        >>> from aevb.models import VAE
        >>> prior_samples(VAE((8, 8)).model, 5).shape
        torch.Size([5, 8, 8])
    """
    with torch.no_grad(), stream(seed, "prior", device_of(model)):
        draws: Tensor = model(size=num)
    return draws


def prior_means(model: Program, num: int, seed: int = 0) -> Tensor:
    """E[x|z] at draws of z from the prior.

    Args:
        model: As for :func:`prior_samples`.
        num: N.
        seed: As for :func:`prior_samples`, and of the same z.

    Returns:
        ``(N, *shape)``.

    Example:
        >>> from aevb.models import VAE
        >>> prior_means(VAE((8, 8), latent_dim=2).model, 5).shape
        torch.Size([5, 8, 8])
    """
    with stream(seed, "prior", device_of(model)):
        return _means(model, size=num)


def reconstructions(model: Program, guide: Program, x: Tensor, seed: int = 0) -> Tensor:
    """E[x|z] at one draw of z from the guide, for each datapoint.

    Args:
        model: Joint distribution.
        guide: Posterior.
        x: Data, ``(B, *shape)``.
        seed: Of the draws; torch's global random state is left as it was.

    Returns:
        ``(B, *shape)``.

    Example:
        >>> from aevb.models import VAE
        >>> vae, x = VAE((8, 8)), torch.zeros(3, 8, 8)
        >>> reconstructions(vae.model, vae.guide, x).shape
        torch.Size([3, 8, 8])
    """
    with torch.no_grad(), stream(seed, "reconstructions", device_of(guide, args=x)):
        trace = poutine.trace(guide).get_trace(x)
        return _means(poutine.replay(model, trace=trace), x)


def latent_manifold(model: Program, side: int = 20) -> Tensor:
    r"""E[x|z] on a square grid of a two-dimensional latent space with a standard normal prior.

    The grid is even in probability, :math:`z = \Phi^{-1}(u)` with u on the unit square, so that
    every picture stands for the same prior mass.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), figure 4,
        https://arxiv.org/abs/1312.6114

    Args:
        model: Pyro program whose latent site ``"z"`` has two dimensions.
        side: Points along each axis.

    Returns:
        ``(side * side, *shape)``, row by row, the second latent falling and the first rising.

    Example:
        >>> from aevb.models import VAE
        >>> latent_manifold(VAE((8, 8), latent_dim=2).model, side=3).shape
        torch.Size([9, 8, 8])
    """
    levels = (torch.arange(side) + 0.5) / side
    axis = torch.special.ndtri(levels)
    rows, columns = torch.meshgrid(axis.flip(0), axis, indexing="ij")
    grid = torch.stack([columns.flatten(), rows.flatten()], dim=-1)
    # programs draw what is looked at for its shape alone
    with torch.no_grad(), stream(0, "manifold", device_of(model)):
        site = poutine.trace(model).get_trace().nodes["z"]["value"]
        latents = {"z": grid.to(site)}
        return _means(poutine.condition(model, data=latents), size=side * side)


def _means(program: Program, *args: Any, **kwargs: Any) -> Tensor:
    with torch.no_grad():
        likelihood: Any = poutine.trace(program).get_trace(*args, **kwargs).nodes["x"]["fn"]
    means: Tensor = likelihood.mean
    return means
