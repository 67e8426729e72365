"""Figure 3 of AEVB: evidence around chains against a grid, the claims, training points."""

from typing import Any

import pytest
import torch
from torch import Tensor

from aevb.experiments.chain_proposal import evidence_around, likely_start
from aevb.experiments.ends_compared import ordered
from aevb.experiments.learning_rates import judged_rates
from aevb.experiments.reproduction.plane import log_evidence_on
from aevb.inference import LogDensity, hmc, hmc_evidence
from aevb.models import VAE, Bernoulli

from oracles import STANDARD_ERRORS


def decoding() -> tuple[Any, Tensor]:
    """A VAE of three latents whose posteriors are far from its prior, and grey images."""
    torch.manual_seed(0)
    vae = VAE((6, 6), 3, [16], likelihood=Bernoulli(relaxed=True)).requires_grad_(False).eval()
    for parameter in vae.decoder.parameters():
        parameter.normal_(0, 0.7)
    return vae, vae.decoder(torch.randn(4, 3)).mean


def summed(vae: Any, x: Tensor, spacing: float = 0.15) -> Tensor:
    """Log p(x) by a sum over a grid of the latents."""
    axis = torch.arange(-5, 5 + spacing / 2, spacing, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis, axis)
    log_mass = torch.distributions.Normal(0, 1).log_prob(points).sum(-1)
    return log_evidence_on(points, log_mass + 3 * torch.tensor(spacing).log(), vae.decoder, x)


def test_sampling_around_chains_meets_a_grid_and_far_from_them_does_not() -> None:
    vae, x = decoding()
    truth = summed(vae, x)
    draws = hmc(vae.model, x, num_chains=10, num_samples=20, num_warmup=60).unconstrained
    found = evidence_around(draws, vae, x, 2000)
    assert bool(found.is_trusted.all())
    apart = (found.log_evidence - truth).abs()
    assert bool((apart < STANDARD_ERRORS * found.standard_error).all())
    assert float(found.standard_error.max()) < 0.1
    narrow = draws.mean((0, 1)) + 0.05 * (draws - draws.mean((0, 1)))
    broken = evidence_around(narrow, vae, x, 2000)
    assert not bool(broken.is_trusted.any())


def test_the_papers_trajectories_are_no_longer_than_asked() -> None:
    vae, x = decoding()
    sizes: dict[str, Any] = {"num_chains": 4, "num_samples": 10, "num_warmup": 20}
    with pytest.warns(UserWarning, match="max_num_steps=1"):
        short = hmc_evidence(vae.model, x, max_num_steps=1, **sizes)
    assert int(short.draws.stats["n_steps"].max()) == 1


# Ends of the curves in the paper, train and test.
PAPER = {
    (1_000, "aevb"): (-109.1, -143.2), (1_000, "mcem"): (-109.1, -141.6),
    (1_000, "wake-sleep"): (-125.5, -144.8), (50_000, "aevb"): (-130.9, -138.0),
    (50_000, "wake-sleep"): (-136.9, -141.0), (50_000, "mcem"): (-146.9, -148.4),
}  # fmt: skip


def ends(figures: dict[tuple[int, str], tuple[float, float]]) -> dict[tuple[int, str], Any]:
    """Images that vary, and vary alike under all algorithms but for noise of 0.5 nats."""
    generator = torch.Generator().manual_seed(0)
    images = 20 * torch.randn(1000, generator=generator)
    found: dict[tuple[int, str], Any] = {}
    for key, pair in figures.items():
        found[key] = {}
        for split, mean in zip(("train", "test"), pair, strict=True):
            noise = 0.5 * torch.randn(1000, generator=generator)
            values = (mean + images + noise - noise.mean()).tolist()
            found[key][split] = {"importance": values, "paper": values}
    return found


def test_the_papers_own_curves_bear_out_every_claim() -> None:
    claims = ordered(ends(PAPER))
    assert len(claims) == 12
    assert all(claim.holds for claim in claims), [c.text for c in claims if not c.holds]


@pytest.mark.parametrize(
    ("key", "pair", "failing"),
    [
        ((1_000, "mcem"), (-109.1, -143.3), ["N = 1,000: mcem ends above aevb on test images"]),
        ((1_000, "mcem"), (-109.9, -141.6), ["N = 1,000: mcem and aevb end equal on train"]),
        ((50_000, "mcem"), (-146.9, -141.2), ["N = 50,000: mcem ends further below wake-sleep"]),
        ((50_000, "wake-sleep"), (-130.9, -141.0), ["N = 50,000: aevb ends above wake-sleep"]),
    ],
)
def test_other_curves_do_not(
    key: tuple[int, str], pair: tuple[float, float], failing: list[str]
) -> None:
    claims = ordered(ends(PAPER | {key: pair}))
    found = [claim.text for claim in claims if not claim.holds]
    assert len(found) == len(failing)
    assert all(text.startswith(start) for text, start in zip(found, failing, strict=True))


def test_an_estimator_that_ranks_otherwise_is_found_out() -> None:
    found = ends(PAPER)
    wrong = found[1_000, "wake-sleep"]["test"]
    wrong["paper"] = [value + 10 for value in wrong["paper"]]
    (failed,) = [claim.text for claim in ordered(found) if not claim.holds]
    assert failed.startswith("N = 1,000: the paper's estimator ranks")


def test_chains_start_where_the_likelihood_is() -> None:
    vae, x = decoding()
    density = LogDensity(vae.model, x)
    torch.manual_seed(0)
    likely, anywhere = likely_start(density, 50), density.prior_draws(50)
    assert likely.shape == anywhere.shape == (50, 4, 3)
    assert bool((density.joint(likely).mean(0) > density.joint(anywhere).mean(0) + 1).all())


def rates(ours: float, other: float) -> tuple[list[bool], str]:
    ends = {("aevb", 0.01): (ours, ours), ("aevb", 0.02): (other, other)}
    published = {"aevb": (-126.0, -124.0)}
    rows, claims = judged_rates(ends, published, 0.01, "20 latents", 1e6)
    assert [row.published for row in rows] == [-126, -124, -126, -124]
    return [claim.holds for claim in claims], claims[0].measured


def test_the_rate_in_use_is_the_nearest_and_the_leader_is_named() -> None:
    holds, measured = rates(-126.0, -121.0)
    assert holds == [True]
    assert "0.01: 1.0, 0.02: 4.0" in measured
    assert measured.endswith("would have taken 0.02")
    assert rates(-121.0, -126.0)[0] == [False]
    assert rates(-126.0, float("nan"))[0] == [True]
    assert rates(float("nan"), -126.0)[0] == [False]
    ends = {("wake-sleep", 0.01): (1.0, 2.0)}
    assert judged_rates(ends, {"wake-sleep": None}, 0.01, "", 1e6)[1] == []
