"""Hierarchies and regressions."""

import functools

import pyro
import torch
from pyro import distributions as dist
from pyro.nn import PyroModule, PyroSample
from torch import Tensor, nn

from plain_programs.record import (
    EIGHT,
    ERRORS,
    FEATURES,
    GROUP,
    PlainProgram,
    X,
    Y,
    always,
    eye,
    normal_axis,
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
    covariance_of,
    over_hyperparameters,
    quadrature,
)

# Eight schools


def eight_schools_centred(y: Tensor, sigma: Tensor) -> None:
    num_schools = len(y)
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.LogNormal(2.0, 0.5))
    theta = pyro.sample(
        "theta",
        dist.Normal(mu * torch.ones(num_schools), tau * torch.ones(num_schools)).to_event(1),
    )
    pyro.sample("y", dist.Normal(theta, sigma).to_event(1), obs=y)


def _eight_schools_centred(finer: float) -> Truth:
    def conditional(v: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        count = len(v["tau"])
        root = zeros(count, 9, 9)
        root[:, :, 0] = 5.0
        root[:, range(1, 9), range(1, 9)] = v["tau"].unsqueeze(-1)
        design = torch.cat([zeros(8, 1), eye(8)], -1)
        return design, ERRORS.square(), zeros(count, 9), covariance_of(root)

    axes = [Axis("tau", dist.LogNormal(2.0, 0.5), -3.0, 7.0, 401)]
    return over_hyperparameters(
        axes, conditional, EIGHT, {"mu": slice(0, 1), "theta": slice(1, 9)}, finer
    )


def eight_schools_noncentred(num_schools: int, sigma: Tensor, y: Tensor) -> Tensor:
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", num_schools):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * eta)
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)
    return theta


def _eight_schools_noncentred(finer: float) -> Truth:
    def conditional(v: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        count = len(v["tau"])
        effects = v["tau"].reshape(-1, 1, 1) * eye(8)
        design = torch.cat([ones(count, 8, 1), effects], -1)
        prior = torch.diag_embed(torch.cat([25 * ones(1), ones(8)]))
        return design, ERRORS.square(), zeros(9), prior.expand(count, 9, 9)

    axes = [Axis("tau", dist.HalfCauchy(5.0), -25.0, 12.0, 1001)]
    return over_hyperparameters(
        axes, conditional, EIGHT, {"mu": slice(0, 1), "eta": slice(1, 9)}, finer
    )


# Regressions


def group_intercepts(group: Tensor, x: Tensor, y: Tensor) -> None:
    tau = pyro.sample("tau", dist.LogNormal(-0.5, 0.5))
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("groups", 4):
        b = pyro.sample("b", dist.Normal(0.0, tau))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(b[group] + slope * x, 0.5), obs=y)


def _group_intercepts(finer: float) -> Truth:
    design = torch.cat([X.unsqueeze(-1), one_hot(GROUP, 4)], -1)

    def conditional(v: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        tau = v["tau"].unsqueeze(-1)
        prior = torch.diag_embed(torch.cat([torch.ones_like(tau), tau.square().expand(-1, 4)], -1))
        return design, 0.25 * ones(8), zeros(5), prior

    axes = [Axis("tau", dist.LogNormal(-0.5, 0.5), -5.0, 4.0, 301)]
    return over_hyperparameters(
        axes, conditional, Y, {"slope": slice(0, 1), "b": slice(1, 5)}, finer
    )


def radon(county: Tensor, floor: Tensor, log_radon: Tensor) -> None:
    mu_a = pyro.sample("mu_a", dist.Normal(0.0, 1.0))
    mu_b = pyro.sample("mu_b", dist.Normal(0.0, 1.0))
    sigma_a = pyro.sample("sigma_a", dist.LogNormal(-0.5, 0.4))
    sigma_b = pyro.sample("sigma_b", dist.LogNormal(-0.5, 0.4))
    with pyro.plate("counties", 3):
        alpha = pyro.sample("alpha", dist.Normal(mu_a, sigma_a))
        beta = pyro.sample("beta", dist.Normal(mu_b, sigma_b))
    sigma = pyro.sample("sigma", dist.LogNormal(-0.5, 0.4))
    with pyro.plate("houses", len(county)):
        mean = alpha[county] + beta[county] * floor
        pyro.sample("log_radon", dist.Normal(mean, sigma), obs=log_radon)


COUNTY = places(0, 0, 0, 1, 1, 2, 2, 2)
FLOOR = numbers(0, 1, 0, 1, 0, 0, 1, 1)
LOG_RADON = numbers(1.5, 0.6, 1.1, 0.1, 0.9, 1.9, 1.2, 0.8)


def _radon(finer: float) -> Truth:
    house = one_hot(COUNTY, 3)
    design = torch.cat([zeros(8, 2), house, house * FLOOR.unsqueeze(-1)], -1)

    def conditional(v: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        root = eye(8).repeat(len(v["sigma"]), 1, 1)
        root[:, 2:5, 0] = root[:, 5:8, 1] = 1.0
        root[:, range(2, 5), range(2, 5)] = v["sigma_a"].unsqueeze(-1)
        root[:, range(5, 8), range(5, 8)] = v["sigma_b"].unsqueeze(-1)
        noise = v["sigma"].square().unsqueeze(-1) * ones(8)
        return design, noise, zeros(8), covariance_of(root)

    scale = dist.LogNormal(-0.5, 0.4)
    axes = [Axis(name, scale, -3.1, 2.1, 23) for name in ("sigma_a", "sigma_b", "sigma")]
    sites = {
        "mu_a": slice(0, 1),
        "mu_b": slice(1, 2),
        "alpha": slice(2, 5),
        "beta": slice(5, 8),
    }
    return over_hyperparameters(axes, conditional, LOG_RADON, sites, finer)


def linear_regression(x: Tensor, y: Tensor) -> None:
    intercept = pyro.sample("intercept", dist.Normal(0.0, 2.0))
    b = pyro.sample("b", dist.Normal(torch.zeros(x.shape[1]), torch.ones(x.shape[1])).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(intercept + x @ b, sigma), obs=y)


def _linear_regression(finer: float) -> Truth:
    design = torch.cat([ones(8, 1), FEATURES], -1)

    def conditional(v: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        noise = v["sigma"].square().unsqueeze(-1) * ones(8)
        return design, noise, zeros(3), torch.diag(numbers(4.0, 1.0, 1.0))

    axes = [Axis("sigma", dist.HalfNormal(1.0), -8.0, 2.5, 401)]
    sites = {"intercept": slice(0, 1), "b": slice(1, 3)}
    return over_hyperparameters(axes, conditional, Y, sites, finer)


class BayesianRegression(PyroModule):  # type: ignore[misc]
    """The regression with its weights as samples of a module."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.linear = PyroModule[nn.Linear](in_features, out_features)
        self.linear.weight = PyroSample(
            dist.Normal(0.0, 1.0).expand([out_features, in_features]).to_event(2)
        )
        self.linear.bias = PyroSample(dist.Normal(0.0, 2.0).expand([out_features]).to_event(1))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        sigma = pyro.sample("sigma", dist.Uniform(0.0, 3.0))
        mean = self.linear(x).squeeze(-1)
        with pyro.plate("data", x.shape[0]):
            pyro.sample("obs", dist.Normal(mean, sigma), obs=y)
        return mean


def _bayesian_regression(finer: float) -> Truth:
    design = torch.cat([ones(8, 1), FEATURES], -1)

    def conditional(v: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        noise = v["sigma"].square().unsqueeze(-1) * ones(8)
        return design, noise, zeros(3), torch.diag(numbers(4.0, 1.0, 1.0))

    axes = [Axis("sigma", dist.Uniform(0.0, 3.0), -8.0, 14.0, 801)]
    sites = {"linear.bias": slice(0, 1), "linear.weight": slice(1, 3)}
    return over_hyperparameters(axes, conditional, Y, sites, finer)


def keyword_regression(x: Tensor, y: Tensor | None = None, *, noise: float = 1.0) -> Tensor:
    b = pyro.sample("b", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    with pyro.plate("data", x.size(0)):
        return pyro.sample("y", dist.Normal(torch.mv(x, b), noise), obs=y)


def _keyword_regression(finer: float) -> Truth:
    del finer
    return conjugate({"b": slice(0, 2)}, FEATURES, 0.36 * ones(8), Y, zeros(2), eye(2))


def logistic(x: Tensor, y: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    bias = pyro.sample("bias", dist.Normal(0.0, 1.0))
    with pyro.plate("data", x.shape[0]):
        pyro.sample("y", dist.Bernoulli(logits=x @ w + bias), obs=y)


LABELS = numbers(0, 0, 1, 1, 0, 1, 1, 1)


def _logistic(finer: float) -> Truth:
    def likelihood(v: dict[str, Tensor]) -> Tensor:
        w = torch.stack([v["w0"], v["w1"]], -1)
        logits = w @ FEATURES.T + v["bias"].unsqueeze(-1)
        return dist.Bernoulli(logits=logits).log_prob(LABELS).sum(-1)

    return quadrature(
        [normal_axis("w0"), normal_axis("w1"), normal_axis("bias")],
        likelihood,
        lambda v: {"w": torch.stack([v["w0"], v["w1"]], -1), "bias": v["bias"]},
        finer,
    )


def poisson_regression(x: Tensor, counts: Tensor) -> None:
    coefficients = pyro.sample("coefficients", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    rate = torch.exp(coefficients[0] + coefficients[1] * x)
    with pyro.plate("data", len(x)):
        pyro.sample("counts", dist.Poisson(rate), obs=counts)


COUNTS = numbers(0, 1, 0, 2, 1, 3, 5, 9)


def _poisson_regression(finer: float) -> Truth:
    def likelihood(v: dict[str, Tensor]) -> Tensor:
        rate = torch.exp(v["a"].unsqueeze(-1) + v["b"].unsqueeze(-1) * X)
        return dist.Poisson(rate).log_prob(COUNTS).sum(-1)

    return quadrature(
        [normal_axis("a", points=201), normal_axis("b", points=201)],
        likelihood,
        lambda v: {"coefficients": torch.stack([v["a"], v["b"]], -1)},
        finer,
    )


def ordinal(x: Tensor, y: Tensor) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("classes", 2):
        base = pyro.sample("base", dist.Normal(0.0, 1.0))
    gaps = torch.exp(base[1:])
    cutpoints = torch.cat([base[:1], base[:1] + torch.cumsum(gaps, 0)])
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.OrderedLogistic(slope * x, cutpoints), obs=y)


GRADES = places(0, 0, 1, 0, 1, 2, 1, 2)


def _ordinal(finer: float) -> Truth:
    def likelihood(v: dict[str, Tensor]) -> Tensor:
        edge = v["low"].unsqueeze(-1)
        cuts = torch.stack([edge, edge + v["gap"].exp().unsqueeze(-1)], -1)
        below = torch.sigmoid(cuts - (v["slope"].unsqueeze(-1) * X).unsqueeze(-1))
        first, second = below.unbind(-1)
        probs = torch.stack([first, second - first, 1 - second], -1)
        chosen = probs.gather(-1, GRADES.expand(len(probs), -1).unsqueeze(-1)).squeeze(-1)
        return chosen.clamp(min=1e-300).log().sum(-1)

    return quadrature(
        [normal_axis("slope"), normal_axis("low"), normal_axis("gap")],
        likelihood,
        lambda v: {"slope": v["slope"], "base": torch.stack([v["low"], v["gap"]], -1)},
        finer,
    )


def categorical(x: Tensor, y: Tensor) -> None:
    weight = pyro.sample("weight", dist.Normal(torch.zeros(1, 3), 1.0).to_event(2))
    logits = torch.matmul(x.unsqueeze(-1), weight)
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Categorical(logits=logits), obs=y)


def _categorical(finer: float) -> Truth:
    def likelihood(v: dict[str, Tensor]) -> Tensor:
        weight = torch.stack([v["w0"], v["w1"], v["w2"]], -1)
        logits = X.unsqueeze(-1) * weight.unsqueeze(-2)
        return dist.Categorical(logits=logits).log_prob(GRADES).sum(-1)

    return quadrature(
        [normal_axis("w0"), normal_axis("w1"), normal_axis("w2")],
        likelihood,
        lambda v: {"weight": torch.stack([v["w0"], v["w1"], v["w2"]], -1)},
        finer,
    )


PROGRAMS = [
    PlainProgram(
        "eight schools, centred", "expands by torch.ones", always(eight_schools_centred),
        (EIGHT, ERRORS), _eight_schools_centred,
    ),
    PlainProgram(
        "eight schools, non-centred", "plate, deterministic", always(eight_schools_noncentred),
        (8, ERRORS, EIGHT), _eight_schools_noncentred,
    ),
    PlainProgram(
        "group intercepts", "indexing b[group]", always(group_intercepts),
        (GROUP, X, Y), _group_intercepts,
    ),
    PlainProgram(
        "radon", "indexing alpha[county], beta[county]", always(radon),
        (COUNTY, FLOOR, LOG_RADON), _radon,
    ),
    PlainProgram(
        "linear regression", "matmul x @ b", always(linear_regression),
        (FEATURES, Y), _linear_regression,
    ),
    PlainProgram(
        "Bayesian regression", "PyroModule with PyroSample", lambda: BayesianRegression(2, 1),
        (FEATURES, Y), _bayesian_regression,
    ),
    PlainProgram(
        "keyword arguments", "functools.partial", lambda: functools.partial(
            keyword_regression, y=Y, noise=0.6
        ),
        (FEATURES,), _keyword_regression,
    ),
    PlainProgram(
        "logistic regression", "matmul x @ w", always(logistic), (FEATURES, LABELS), _logistic
    ),
    PlainProgram(
        "Poisson regression", "indexing coefficients[0]", always(poisson_regression),
        (X, COUNTS), _poisson_regression,
    ),
    PlainProgram(
        "ordinal regression", "slicing, concatenation and cumsum", always(ordinal),
        (X, GRADES), _ordinal,
    ),
    PlainProgram(
        "categorical regression", "matmul with a matrix", always(categorical),
        (X, GRADES), _categorical,
    ),
]  # fmt: skip
