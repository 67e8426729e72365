"""What models make of data and latents: means, reconstructions and evidence."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from aevb import evaluation, inference, models

SHAPE = (4, 4)
MODELS: dict[str, Any] = {
    "VAE": lambda: models.VAE(SHAPE, 3, [8]),
    "correlated": lambda: models.VAE(SHAPE, 3, [8], posterior=models.FullNormal()),
    "flow": lambda: models.VAE(SHAPE, 3, [8], posterior=models.InverseAutoregressiveFlow()),
    "simplex": lambda: models.VAE(SHAPE, 3, [8], prior=models.Dirichlet()),
    "DLGM": lambda: models.DLGM(SHAPE, [3, 2], [8]),
    "HierarchicalVAE": lambda: models.HierarchicalVAE(SHAPE, [3, 2], [[8], [8]]),
    "exact": lambda: models.FactorAnalysis(SHAPE, 2),
}


def binary(num: int = 6) -> Tensor:
    return torch.rand(num, *SHAPE, generator=torch.Generator().manual_seed(5)).round()


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(3)
    return MODELS[request.param]()


def test_what_is_encoded_can_be_decoded(model: Any) -> None:
    x = binary()
    z = model.encode(x, num_samples=20)
    drawn = model.guide(x)
    shapes = [[t.shape for t in (v if isinstance(v, tuple) else (v,))] for v in (z, drawn)]
    assert shapes[0] == shapes[1]
    assert model.decode(z).shape == x.shape
    assert torch.equal(model.reconstruct(x, num_samples=20), model.decode(z))
    assert not model.decode(z).requires_grad


def test_means_are_those_of_the_embedding(model: Any) -> None:
    """By draws both, where there is no closed form: within five standard errors of the two."""
    x = binary()
    z = model.encode(x, num_samples=2000)
    means = {"z": z} if isinstance(z, Tensor) else {f"z{i + 1}": v for i, v in enumerate(z)}
    embedding = evaluation.embed(model.guide, x, num_samples=2000, seed=1)
    for column, name in enumerate(embedding.names):
        site, _, place = name.partition("[")
        own = means[site][:, int(place.rstrip("]"))]
        error = 5 * math.sqrt(2) * embedding.standard_error[:, column] + 1e-6
        assert bool(((own - embedding.mean[:, column]).abs() <= error).all()), name


# The simplex's weights have tails too heavy for a standard error.
@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"simplex"}))
def test_evidence_is_that_of_importance_sampling(name: str) -> None:
    """Two independent estimates of one integral: within five standard errors of both."""
    torch.manual_seed(3)
    model, x = MODELS[name](), binary()
    own = model.log_evidence(x, *([] if isinstance(model, models.LinearGaussian) else [2000]))
    other = inference.importance_evidence(model.model, model.guide, x, num_samples=2000)
    error = 5 * math.sqrt(2) * other.standard_error + 1e-5
    assert own.shape == (6,)
    assert bool(((own - other.log_evidence).abs() < error).all())


def test_evidence_without_the_prior_would_be_found_out() -> None:
    """A broken twin."""
    torch.manual_seed(3)
    vae, x = MODELS["VAE"](), binary()
    z = torch.stack([vae.guide(x) for _ in range(2000)])
    weights = vae.decoder(z).log_prob(x) - vae.encoder(x).log_prob(z)
    broken = torch.logsumexp(weights, 0) - math.log(2000)
    other = inference.importance_evidence(vae.model, vae.guide, x, num_samples=2000)
    error = 5 * math.sqrt(2) * other.standard_error + 1e-5
    assert not bool(((broken - other.log_evidence).abs() < error).all())
    own = vae.log_evidence(x, 2000)
    assert bool(((own - other.log_evidence).abs() < error).all())


def test_looking_changes_nothing(model: Any) -> None:
    model.train()
    torch.manual_seed(0)
    model.reconstruct(binary(), num_samples=3)
    model.log_evidence(binary())
    after = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(3), after)
    assert model.training


def test_noise_of_training_is_not_seen() -> None:
    vae, x = models.VAE(SHAPE, 2, [8], input_noise=models.BitFlip(0.5)).train(), binary()
    assert torch.equal(vae.encode(x), vae.encode(x))
    assert torch.equal(vae.encode(x), vae.encoder(x).mean)


def test_what_has_no_density_has_no_evidence() -> None:
    point = models.VAE(SHAPE, 2, [8], posterior=models.Delta())
    assert point.encode(binary()).shape == (6, 2)
    with pytest.raises(ValueError, match="single point, which has no density"):
        point.log_evidence(binary())
    latent = models.VAE(SHAPE, 2, [8], weights=models.LatentWeights())
    with pytest.raises(ValueError, match="weights are latent"):
        latent.log_evidence(binary())
    assert latent.at_mean_weights().log_evidence(binary(), 10).shape == (6,)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="z: expected latents z1, z2; got 1"):
        MODELS["DLGM"]().decode(torch.zeros(5, 3))
    with pytest.raises(ValueError, match="num_samples: must be at least 1; got 0"):
        MODELS["VAE"]().log_evidence(binary(), num_samples=0)
    with pytest.raises(ValueError, match=r"x: expected shape \(B, 4, 4\)"):
        MODELS["VAE"]().encode(torch.zeros(5, 3))
