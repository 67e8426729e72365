"""Proposals fitted to each datapoint: a Student t with its own covariance, beside the guide."""

import math
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from aevb.inference.mcmc.path_gradients import PathGradient
from aevb.inference.programs.joint import Joint
from aevb.inference.programs.layouts import NoDensityError
from aevb.inference.programs.log_density import LogDensity

__all__ = ["FittedProposal", "fit_proposal"]

# A covariance is a matrix of each datapoint.
_MOST_DIMENSIONS = 500
_GUIDE_DRAWS = 200
# Rounds of the fit end when the bound has not risen by so much for two, or at the latest after so
# many; each has at least so many draws, and more than enough for a covariance.
_RISE, _PATIENCE, _MOST_ROUNDS, _DRAWS = 0.1, 2, 12, 128
_DRAWS_PER_DIMENSION = 4
# Then the weights of so many draws move mean and covariance to the posterior's.
_MOMENT_DRAWS = 2000
_LEAST_DEGREES = 10.0
_GUIDE_SHARE = 0.1
# A gradient costs two more evaluations' worth of work, and of memory.
_GRADIENT_COST = 3


@dataclass(frozen=True)
class FittedProposal:
    r"""A distribution for each posterior that draws where it is, and has heavier tails.

    .. math:: q(u) = (1 - \alpha)\, t_\nu(u; \mu, \Sigma) + \alpha\, q_0(u)

    Attributes:
        density: Of the posteriors.
        mean: ``(B, D)``, float64, in unconstrained coordinates.
        covariance: Of the posterior as the fit has it, ``(B, D, D)``.
        scale_tril: Its Cholesky factor.
        guide_share: α, of the guide's draws, which keep a mode that the fit left; 0 if the guide
            cannot score others' draws.
        num_evaluations: Of the density that the fit took for each datapoint, a gradient being 3.
    """

    density: LogDensity
    mean: Tensor
    covariance: Tensor
    scale_tril: Tensor
    guide_share: float
    num_evaluations: int

    @property
    def degrees_of_freedom(self) -> float:
        """ν: in many dimensions the radius varies less."""
        return max(_LEAST_DEGREES, 0.7 * self.mean.shape[1])

    def draw(self, num: int) -> tuple[dict[str, Tensor], Tensor]:
        """Draws by site and their log q, as :meth:`~aevb.inference.programs.joint.Joint.draw`."""
        u = self.sample(num)
        latents, jacobian = self.density.transformed(u)
        return latents, self.log_prob(u) - jacobian

    def sample(self, num: int) -> Tensor:
        """``(num, B, D)`` in the density's dtype, from the global generator.

        Of the draws a fixed part is the guide's, at the end.
        """
        of_guide = round(self.guide_share * num)
        shape = (num - of_guide, *self.mean.shape)
        nu = self.degrees_of_freedom
        normal = torch.randn(shape, dtype=self.mean.dtype, device=self.mean.device)
        # chi-square with ν degrees of freedom is Gamma(ν/2, 1/2)
        gamma = torch._standard_gamma(normal.new_full(shape[:2], nu / 2))
        away = torch.einsum("bij,sbj->sbi", self.scale_tril, normal)
        u = self.mean + away * (0.5 * nu / gamma).sqrt().unsqueeze(-1)
        u = u.to(self.density.dtype)
        return torch.cat([u, self.density.guide_draws(of_guide)]) if of_guide else u

    def log_prob(self, u: Tensor) -> Tensor:
        """Log q of vectors ``(S, B, D)``, ``(S, B)``, float64."""
        own = _log_t(u.double(), self.mean, self.scale_tril, self.degrees_of_freedom)
        share = self.guide_share and round(self.guide_share * len(u)) / len(u)
        if not share:
            return own
        return torch.logaddexp(own + math.log1p(-share), self.density.guide(u) + math.log(share))


def fit_proposal(joint: Joint, memory_budget: int = 128 * 2**20) -> FittedProposal:
    r"""Fit a normal distribution with full covariance to each posterior, all at once.

    From the mean and variances of the guide's draws, rounds of "batch and match" take draws of the
    normal with the gradients there and solve for the normal whose gradients match best; each
    datapoint keeps that of its best bound. Importance weights then move mean and covariance to the
    posterior's own. Random numbers come from torch's global generator.

    References:
        Batch and match: black-box variational inference with a score-based divergence (Cai et al.,
        2024), algorithm 1, https://arxiv.org/abs/2402.14758; Implicitly adaptive importance
        sampling (Paananen et al., 2021), https://arxiv.org/abs/1906.08850; Truncated Importance
        Sampling (Ionides, 2008), https://doi.org/10.1198/106186008X320456

    Args:
        joint: A model and its guide at their data.
        memory_budget: Bytes that one evaluation of the model may use.

    Raises:
        ValueError: Above 500 dimensions, or as :class:`~aevb.inference.LogDensity`.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> fa, x = FactorAnalysis((5,), 2).double(), torch.zeros(3, 5).double()
        >>> fit_proposal(Joint(fa.model, x, guide=fa.guide)).covariance.shape
        torch.Size([3, 2, 2])
    """
    density = LogDensity(joint.model, *joint.args, guide=joint.given_guide())
    if density.dim > _MOST_DIMENSIONS:
        raise ValueError(
            f"proposal: a covariance is fitted up to {_MOST_DIMENSIONS} dimensions, and each "
            f"posterior has {density.dim}; use ais_evidence or hmc"
        )
    density.adopt(joint)
    with torch.no_grad():
        start = density.guide_draws(_GUIDE_DRAWS)
        fitting = max(1, density.num_fitting(start, memory_budget))
        mean, covariance, num = _match(density, start.double(), max(1, fitting // _GRADIENT_COST))
        share = _GUIDE_SHARE if _can_score(density, start) else 0.0
        fitted = _proposal(density, mean, covariance, share, 0)
        mean, covariance = _moved(fitted, fitting)
        spent = num * _GRADIENT_COST + _MOMENT_DRAWS
        return _proposal(density, mean, covariance, share, spent)


def _proposal(
    density: LogDensity, mean: Tensor, covariance: Tensor, share: float, num: int
) -> FittedProposal:
    return FittedProposal(density, mean, covariance, _factor(covariance), share, num)


def _match(density: LogDensity, start: Tensor, at_once: int) -> tuple[Tensor, Tensor, int]:
    """Mean and covariance with the best bound of each datapoint, and the gradients it took."""
    evaluate = PathGradient(density, at_once)
    mean, covariance = start.mean(0), torch.diag_embed(start.var(0).clamp(min=1e-10))
    count = max(_DRAWS, _DRAWS_PER_DIMENSION * density.dim) // 2 * 2
    best = mean.new_full(mean.shape[:1], -math.inf)
    kept = mean.clone(), covariance.clone()
    stale, spent = torch.zeros_like(best), 0
    for number in range(_MOST_ROUNDS):
        factor = _factor(covariance)
        half = torch.randn(count // 2, *mean.shape, dtype=mean.dtype, device=mean.device)
        normal = torch.cat([half, -half])
        u = mean + torch.einsum("bij,sbj->sbi", factor, normal)
        point = evaluate(u.to(density.dtype))
        spent += count
        gradient = point.gradient.double()
        log_q = -0.5 * normal.square().sum(-1) - factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        bound = (point.log_density - log_q).mean(0)
        sound = torch.isfinite(bound) & torch.isfinite(gradient).all(-1).all(0)
        better = sound & (bound > best)
        stale = torch.where(better & (bound > best + _RISE), 0.0, stale + 1)
        best = torch.where(better, bound, best)
        kept = _where(better, (mean, covariance), kept)
        if bool((stale >= _PATIENCE).all()):
            break
        moved = _matched(mean, covariance, u, gradient, count * density.dim / (number + 1))
        sound &= torch.isfinite(moved[0]).all(-1) & torch.isfinite(moved[1]).all(-1).all(-1)
        # where gradients are not finite the normal is too wide for the posterior
        mean, covariance = _where(sound, moved, (kept[0], 0.25 * covariance))
    return *kept, spent


def _matched(
    mean: Tensor, covariance: Tensor, u: Tensor, gradient: Tensor, rate: float
) -> tuple[Tensor, Tensor]:
    """A step of batch and match; the larger its rate, the less the old normal counts."""
    own = rate / (1 + rate)
    centre, slope = u.mean(0), gradient.mean(0)
    left = rate * _covariance(gradient - slope) + own * _outer(slope)
    right = covariance + rate * _covariance(u - centre) + own * _outer(mean - centre)
    factor = _factor(right)
    values, vectors = torch.linalg.eigh(factor.mT @ left.nan_to_num() @ factor)
    # S of S A S + S = V, for A = left, V = right
    basis = factor @ vectors
    scales = 2 / (1 + (1 + 4 * values.clamp(min=0.0)).sqrt())
    new = (basis * scales.unsqueeze(-2)) @ basis.mT
    step = (new @ slope.unsqueeze(-1)).squeeze(-1) + centre
    return mean / (1 + rate) + own * step, new


def _moved(proposal: FittedProposal, at_once: int) -> tuple[Tensor, Tensor]:
    """Mean and covariance by truncated weights, as far as there are draws that count."""
    u = proposal.sample(_MOMENT_DRAWS)
    log_p = torch.cat([proposal.density.joint(part) for part in u.split(at_once)])
    log_weights = log_p - proposal.log_prob(u)
    log_weights = torch.where(torch.isnan(log_weights), -math.inf, log_weights)
    # to √S times their mean
    most = torch.logsumexp(log_weights, 0) - 0.5 * math.log(len(u))
    share = torch.softmax(torch.minimum(log_weights, most), 0).nan_to_num()
    count = 1 / share.square().sum(0).clamp(min=1e-300)
    weight = (count / (count + 2 * proposal.mean.shape[1])).unsqueeze(-1)
    weight = torch.where(share.sum(0).unsqueeze(-1) > 0.5, weight, 0.0)
    u = u.double()
    mean = torch.einsum("sb,sbi->bi", share, u)
    mean = weight * mean + (1 - weight) * proposal.mean
    away = (u - mean) * share.sqrt().unsqueeze(-1)
    spread = torch.einsum("sbi,sbj->bij", away, away)
    weight = weight.unsqueeze(-1)
    return mean, weight * spread + (1 - weight) * proposal.covariance


def _can_score(density: LogDensity, draws: Tensor) -> bool:
    """Whether the guide has a density at draws that are not its own, and finite where it drew."""
    if density.guide_way != "plate":
        return False
    with suppress(NoDensityError, ValueError, RuntimeError):
        return bool(torch.isfinite(density.guide(draws[:2])).all())
    return False


def _factor(covariance: Tensor) -> Tensor:
    """Cholesky factors, with what of the diagonal rounding makes necessary."""
    scale = covariance.diagonal(dim1=-2, dim2=-1).clamp(min=1e-300).sqrt()
    correlation = covariance / (scale.unsqueeze(-1) * scale.unsqueeze(-2))
    correlation = torch.nan_to_num(correlation)
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    factor, info = torch.linalg.cholesky_ex(correlation)
    for jitter in (1e-10, 1e-6, 1e-2):
        if not bool((info > 0).any()):
            break
        again, failed = torch.linalg.cholesky_ex(correlation + jitter * eye)
        factor = torch.where((info > 0)[:, None, None], again, factor)
        info = torch.where(info > 0, failed, info)
    factor = torch.where((info > 0)[:, None, None], eye, factor)
    return scale.unsqueeze(-1) * factor


def _log_t(u: Tensor, mean: Tensor, factor: Tensor, nu: float) -> Tensor:
    dim = mean.shape[-1]
    away = (u - mean).permute(1, 2, 0)
    square = torch.linalg.solve_triangular(factor, away, upper=False).square().sum(1).T
    constant = (
        math.lgamma((nu + dim) / 2) - math.lgamma(nu / 2) - 0.5 * dim * math.log(nu * math.pi)
    )
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return constant - log_det - 0.5 * (nu + dim) * torch.log1p(square / nu)


def _covariance(away: Tensor) -> Tensor:
    return torch.einsum("sbi,sbj->bij", away, away) / len(away)


def _outer(vector: Tensor) -> Tensor:
    return vector.unsqueeze(-1) * vector.unsqueeze(-2)


def _where(
    choice: Tensor, yes: tuple[Tensor, Tensor], no: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    return (
        torch.where(choice.unsqueeze(-1), yes[0], no[0]),
        torch.where(choice[:, None, None], yes[1], no[1]),
    )
