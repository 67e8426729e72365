"""What the page is told: positions, pictures, samples of regions, trials."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyro import poutine
from torch import Tensor

from aevb import models
from aevb.explore.explorer import Explorer, read_labels
from aevb.explore.latent_space import LatentSpace
from aevb.explore.pictures import Painter, sheet
from aevb.explore.trials import FIGURES, put_on_trial


def last(steps: Any) -> dict[str, Any]:
    *_, found = steps
    return dict(found)


def factor_analysis(num: int = 6) -> tuple[models.FactorAnalysis, Tensor]:
    """A model whose guide is the exact posterior, and data of its own."""
    fa = models.FactorAnalysis((5,), 2).double()
    return fa, poutine.trace(fa.model).get_trace(size=num).nodes["x"]["value"].detach()


class Narrow(models.FactorAnalysis):
    """The same model with a guide of a third of the width, or of another part of it."""

    factor = 3.0

    def guide(self, x: Tensor) -> Tensor:
        return _narrowed(super().guide, self.factor)(x)


def _narrowed(guide: Any, factor: float) -> Any:
    def narrow(x: Tensor) -> Tensor:
        import pyro
        from pyro import distributions as dist

        with poutine.block():
            q = poutine.trace(guide).get_trace(x).nodes["z"]["fn"]
        with pyro.plate("data", len(x)):
            scale = q.variance.sqrt() / factor
            return pyro.sample("z", dist.Normal(q.mean, scale).to_event(1))

    return narrow


def test_the_map_of_two_latents_is_the_latent_space_itself(explorer: Explorer) -> None:
    seen = explorer.overview()
    assert seen["columns"] == ["z[0]", "z[1]"]
    assert np.allclose(seen["positions"], explorer.space.mean.T.numpy(), atol=1e-4)
    assert seen["labels"]["classes"] == [str(n) for n in range(10)]
    assert seen["plane"] == {"side": 21}


def test_more_latents_come_by_activity_with_two_principal_components() -> None:
    x = torch.rand(30, 6, generator=torch.Generator().manual_seed(0)).round()
    space = LatentSpace(models.VAE((6,), latent_dim=7, hidden=[5]), x, max_latents=4)
    variance = space.units.variance[space.shown]
    assert space.names[4:] == ["PC 1", "PC 2"]
    assert bool((variance.diff() <= 0).all())
    columns = space.columns(space.mean)
    scores = torch.linalg.svd(space.mean - space.centre)[1]
    spread = (columns[:, 4:].square().sum(0)).sqrt()
    assert torch.allclose(spread, scores[:2], rtol=1e-4)
    assert sum(space.explained()) <= 1 + 1e-6


def test_a_single_latent_is_shown_against_its_spread() -> None:
    explorer = Explorer(models.VAE((4,), latent_dim=1), torch.eye(4))
    assert explorer.overview()["columns"] == ["z", "sd of z"]
    assert explorer.sample((0, 1), (-9, 9, -9, 9), num=3)["found"] == 3


@pytest.mark.parametrize(
    "model",
    [
        models.DLGM((4, 4), latent_dims=[3, 2]),
        models.HierarchicalVAE((4, 4), latent_dims=[3, 2], hidden=[[4], [4]]),
        models.VAE((4, 4), latent_dim=3, prior=models.priors.Dirichlet()),
        models.VAE((4, 4), latent_dim=3, posterior=models.PlanarFlow()),
        models.VAE((3, 4, 4), latent_dim=3),
        models.VAE((4, 4), latent_dim=3, posterior=models.Delta()),
    ],
)
def test_every_kind_of_latents_can_be_moved_and_decoded(model: Any) -> None:
    x = torch.rand(5, *model.shape).round()
    explorer = Explorer(model.eval(), x)
    space = explorer.space
    for ends in (space.low, space.high):
        assert explorer.decode(ends.tolist(), base=1)["picture"].startswith("data:image/png")
    assert len(explorer.datapoint(2)["samples"]) == 6
    # decoding the mean is the model's own expectation at these latents
    z = space.guide_draws(0, 4, seed=0)
    assert space.decode(z).shape == (4, *model.shape)
    assert torch.allclose(space.vectors(space._by_site(z)), z, atol=1e-5)


def test_prior_draws_of_a_region_lie_in_it_with_the_priors_share() -> None:
    fa, x = factor_analysis()
    explorer = Explorer(fa, x)
    found = explorer.sample((0, 1), (0.0, 1.0, 0.0, 1.0), num=100)
    at = np.array([s["at"] for s in found["samples"]])
    assert at.shape == (100, 2)
    assert at.min() >= 0
    assert at.max() <= 1
    truth = (0.5 * math.erf(1 / 2**0.5)) ** 2
    assert abs(found["share"] - truth) < 5 * (truth * (1 - truth) / 5_000) ** 0.5
    wider = explorer.sample((0, 1), (0.0, 1.5, 0.0, 1.0), num=100)["share"]
    assert abs(wider - truth) > 5 * (truth * (1 - truth) / 5_000) ** 0.5
    again = explorer.sample((0, 1), (0.0, 1.0, 0.0, 1.0), num=100, draw=1)
    assert again["samples"] != found["samples"]


def test_a_region_that_the_prior_never_reaches_is_empty(explorer: Explorer) -> None:
    for source in ("prior", "posteriors"):
        found = explorer.sample((0, 1), (90.0, 91.0, 90.0, 91.0), source)  # type: ignore[arg-type]
        assert found == {"samples": [], "share": 0.0, "found": 0}


def test_posteriors_of_a_region_are_those_of_its_datapoints(explorer: Explorer) -> None:
    at = explorer.space.columns(explorer.space.mean)[7]
    x, y = at.tolist()
    found = explorer.sample((0, 1), (x - 1e-3, x + 1e-3, y - 1e-3, y + 1e-3), "posteriors", 50)
    assert found["share"] == pytest.approx(1 / 40)
    drawn = torch.tensor([s["at"] for s in found["samples"]])
    scale = explorer.space.scale[7, explorer.space.shown]
    assert bool(((drawn.mean(0) - at).abs() < 5 * scale / 50**0.5).all())


def test_an_exact_guide_is_believed_and_its_evidence_exact() -> None:
    fa, x = factor_analysis()
    settings = {"num_chains": 8, "max_draws": 400, "num_temperatures": 5}
    found = last(put_on_trial(LatentSpace(fa, x), 0, **settings))
    truth = float(fa.log_evidence(x)[0].detach())
    assert found["verdict"]["level"] == "believe", found["verdict"]
    assert [e["log_evidence"] for e in found["evidence"]] == pytest.approx([truth] * 2, abs=1e-6)
    assert len(found["draws"]) == 400


def test_a_guide_that_is_too_narrow_is_not_believed() -> None:
    fa, x = factor_analysis()
    narrow = Narrow((5,), 2).double()
    narrow.load_state_dict(fa.state_dict())
    settings = {"num_chains": 8, "max_draws": 400, "num_temperatures": 5}
    verdict = last(put_on_trial(LatentSpace(narrow, x), 0, **settings))["verdict"]
    assert verdict["level"] in ("refuse", "reweigh"), verdict
    assert verdict["scale_ratio"] == pytest.approx(1 / 3, abs=0.05)


@pytest.mark.parametrize(("factor", "level"), [(1.0, "unknown"), (30.0, "refuse")])
def test_without_chains_a_guide_is_refused_only_if_its_bound_is_far_below(
    factor: float, level: str
) -> None:
    fa, x = factor_analysis()
    narrow = Narrow((5,), 2).double()
    narrow.load_state_dict(fa.state_dict())
    narrow.factor = factor
    brief = {"num_chains": 4, "max_draws": 50, "num_warmup": 20, "num_temperatures": 60}
    verdict = last(put_on_trial(LatentSpace(narrow, x), 0, **brief))["verdict"]
    assert verdict["level"] == level, verdict
    assert "did not converge" in str(verdict)


def test_weighing_tells_what_importance_sampling_tells(explorer: Explorer) -> None:
    found = last(explorer.weigh())
    assert {len(values) for values in found["figures"].values()} == {40}
    assert set(found["figures"]) == set(FIGURES)
    assert found["summary"]["untrusted"] == 40 - sum(found["trusted"])
    fa, x = factor_analysis()
    exact = last(Explorer(fa, x, num_samples=50).weigh())["figures"]
    assert exact["log_evidence"] == pytest.approx(fa.log_evidence(x).tolist(), abs=1e-9)
    assert exact["gap"] == pytest.approx([0.0] * 6, abs=1e-9)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda e: e.datapoint(40), "index: expected 0..39"),
        (lambda e: e.datapoint(-1), "index"),
        (lambda e: e.decode([1.0]), "values: expected 2"),
        (lambda e: e.decode([math.nan, 0.0]), "finite"),
        (lambda e: e.decode([0.0, 0.0], base=99), "index"),
        (lambda e: e.sample((0, 5), (0, 1, 0, 1)), "columns"),
        (lambda e: e.sample((0, 1), (0, 1, 0, 1), "nowhere"), "source"),
        (lambda e: e.sample((0, 1), (0, 1, 0, 1), num=10_000), "num"),
        (lambda e: Explorer(e.space.model, e.space.x[:1]), "at least two"),
        (lambda e: Explorer(e.space.model, e.space.x, np.zeros(3)), "labels"),
    ],
)
def test_nonsense_is_refused(explorer: Explorer, call: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call(explorer)


def test_labels_come_from_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(9))
    (tmp_path / "b.txt").write_text("cat\ndog\ncat\n")
    assert read_labels(tmp_path / "a.npy", 5).tolist() == [0, 1, 2, 3, 4]
    assert read_labels(tmp_path / "b.txt", 3).tolist() == ["cat", "dog", "cat"]
    with pytest.raises(ValueError, match="at least 4"):
        read_labels(tmp_path / "b.txt", 4)


def test_rows_that_are_no_images_are_drawn_as_bars() -> None:
    paint = Painter(torch.tensor([[0.0, 2.0], [1.0, 0.0]]))
    bars = paint(torch.tensor([[0.0, 1.0]]))
    assert bars.shape == (1, 24, 2)
    assert bars[0].sum(0).tolist() == [0, 12 * 255]


def test_large_pictures_are_made_smaller_for_the_sheet() -> None:
    _, where = sheet(np.zeros((3, 256, 128, 3), np.uint8))
    assert where == {"columns": 2, "width": 32, "height": 64}
