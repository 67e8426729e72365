"""Where weights start, against the formulas."""

import math

import pytest
import torch

from aevb import models
from aevb.models import Glorot, He, Initializer, SmallNormal

INITIALIZERS: list[tuple[Initializer, float]] = [  # with the standard deviation at 100 → 50
    (SmallNormal(0.1), 0.1),
    (Glorot(), math.sqrt(6 / 150 / 3)),
    (He(), math.sqrt(2 / 100)),
]


@pytest.mark.parametrize(("initializer", "scale"), INITIALIZERS)
def test_spread_of_weights(initializer: Initializer, scale: float) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(100, 50)
    assert abs(float(layer.weight.detach().std()) - scale) > 5 * scale / math.sqrt(2 * 5000)
    initializer.draw(layer)
    assert abs(float(layer.weight.detach().std()) - scale) < 5 * scale / math.sqrt(2 * 5000)


@pytest.mark.parametrize("network", [models.MLP([20]), models.MLP([20], gated=True)])
def test_the_decoder_starts_at_the_mean_of_the_data(network: models.Network) -> None:
    mean = torch.rand(4, 4).clamp(0.01, 0.99)
    vae = models.VAE((4, 4), network=network)
    Glorot(data_mean=True)(vae, mean)
    likelihood = vae.decoder(torch.zeros(1, 2))  # the other biases are zero, and so the features
    assert torch.allclose(likelihood.mean, mean)
    Glorot()(vae, mean)
    assert not torch.allclose(vae.decoder(torch.zeros(1, 2)).mean, mean)


def test_pixels_that_are_never_on_start_with_finite_logits() -> None:
    vae = models.VAE((4, 4))
    He(data_mean=True)(vae, torch.zeros(4, 4))
    assert all(bool(p.isfinite().all()) for p in vae.parameters())


def test_a_scale_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="scale must be positive"):
        SmallNormal(0.0)
