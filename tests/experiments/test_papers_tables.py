"""Formulas of the items on imputation, gradients and gaps, each with a broken twin."""

import pytest
import torch
from torch import Tensor

from aevb.experiments.local_flow import amortized_flow, flow_around
from aevb.experiments.missing_pixels import (
    CHAINS,
    MASKS,
    calibration_error,
    interval_hits,
    log_score,
    mask,
    squared_error,
)
from aevb.experiments.papers.gradient_variance import ESTIMATORS, problem, variances
from aevb.inference import importance_evidence
from aevb.inference.svi import gaussian_gradients as gg
from aevb.models import VAE, InverseAutoregressiveFlow

from oracles import STANDARD_ERRORS


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("kind", "share"), [("60 %", 0.6), ("80 %", 0.8)])
def test_pixels_are_missing_at_random(kind: str, share: float) -> None:
    observed = mask(kind, torch.Size((50, 28, 20)), generator())
    missing = 1 - observed.double().mean()
    error = (share * (1 - share) / observed.numel()) ** 0.5
    assert abs(float(missing) - share) < STANDARD_ERRORS * error
    assert not torch.equal(observed[0], observed[1])


def test_a_square_and_a_half_are_missing() -> None:
    square = mask("square", torch.Size((2, 28, 20)), generator())
    assert int((~square).sum()) == 2 * 14 * 10
    assert not square[:, 7:21, 5:15].any()
    half = mask("half", torch.Size((2, 8, 8)), generator())
    assert half[:, :, :4].all()
    assert not half[:, :, 4:].any()
    assert set(MASKS) == {"60 %", "80 %", "square", "half"}


OBSERVED = torch.tensor([[[True, False], [False, False]]])
TRUTH = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])


def test_only_missing_pixels_count() -> None:
    mean = torch.tensor([[[0.9, 0.5], [0.25, 1.0]]])
    assert squared_error(mean, TRUTH, OBSERVED).tolist() == pytest.approx([(0.25 + 0.0625) / 3])
    scores = torch.tensor([0.5, 0.75, 1 - 1e-6]).double().log()
    assert log_score(mean, TRUTH, OBSERVED).tolist() == pytest.approx([float(scores.mean())])


def test_probabilities_that_come_true_are_calibrated_and_sharper_ones_are_not() -> None:
    p = torch.rand(200, 28, 28, generator=generator())
    x = torch.bernoulli(p, generator=generator().manual_seed(1))
    observed = torch.zeros(p.shape, dtype=torch.bool)
    error, bins = calibration_error(p, x, observed)
    count = p.numel()
    assert sum(pixels for _, _, pixels in bins) == count
    # ten bins, each with a standard error of at most half over the root of its pixels
    assert error < STANDARD_ERRORS * 0.5 / (count / 10) ** 0.5
    sharper = torch.sigmoid(2 * torch.logit(p.clamp(1e-6, 1 - 1e-6)))
    assert calibration_error(sharper, x, observed)[0] > 0.05


def hits(scale: float) -> Tensor:
    draws = torch.randn(CHAINS, 400, 5, 5, generator=generator())
    x = scale * torch.randn(400, 5, 5, generator=generator().manual_seed(1))
    return interval_hits(draws, x, torch.zeros(x.shape, dtype=torch.bool))


def test_intervals_cover_nine_in_ten_of_exchangeable_truths_alone() -> None:
    covered = hits(1.0)
    error = float(covered.std()) / len(covered) ** 0.5
    assert abs(float(covered.mean()) - 0.9) < STANDARD_ERRORS * error
    assert float(hits(1.5).mean()) < 0.9 - STANDARD_ERRORS * error
    with pytest.raises(ValueError, match="expected 39"):
        interval_hits(torch.zeros(5, 1, 2, 2), TRUTH, OBSERVED)


def test_variances_in_blocks_are_those_of_all_draws() -> None:
    function, loc, covariances, own = problem(3)
    estimator = ESTIMATORS["reparameterization"]

    def estimate(count: int) -> gg.GaussianGradients:
        return estimator(function, loc, covariances["diagonal"], count, own)

    found = variances(estimate, 40_000, 3)["loc"]
    direct = estimate(40_000).loc.var(0).sum()
    # both are estimates from as many draws
    assert abs(found.value - float(direct)) < STANDARD_ERRORS * 2**0.5 * found.error
    halved = variances(lambda count: half(estimate(count)), 40_000, 3)["loc"]
    assert abs(halved.value - float(direct)) > STANDARD_ERRORS * 2**0.5 * found.error


def half(gradients: gg.GaussianGradients) -> gg.GaussianGradients:
    return gg.GaussianGradients(gradients.loc / 2, gradients.covariance)


def flow_vae() -> tuple[VAE, Tensor]:
    torch.manual_seed(0)
    vae = VAE((4, 4), 3, [8], posterior=InverseAutoregressiveFlow(2, (8,))).eval()
    return vae, torch.bernoulli(torch.full((6, 4, 4), 0.3))


def elbo(vae: VAE, guide: object, x: Tensor) -> Tensor:
    return importance_evidence(vae.model, guide, x, num_samples=2000).elbo  # type: ignore[arg-type]


def test_each_datapoints_flow_starts_as_the_encoders_and_gets_better() -> None:
    vae, x = flow_vae()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    amortized = elbo(vae, vae.guide, x)
    local = amortized_flow(vae.encoder, x)
    assert torch.allclose(elbo(vae, local.guide, x), amortized, atol=1e-5)
    refined = elbo(vae, local.refined(vae, x, steps=150, num_particles=10).guide, x)
    assert bool((refined > amortized).all())
    assert all(torch.equal(before[name], value) for name, value in vae.state_dict().items())
    assert all(parameter.requires_grad for parameter in vae.parameters())
    # another datapoint's flow is another
    swapped = amortized_flow(vae.encoder, x.flip(0))
    assert not torch.allclose(elbo(vae, swapped.guide, x), amortized, atol=1e-3)


def test_a_flow_around_a_normal_starts_as_it() -> None:
    loc, scale = torch.randn(6, 3), torch.rand(6, 3) + 0.5
    flow = flow_around(loc, scale, layers=2, hidden=(8,))
    shift, log_scale = flow._at(0, torch.randn(5, 6, 3))
    assert shift.shape == (5, 6, 3)
    assert not shift.detach().any()
    assert not log_scale.detach().any()
