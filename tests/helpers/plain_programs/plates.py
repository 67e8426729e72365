"""Series in time, plates of every kind, and counts."""

import math

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor

from plain_programs.record import (
    PlainProgram,
    Y,
    always,
    eye,
    numbers,
    one_hot,
    ones,
    places,
    zeros,
)
from plain_truths import (
    Axis,
    Truth,
    conjugate,
    linear_gaussian,
    over_grid,
    over_hyperparameters,
)

# Time


def autoregression(y: Tensor) -> None:
    phi = pyro.sample("phi", dist.Normal(0.0, 0.7))
    sigma = pyro.sample("sigma", dist.LogNormal(-0.5, 0.5))
    previous = torch.tensor(0.0)
    for t in range(len(y)):
        previous = pyro.sample(f"y_{t}", dist.Normal(phi * previous, sigma), obs=y[t])


SERIES = numbers(0.5, 0.9, 0.2, 0.6, 1.1, 0.8)


def _autoregression(finer: float) -> Truth:
    design = torch.cat([zeros(1), SERIES[:-1]]).unsqueeze(-1)

    def conditional(v: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        noise = v["sigma"].square().unsqueeze(-1) * ones(6)
        return design, noise, zeros(1), 0.49 * eye(1)

    axes = [Axis("sigma", dist.LogNormal(-0.5, 0.5), -5.0, 4.0, 301)]
    return over_hyperparameters(axes, conditional, SERIES, {"phi": slice(0, 1)}, finer)


def local_level(y: Tensor) -> None:
    drift = pyro.sample("drift", dist.LogNormal(-1.0, 0.5))
    states = [pyro.sample("level_0", dist.Normal(0.0, 1.0))]
    for t in range(1, len(y)):
        states.append(pyro.sample(f"level_{t}", dist.Normal(states[-1], drift)))
    levels = torch.stack(states)
    pyro.sample("y", dist.Normal(levels, 0.4).to_event(1), obs=y)


def _local_level(finer: float) -> Truth:
    step = torch.arange(6, dtype=torch.float64)
    shared = torch.minimum(step.unsqueeze(-1), step)

    def conditional(v: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        prior = 1.0 + v["drift"].square().reshape(-1, 1, 1) * shared
        return eye(6), 0.16 * ones(6), zeros(6), prior

    axes = [Axis("drift", dist.LogNormal(-1.0, 0.5), -5.5, 3.5, 301)]
    sites = {f"level_{t}": slice(t, t + 1) for t in range(6)}
    return over_hyperparameters(axes, conditional, SERIES, sites, finer)


def change_point(y: Tensor) -> None:
    when = pyro.sample("when", dist.Uniform(0.0, float(len(y))))
    levels = pyro.sample("levels", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    mean = torch.where(torch.arange(len(y)) < when, levels[0], levels[1])
    pyro.sample("y", dist.Normal(mean, 0.6).to_event(1), obs=y)


JUMP = numbers(-0.4, 0.3, -0.2, 0.5, 0.9, 0.6)


def _change_point(finer: float) -> Truth:
    del finer
    found = []
    for before in range(1, 7):  # one piece of `when` for each number of points before it
        early = (torch.arange(6) < before).double()
        design = torch.stack([early, 1 - early], -1)
        found.append(linear_gaussian(design, 0.36 * ones(6), JUMP, zeros(2), eye(2)))
    mean, covariance, evidence = (torch.stack(parts) for parts in zip(*found, strict=True))
    middle = torch.arange(6, dtype=torch.float64).unsqueeze(-1) + 0.5
    return over_grid(
        torch.full((6,), -math.log(6.0), dtype=torch.float64),
        evidence,
        {
            "when": (middle, torch.full_like(middle, 1 / 12)),
            "levels": (mean, covariance.diagonal(dim1=-2, dim2=-1)),
        },
        "closed form: six pieces, each linear Gaussian",
    )


# Plates


def crossed_effects(y: Tensor) -> None:
    row_plate = pyro.plate("rows", y.shape[0], dim=-2)
    column_plate = pyro.plate("columns", y.shape[1], dim=-1)
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    with row_plate:
        a = pyro.sample("a", dist.Normal(0.0, 0.8))
    with column_plate:
        b = pyro.sample("b", dist.Normal(0.0, 0.6))
    with row_plate, column_plate:
        pyro.sample("y", dist.Normal(mu + a + b, 0.5), obs=y)


TABLE = torch.stack([numbers(0.3, 1.2), numbers(-0.5, 0.4), numbers(1.1, 1.6)])


def _crossed_effects(finer: float) -> Truth:
    del finer
    rows, columns = places(0, 0, 1, 1, 2, 2), places(0, 1, 0, 1, 0, 1)
    design = torch.cat([ones(6, 1), one_hot(rows, 3), one_hot(columns, 2)], -1)
    prior = torch.diag(numbers(1.0, 0.64, 0.64, 0.64, 0.36, 0.36))
    sites = {"mu": slice(0, 1), "a": slice(1, 4), "b": slice(4, 6)}
    return conjugate(sites, design, 0.25 * ones(6), TABLE.reshape(-1), zeros(6), prior)


def plate_indices(y: Tensor) -> None:
    theta = pyro.sample("theta", dist.Normal(0.0, 1.0).expand([len(y)]).to_event(1))
    common = pyro.sample("common", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)) as ind:
        pyro.sample("y", dist.Normal(theta[ind] + common, 0.5), obs=y[ind])


def _plate_indices(finer: float) -> Truth:
    del finer
    design = torch.cat([eye(8), ones(8, 1)], -1)
    sites = {"theta": slice(0, 8), "common": slice(8, 9)}
    return conjugate(sites, design, 0.25 * ones(8), Y, zeros(9), eye(9))


def coin_by_coin(flips: list[float]) -> None:
    fairness = pyro.sample("fairness", dist.Beta(10.0, 10.0))
    for i in pyro.plate("data", len(flips)):
        pyro.sample(f"flip_{i}", dist.Bernoulli(fairness), obs=torch.tensor(flips[i]))


FLIPS = [1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0]


def _coin_by_coin(finer: float) -> Truth:
    del finer
    return _beta_truth("fairness", 10.0, 10.0, 6, 2, 0.0)


def _beta_truth(site: str, a: float, b: float, ones: int, zeros: int, constant: float) -> Truth:
    after = torch.distributions.Beta(a + ones, b + zeros)
    evidence = _log_beta(a + ones, b + zeros) - _log_beta(a, b) + constant
    return Truth(
        {site: after.mean.reshape(-1).double()},
        {site: after.stddev.reshape(-1).double()},
        torch.tensor(evidence, dtype=torch.float64),
        "closed form: Beta and Bernoulli",
    )


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def beta_binomial(successes: Tensor, trials: Tensor) -> None:
    p = pyro.sample("p", dist.Beta(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 2.0])).to_event(1))
    for arm in range(2):
        pyro.sample(
            f"successes_{arm}", dist.Binomial(int(trials[arm]), p[arm]), obs=successes[arm]
        )


def _beta_binomial(finer: float) -> Truth:
    del finer
    arms = [
        _beta_truth("p", 1.0, 2.0, 4, 3, math.log(math.comb(7, 4))),
        _beta_truth("p", 2.0, 2.0, 2, 7, math.log(math.comb(9, 2))),
    ]
    assert all(arm.log_evidence is not None for arm in arms)
    return Truth(
        {"p": torch.cat([arm.means["p"] for arm in arms])},
        {"p": torch.cat([arm.sds["p"] for arm in arms])},
        torch.stack([arm.log_evidence for arm in arms if arm.log_evidence is not None]).sum(),
        "closed form: Beta and Binomial",
    )


def gamma_poisson(counts: Tensor) -> None:
    rates = pyro.sample("rates", dist.Gamma(2.0, 1.0).expand([len(counts)]).to_event(1))
    with pyro.plate("hours", counts.shape[1]):
        pyro.sample(
            "counts", dist.Poisson(rates.unsqueeze(0).expand(2, -1)).to_event(1), obs=counts.T
        )


HOURLY = torch.stack([numbers(3, 1), numbers(0, 2), numbers(5, 7)])


def _gamma_poisson(finer: float) -> Truth:
    del finer
    shape, rate = 2.0 + HOURLY.sum(-1), torch.full((3,), 3.0, dtype=torch.float64)
    factorials = torch.lgamma(HOURLY + 1).sum(-1)
    evidence = torch.lgamma(shape) - shape * rate.log() - math.lgamma(2.0) - factorials
    return Truth(
        {"rates": shape / rate},
        {"rates": shape.sqrt() / rate},
        evidence.sum(),
        "closed form: Gamma and Poisson",
    )


def dirichlet_multinomial(counts: Tensor) -> None:
    probs = pyro.sample("probs", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))
    total = int(counts.sum())
    pyro.sample("counts", dist.Multinomial(total, probs), obs=counts)


BALLS = numbers(4, 1, 6)


def _dirichlet_multinomial(finer: float) -> Truth:
    del finer
    prior = numbers(1.0, 2.0, 3.0)
    after = prior + BALLS
    total = after.sum()
    mean = after / total
    evidence = (
        (torch.lgamma(after) - torch.lgamma(prior) - torch.lgamma(BALLS + 1)).sum()
        + torch.lgamma(prior.sum())
        - torch.lgamma(total)
        + torch.lgamma(BALLS.sum() + 1)
    )
    return Truth(
        {"probs": mean},
        {"probs": (mean * (1 - mean) / (total + 1)).sqrt()},
        evidence,
        "closed form: Dirichlet and Multinomial",
    )


PROGRAMS = [
    PlainProgram(
        "autoregression", "loop over observed sites", always(autoregression),
        (SERIES,), _autoregression,
    ),
    PlainProgram(
        "local level", "list of states, torch.stack", always(local_level),
        (SERIES,), _local_level,
    ),
    PlainProgram(
        "change point", "torch.where on a latent", always(change_point), (JUMP,), _change_point
    ),
    PlainProgram(
        "crossed effects", "nested plates", always(crossed_effects), (TABLE,), _crossed_effects
    ),
    PlainProgram(
        "indices of a plate", "with plate as ind: theta[ind]", always(plate_indices),
        (Y,), _plate_indices,
    ),
    PlainProgram(
        "coin by coin", "sequential plate, data in a list", always(coin_by_coin),
        (FLIPS,), _coin_by_coin, untraced="needs the value of a tensor",
    ),
    PlainProgram(
        "two arms", "loop, p[arm], int() of data", always(beta_binomial),
        (numbers(4, 2), places(7, 9)), _beta_binomial, untraced="needs the value of a tensor",
    ),
    PlainProgram(
        "gamma and Poisson", "expand and transpose", always(gamma_poisson),
        (HOURLY,), _gamma_poisson,
    ),
    PlainProgram(
        "Dirichlet and multinomial", "simplex", always(dirichlet_multinomial),
        (BALLS,), _dirichlet_multinomial, untraced="needs the value of a tensor",
    ),
]  # fmt: skip
