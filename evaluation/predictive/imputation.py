"""Missing pixels filled in and noise taken away, by Markov chains of the model and its guide."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from aevb.evaluation.limits import BYTES_AT_ONCE, check_at_least
from aevb.inference import Draws, hmc
from aevb.inference.process import randomness
from aevb.inference.process.progress import tracked, with_progress
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.joint import Joint
from aevb.inference.programs.layouts import batch_shape, read_model_layout, value_of
from aevb.inference.programs.partly_observed import observed_site, partly_observed
from aevb.inference.programs.simulate import unobserved

__all__ = ["Imputation", "denoise", "impute", "impute_hmc"]

Program = Callable[..., Any]


@dataclass(frozen=True)
class Imputation:
    """What chains put in place of missing values.

    Attributes:
        mean: Estimate of E[x | what is observed], ``(N, *shape)``; observed values as they are.
        standard_error: Of ``mean``, from the spread over chains; NaN with a single one.
        last: Each chain's last draw of x, ``(chains, N, *shape)``.
        mse: Mean squared error of ``mean`` over the missing values of each datapoint, ``(N,)``,
            NaN where none is missing; None if the truth was not given.
        num_steps: Of each chain, those before the mean is taken included.
        seed: Of everything random.
        draws: Of Hamiltonian Monte Carlo, with their diagnostics, if it was used.

    Example:
        >>> x = torch.zeros(3, 4)
        >>> Imputation(x, x, x.unsqueeze(0), mse=None, num_steps=10, seed=0)
        Imputation(3 datapoints, 1 chains × 10 steps, seed=0)
    """

    mean: Tensor
    standard_error: Tensor
    last: Tensor
    mse: Tensor | None
    num_steps: int
    seed: int
    draws: Draws | None = None

    def __repr__(self) -> str:
        """One line."""
        error = "" if self.mse is None else f", mse={float(self.mse.nanmean()):.4g}"
        return (
            f"Imputation({len(self.mean)} datapoints, {len(self.last)} chains × {self.num_steps} "
            f"steps{error}, seed={self.seed})"
        )


@with_progress
def impute(
    model: Program,
    guide: Program,
    x: Tensor,
    observed: Tensor,
    *,
    num_steps: int = 100,
    num_chains: int = 4,
    seed: int = 0,
    truth: Tensor | None = None,
    progress: bool | None = None,
) -> Imputation:
    r"""Fill in missing values by the Markov chain of the DLGM paper.

    .. math::
        z \sim q(z \mid x_o, x_m), \qquad x_m \sim p(x_m \mid z)

    Each step encodes the filled-in datapoint, decodes the latents, and puts the observed values
    back. With the exact posterior for q it is a Gibbs sampler of :math:`p(x_m, z | x_o)`;
    otherwise it is off by an amount that the paper bounds by that of the guide, and
    :func:`impute_hmc` is not. Chains start from the model's own draws; the mean is that of
    E[x | z] over the last half.

    References:
        Stochastic Backpropagation and Approximate Inference in Deep Generative Models (Rezende,
        Mohamed & Wierstra, 2014), appendix F, https://arxiv.org/abs/1401.4082;
        Leveraging the Exact Likelihood of Deep Latent Variable Models (Mattei & Frellsen, 2018),
        who call it pseudo-Gibbs, https://arxiv.org/abs/1802.04826

    Args:
        model: Pyro program ``model(x)`` of the joint distribution.
        guide: Pyro program ``guide(x)`` of the posterior; both take any number of datapoints.
        x: Data, ``(N, *shape)``; missing values may be anything, NaN included.
        observed: True where a value is known, broadcast against ``x``.
        num_steps: Of each chain.
        num_chains: Independent chains of each datapoint.
        seed: Same seed, same chains; torch's global random state is left as it was.
        truth: All values, ``(N, *shape)``, to measure the error against.
        progress: Show a progress bar; by default in notebooks alone.

    Raises:
        ValueError: If a number is not positive, a mask or truth does not fit, or the model does
            not observe ``x`` at just one site.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> fa, x = FactorAnalysis((5,), 2), torch.zeros(3, 5)
        >>> observed = torch.tensor([True, True, True, False, False])
        >>> imputation = impute(fa.model, fa.guide, x, observed, num_steps=10)
        >>> imputation.last.shape, imputation.mean[:, :3].abs().max()
        (torch.Size([4, 3, 5]), tensor(0.))
    """
    observed = _checked_mask(x, observed, truth)
    return _chain(model, guide, x, observed, num_steps, num_chains, seed, truth)


def denoise(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    num_steps: int = 1,
    num_chains: int = 16,
    seed: int = 0,
    truth: Tensor | None = None,
) -> Imputation:
    """Replace noisy values by what the model expects: encode and decode, with nothing put back.

    References:
        Stochastic Backpropagation and Approximate Inference in Deep Generative Models (Rezende,
        Mohamed & Wierstra, 2014), appendix F, https://arxiv.org/abs/1401.4082; Generalized
        Denoising Auto-Encoders as Generative Models (Bengio et al., 2013), for the chain,
        https://arxiv.org/abs/1305.6663

    Args:
        model: As for :func:`impute`.
        guide: As for :func:`impute`.
        x: Noisy data in the likelihood's support, ``(N, *shape)``.
        num_steps: One step gives E[x̂ | x]; a long chain forgets the datapoint.
        num_chains: Draws of the latents that are averaged.
        seed: Of the draws.
        truth: Data without noise, to measure the error against.

    Raises:
        ValueError: As :func:`impute`.

    Example:
        >>> from aevb.models import VAE
        >>> vae = VAE((8, 8))
        >>> denoise(vae.model, vae.guide, torch.zeros(3, 8, 8)).mean.shape
        torch.Size([3, 8, 8])
    """
    nothing = _checked_mask(x, torch.zeros(x.shape, dtype=torch.bool, device=x.device), truth)
    return _chain(model, guide, x, nothing, num_steps, num_chains, seed, truth, from_data=True)


def impute_hmc(
    model: Program,
    x: Tensor,
    observed: Tensor,
    *,
    guide: Program | None = None,
    num_chains: int = 16,
    num_samples: int = 500,
    num_warmup: int = 500,
    seed: int = 0,
    truth: Tensor | None = None,
    **settings: Any,
) -> Imputation:
    r"""Fill in missing values by Hamiltonian Monte Carlo, which needs no guide to be right.

    .. math:: z \sim p(z \mid x_o) \propto p(z) \, p(x_o \mid z), \qquad x_m \sim p(x_m \mid z)

    Args:
        model: Pyro program ``model(x)`` whose likelihood is independent over the values of ``x``.
        x: As for :func:`impute`.
        observed: As for :func:`impute`.
        guide: Pyro program for the chains' first masses, called with missing values drawn from
            the model; may be left out.
        num_chains: Of each datapoint.
        num_samples: Draws of each chain.
        num_warmup: Iterations before them.
        seed: Of everything random.
        truth: As for :func:`impute`.
        settings: More of :func:`aevb.inference.hmc`.

    Raises:
        ValueError: As :func:`impute` and :func:`aevb.inference.hmc`; or if the likelihood does
            not factorize over the values of ``x``.

    Warns:
        UserWarning: If chains are stuck or diverge.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> fa, x = FactorAnalysis((5,), 2), torch.zeros(3, 5)
        >>> observed = torch.tensor([True, True, True, False, False])
        >>> imputation = impute_hmc(fa.model, x, observed, num_samples=50, num_warmup=50)
        >>> imputation.last.shape, imputation.draws.samples["z"].shape
        (torch.Size([16, 3, 5]), torch.Size([16, 50, 3, 2]))
    """
    observed = _checked_mask(x, observed, truth)
    with torch.no_grad(), randomness.stream(seed, "fill", x.device), argument_checks(False):
        filled = torch.where(observed, x, _prior_draw(model, x))
        masked = partly_observed(model, observed, observed_site(model, filled))
    draws = hmc(
        masked, filled, guide=guide, num_chains=num_chains, num_samples=num_samples,
        num_warmup=num_warmup, seed=seed, **settings,
    )  # fmt: skip
    with torch.no_grad(), randomness.stream(seed, "predictions", x.device), argument_checks(False):
        means, last = _predictions(model, filled, draws)
    return _imputation(x, observed, means, last, truth, num_warmup + num_samples, seed, draws)


def _chain(
    model: Program,
    guide: Program,
    x: Tensor,
    observed: Tensor,
    num_steps: int,
    num_chains: int,
    seed: int,
    truth: Tensor | None,
    from_data: bool = False,
) -> Imputation:
    check_at_least(1, num_steps=num_steps, num_chains=num_chains)
    # chains lie beside each other in the data plate
    tiled, known = (value.repeat(num_chains, *[1] * (x.ndim - 1)) for value in (x, observed))
    free = unobserved(model)
    with torch.no_grad(), randomness.stream(seed, "imputation", x.device), argument_checks(False):
        site = observed_site(model, x)
        filled = tiled if from_data else _clamped(tiled, known, _prior_draw(model, tiled))
        total = torch.zeros(tiled.shape, dtype=torch.float64, device=x.device)
        first = num_steps // 2
        for number in tracked(range(num_steps), num_steps, "step", "Markov chain"):
            latents = poutine.trace(guide).get_trace(filled)
            decoded = poutine.trace(poutine.replay(free, trace=latents)).get_trace(tiled)
            node: Any = decoded.nodes[site]
            likelihood, draw = node["fn"], node["value"]
            if number >= first:
                total += _expectation(likelihood, draw)
            filled = _clamped(tiled, known, draw.to(x.dtype))
    means = (total / (num_steps - first)).unflatten(0, (num_chains, len(x)))
    last = filled.unflatten(0, (num_chains, len(x)))
    return _imputation(x, observed, means, last, truth, num_steps, seed)


def _clamped(x: Tensor, observed: Tensor, decoded: Tensor) -> Tensor:
    """Observed values as they are, the others as decoded."""
    return torch.where(observed, x, decoded)


def _prior_draw(model: Program, x: Tensor) -> Tensor:
    """Data of the model's own, like ``x``: in the likelihood's support."""
    trace = poutine.trace(unobserved(model)).get_trace(x)
    return value_of(trace, observed_site(model, x)).to(x.dtype)


def _expectation(likelihood: Any, draw: Tensor) -> Tensor:
    """E[x|z], which varies less than the draw, if the likelihood knows it."""
    try:
        mean: Tensor = likelihood.mean
    except NotImplementedError:
        return draw.double()
    return mean.double() if bool(torch.isfinite(mean).all()) else draw.double()


def _predictions(model: Program, x: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Mean of E[x|z] of each chain, and a draw at its end, ``(chains, N, *shape)`` each."""
    layout, trace = read_model_layout(model, x)
    site, free = observed_site(model, x), unobserved(model)
    num_chains, num_draws = draws.unconstrained.shape[:2]
    latents = {}
    for name, value in draws.samples.items():
        node: Any = trace.nodes[name]
        plates = batch_shape(node, layout, num_draws * num_chains)
        in_order = value.transpose(0, 1)  # a draw of every chain, then the next one of each
        latents[name] = in_order.reshape(plates + node["fn"].event_shape)
    joint = Joint(model, x, layout=layout)
    if joint.way != "plate":
        raise ValueError(
            "model: its sites do not broadcast under an outer plate of draws; index from the "
            "right, and leave room for plates on the left"
        )
    num_bytes = joint.cost(latents, free).num_bytes
    at_once = num_chains * max(1, BYTES_AT_ONCE // (num_bytes * num_chains))
    total = torch.zeros((num_chains, *x.shape), dtype=torch.float64, device=x.device)
    for start in range(0, num_chains * num_draws, at_once):
        part = {name: value[start : start + at_once] for name, value in latents.items()}
        decoded: Any = joint.run(free, part).nodes[site]
        draw = decoded["value"].reshape(-1, num_chains, *x.shape)
        means = _expectation(decoded["fn"], decoded["value"]).expand(decoded["value"].shape)
        total += means.reshape(draw.shape).sum(0)
    return total / num_draws, draw[-1].to(x.dtype)


def _imputation(
    x: Tensor,
    observed: Tensor,
    means: Tensor,
    last: Tensor,
    truth: Tensor | None,
    num_steps: int,
    seed: int,
    draws: Draws | None = None,
) -> Imputation:
    """From the mean of each chain, ``(chains, N, *shape)``, float64."""
    num_chains = len(means)
    mean = torch.where(observed, x, means.mean(0).to(x.dtype))
    spread = means.std(0) if num_chains > 1 else torch.full_like(means[0], torch.nan)
    error = torch.where(observed, 0.0, spread / num_chains**0.5).to(x.dtype)
    mse = None
    if truth is not None:
        missing = (~observed).flatten(1)
        squares = torch.where(missing, (mean - truth).double().square().flatten(1), 0.0)
        mse = squares.sum(1) / missing.sum(1)  # 0 / 0 where nothing is missing
    return Imputation(mean, error, torch.where(observed, x, last), mse, num_steps, seed, draws)


def _checked_mask(x: Tensor, observed: Tensor, truth: Tensor | None) -> Tensor:
    if observed.dtype != torch.bool:
        raise ValueError(f"observed: expected a mask of torch.bool; got {observed.dtype}")
    try:
        mask = observed.to(x.device).expand(x.shape)
    except RuntimeError:
        raise ValueError(
            f"observed: {tuple(observed.shape)} does not broadcast to x, {tuple(x.shape)}"
        ) from None
    if not bool(torch.isfinite(x[mask]).all()):
        raise ValueError("x: an observed value is NaN or infinite; mark it as missing")
    if truth is not None and truth.shape != x.shape:
        raise ValueError(f"truth: expected shape {tuple(x.shape)}; got {tuple(truth.shape)}")
    return mask
