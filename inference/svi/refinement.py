"""A guide's own family fitted to each datapoint alone, for all datapoints at once."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro import poutine
from torch import Tensor, nn
from torch import distributions as torch_dist
from torch.distributions import transform_to

from aevb.data.seeds import fresh_if_none
from aevb.inference.graphs.compile import graph_function
from aevb.inference.graphs.tracing import NotTraceableError
from aevb.inference.process import randomness
from aevb.inference.process.devices import device_of, moved
from aevb.inference.process.limits import refuse_below
from aevb.inference.process.progress import progress_bar
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.joint import Joint
from aevb.inference.programs.layouts import in_plate, read_layout, sites, sum_log_prob, value_of

__all__ = ["LocalPosterior", "NoFamilyError", "Refinement", "refine"]

# As in the paper's own code: a hundred steps are averaged, and ten averages without a better one
# are the end.
_WINDOW = 100
_PATIENCE = 10


class NoFamilyError(ValueError):
    """A guide's family has no parameters of its own for each datapoint.

    Example:
        >>> from aevb import inference, models
        >>> flow = models.VAE((4,), posterior=models.InverseAutoregressiveFlow())
        >>> inference.refine(flow.model, flow.guide, torch.zeros(2, 4))
        Traceback (most recent call last):
        aevb.inference.svi.refinement.NoFamilyError: ...
    """


class LocalPosterior(nn.Module):
    """A posterior of its own for each datapoint, of a guide's family, that started from the guide.

    Args:
        guide: Pyro program whose latents all lie in the rightmost ``"data"`` plate.
        args: Its arguments.

    Raises:
        NoFamilyError: If the guide has no such family: a joint posterior, latents that depend on
            one another, point masses, or transformations with weights of their own.

    Example:
        >>> from aevb.models import VAE
        >>> vae, x = VAE((8, 8), latent_dim=3), torch.zeros(5, 8, 8)
        >>> local = LocalPosterior(vae.guide, x)
        >>> {name: tuple(p.shape) for name, p in local.named_parameters()}
        {'families.0.free.loc': (5, 3), 'families.0.free.scale': (5, 3)}
    """

    def __init__(self, guide: Callable[..., Any], *args: Any) -> None:
        super().__init__()
        with torch.no_grad(), argument_checks(False):
            first, second = (poutine.trace(guide).get_trace(*args) for _ in range(2))
        self.names = [name for name, _ in sites(first)]
        self.families = nn.ModuleList(
            _Family(name, site["fn"], second.nodes[name]["fn"]) for name, site in sites(first)
        )
        self.plates = [site["cond_indep_stack"] for _, site in sites(first)]
        frames = {frame for stack in self.plates for frame in stack}
        if not self.names or any((f.name, f.dim) != ("data", -1) for f in frames) or not frames:
            raise NoFamilyError(
                "guide: is refined only where each latent lies in the plate 'data' and in no other"
            )
        self.size = next(iter(frames)).size

    def guide(self, *args: Any) -> None:
        """The Pyro program; its arguments are those of the guide, and are not looked at."""
        del args
        with pyro.plate("data", self.size):
            for name, family in zip(self.names, self.families, strict=True):
                pyro.sample(name, family())


class _Family(nn.Module):
    """One site's distribution with free parameters."""

    def __init__(self, name: str, fn: Any, again: Any) -> None:
        super().__init__()
        self.event_dim = fn.event_dim
        base, self.transforms = _innermost(fn)
        if isinstance(base, dist.Delta):
            raise NoFamilyError(
                f"guide: site {name!r} is a point mass, and has no family to refine"
            )
        if any(isinstance(transform, nn.Module) for transform in self.transforms):
            raise NoFamilyError(
                f"guide: site {name!r} is transformed by a network, whose weights all datapoints "
                "share; such a family has no parameters for each of them"
            )
        self.make = type(base)
        values, others = _parameters(base), _parameters(_innermost(again)[0])
        if any(not torch.equal(values[key], others[key]) for key in values):
            raise NoFamilyError(
                f"guide: the distribution of site {name!r} depends on other draws; only families "
                "that are independent given the data are refined"
            )
        self.constraints = {key: base.arg_constraints[key] for key in values}
        self.free = nn.ParameterDict(
            {
                key: nn.Parameter(transform_to(self.constraints[key]).inv(value).clone())
                for key, value in values.items()
            }
        )

    def forward(self) -> Any:
        """The distribution of all datapoints."""
        values = {
            key: transform_to(self.constraints[key])(value) for key, value in self.free.items()
        }
        base = self.make(**values)
        if not self.transforms:
            return base.to_event(self.event_dim - base.event_dim)
        inner = max([base.event_dim, *(t.domain.event_dim for t in self.transforms)])
        base = base.to_event(inner - base.event_dim)
        transformed = dist.TransformedDistribution(base, self.transforms)
        return transformed.to_event(self.event_dim - transformed.event_dim)


@dataclass(frozen=True, repr=False)
class Refinement:
    """The outcome of :func:`refine`.

    Attributes:
        posterior: With the best parameters of each datapoint.
        elbo: Mean of the best window of each datapoint while fitting, ``(B,)``, in nats; chosen
            as the best of many, hence a little too large.
        num_steps: Steps made.
        is_converged: Where the stopping rule was met, ``(B,)``.

    Example:
        >>> from aevb import inference, models
        >>> fa, x = models.FactorAnalysis((5,), 2, models.DiagonalNormal()), torch.zeros(3, 5)
        >>> refined = inference.refine(fa.model, fa.guide, x, max_steps=50)
        >>> refined.elbo.shape, refined.num_steps, refined.is_converged.shape
        (torch.Size([3]), 50, torch.Size([3]))
    """

    posterior: LocalPosterior
    elbo: Tensor
    num_steps: int
    is_converged: Tensor

    def __repr__(self) -> str:
        """One line."""
        return (
            f"Refinement({int(self.is_converged.sum())} of {len(self.elbo)} converged, "
            f"{self.num_steps:,} steps, mean ELBO {float(self.elbo.mean()):.4g})"
        )


def refine(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    num_particles: int = 50,
    learning_rate: float = 5e-3,
    max_steps: int = 5000,
    seed: int | None = 0,
) -> Refinement:
    r"""Maximize the ELBO of each datapoint over the parameters of its own posterior.

    .. math:: \lambda_i^\star = \arg\max_\lambda
        E_{q_\lambda} \log \frac{p(x_i, z)}{q_\lambda(z)}

    From the guide's parameters Adam takes steps until ten averages over a hundred steps bring no
    better one; each datapoint keeps the parameters of its best average.

    References:
        Inference Suboptimality in Variational Autoencoders (Cremer, Li & Duvenaud, 2018),
        section 5.1 and appendix, https://arxiv.org/abs/1801.03558

    Args:
        model: Pyro program of the joint distribution; its weights are left alone.
        guide: Pyro program of the posterior.
        args: Arguments of both.
        num_particles: Draws of each step.
        learning_rate: Of Adam.
        max_steps: End, converged or not.
        seed: Of the draws.

    Raises:
        ValueError: As :class:`LocalPosterior`, or if a number is not positive.

    Example:
        >>> from aevb.models import VAE
        >>> vae, x = VAE((8, 8), latent_dim=3), torch.zeros(5, 8, 8)
        >>> refine(vae.model, vae.guide, x, num_particles=5, max_steps=100).elbo.shape
        torch.Size([5])
    """
    seed = fresh_if_none(seed)
    refuse_below(1, num_particles=num_particles, max_steps=max_steps)
    device = device_of(model, guide, args=args)
    args = moved(args, device)
    with randomness.stream(seed, "refine", device), argument_checks(False):
        if read_layout(model, guide, *args).num_datapoints is None:
            raise NoFamilyError(
                "model and guide: have one joint posterior, which is refined by training it"
            )
        local = LocalPosterior(guide, *args)
        joint = Joint(model, *args, guide=local.guide)
        return _fitted(local, joint, num_particles, learning_rate, max_steps)


def _fitted(
    local: LocalPosterior,
    joint: Joint,
    num_particles: int,
    learning_rate: float,
    max_steps: int,
) -> Refinement:
    parameters = list(local.parameters())

    def step(*values: Tensor) -> tuple[Tensor, ...]:
        del values  # the very parameters
        with torch.enable_grad():
            elbo = _elbo(local, joint, num_particles)
            return (elbo.detach(), *torch.autograd.grad(elbo.sum(), parameters))

    _ = joint.way  # found now, and not inside the graph
    run: Callable[..., Any] = step
    with suppress(NotTraceableError):
        run = graph_function(step, *parameters)
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, maximize=True)
    best = torch.full((local.size,), -torch.inf, dtype=torch.float64, device=parameters[0].device)
    kept = [p.detach().clone() for p in parameters]
    stale = torch.zeros_like(best)
    made = 0
    bar = progress_bar(max_steps, "step", description="refinement")
    while made < max_steps and bool((stale < _PATIENCE).any()):
        total = torch.zeros_like(best)
        window = min(_WINDOW, max_steps - made)
        start = [p.detach().clone() for p in parameters]
        for _ in range(window):
            elbo, *gradients = run(*parameters)
            total += elbo
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
        made += window
        bar.update(window)
        mean = total / window
        better = (mean > best) & (stale < _PATIENCE)
        best = torch.where(better, mean, best)
        stale = torch.where(better, 0.0, stale + 1)
        with torch.no_grad():
            for place, (before, parameter) in enumerate(zip(start, parameters, strict=True)):
                # the middle of the window, whose average it is
                middle = 0.5 * (before + parameter)
                wide = better.view(-1, *[1] * (parameter.ndim - 1))
                kept[place] = torch.where(wide, middle, kept[place])
    bar.close()
    with torch.no_grad():
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.copy_(value)
            parameter.grad = None
    return Refinement(local.requires_grad_(False), best.cpu(), made, (stale >= _PATIENCE).cpu())


def _elbo(local: LocalPosterior, joint: Joint, num_particles: int) -> Tensor:
    """``(B,)``, float64, in nats."""
    drawn = in_plate(local.guide, joint.layout, num_particles)
    trace = poutine.trace(drawn).get_trace(*joint.args)
    latents = {name: value_of(trace, name) for name in local.names}
    log_q = sum_log_prob(sites(trace), joint.layout, num_particles)
    return (joint.log_joint(latents) - log_q).mean(0)


def _innermost(fn: Any) -> tuple[Any, list[Any]]:
    """What is drawn first, and the transforms that follow."""
    transforms: list[Any] = []
    while isinstance(fn, torch_dist.Independent | torch_dist.TransformedDistribution):
        transforms = [*getattr(fn, "transforms", ()), *transforms]
        fn = fn.base_dist
    return fn, transforms


def _parameters(base: Any) -> dict[str, Tensor]:
    """What a distribution is made of; the covariance by its factor."""
    names = list(base.arg_constraints)
    if isinstance(base, torch_dist.MultivariateNormal):
        names = ["loc", "scale_tril"]
    elif "logits" in names and "probs" in names:
        names.remove("probs")
    batch = base.batch_shape
    values = {name: getattr(base, name).detach() for name in names}
    return {
        name: value.expand(batch + value.shape[min(value.ndim, len(batch)) :]).clone()
        for name, value in values.items()
    }
