"""Means of normal data, written in ways that subsampling tells apart."""

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor

NUM = 1000


def mean_of_all(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(y.new_zeros(()), 10.0))
    with pyro.plate("obs", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def mean_and_local(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(y.new_zeros(()), 10.0))
    with pyro.plate("obs", len(y)):
        z = pyro.sample("z", dist.Normal(mean, 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=y)


def normal_guide(y: Tensor) -> None:
    loc = pyro.param("loc", lambda: y.new_zeros(()))
    scale = pyro.param("scale", lambda: y.new_ones(()), constraint=dist.constraints.positive)
    pyro.sample("mean", dist.Normal(loc, scale))


def data() -> Tensor:
    return 2 + torch.randn(NUM, generator=torch.Generator().manual_seed(0)).double()
