"""Programs with discrete latents, and what enumeration by hand says of them."""

import itertools
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro import poutine
from torch import Tensor

WEIGHTS = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
LOCS = torch.tensor([-3.0, 0.5, 2.0], dtype=torch.float64)
X = torch.tensor([-2.5, 0.1, 1.7, 2.4, 0.3], dtype=torch.float64)
TRANSITION = torch.tensor([[0.7, 0.3], [0.2, 0.8]], dtype=torch.float64)
SOUNDING = torch.tensor([0.1, 0.6], dtype=torch.float64)
SEQUENCES = torch.tensor([[1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 0, 0]], dtype=torch.float64)
LENGTHS = torch.tensor([4, 2, 3])


def no_guide(*args: Any) -> None:
    """Of models with discrete latents alone."""


def mixture(infer: dict[str, Any] | None = None) -> Callable[[Tensor], None]:
    def model(x: Tensor) -> None:
        locs = pyro.param("locs", lambda: LOCS.clone())
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(WEIGHTS), infer=infer)
            pyro.sample("x", dist.Normal(locs[k], 1.0), obs=x)

    return model


def mixture_by_hand(x: Tensor) -> Tensor:
    """log p(x), ``(N,)``."""
    parts = WEIGHTS.log() + dist.Normal(LOCS, 1.0).log_prob(x.unsqueeze(-1))
    return torch.logsumexp(parts, -1)


def markov(sequences: Tensor, lengths: Tensor) -> None:
    """A chain of two states for each sequence, which start before the first in state 0."""
    with pyro.plate("sequences", len(sequences)):
        state: Any = 0
        for t in pyro.markov(range(sequences.shape[1])):
            with poutine.mask(mask=t < lengths):
                state = pyro.sample(
                    f"state_{t}", dist.Categorical(TRANSITION[state]),
                    infer={"enumerate": "parallel"},
                )  # fmt: skip
                sounding = dist.Bernoulli(SOUNDING[state])
                pyro.sample(f"y_{t}", sounding, obs=sequences[:, t])


def markov_by_hand(sequences: Tensor, lengths: Tensor) -> Tensor:
    """log p of each sequence, by all paths of its states."""
    found = []
    for sequence, length in zip(sequences, lengths.tolist(), strict=True):
        total = 0.0
        for path in itertools.product(range(2), repeat=length):
            probability, before = 1.0, 0
            for t, state in enumerate(path):
                sounds = float(SOUNDING[state])
                probability *= float(TRANSITION[before, state])
                probability *= sounds if sequence[t] else 1 - sounds
                before = state
            total += probability
        found.append(total)
    return torch.tensor(found, dtype=torch.float64).log()


def two_means(x: Tensor) -> None:
    """Continuous latents of all data, and a component for each datapoint."""
    share = pyro.sample("share", dist.Beta(2.0, 2.0))
    with pyro.plate("components", 2):
        locs = pyro.sample("locs", dist.Normal(torch.tensor([-2.0, 2.0]).to(x), 1.0))
    with pyro.plate("data", len(x)):
        second = pyro.sample("second", dist.Bernoulli(1 - share)).long()
        pyro.sample("x", dist.Normal(locs[second], 0.7), obs=x)


def two_means_by_hand(x: Tensor) -> None:
    """The same, with the component summed out by one distribution."""
    share = pyro.sample("share", dist.Beta(2.0, 2.0))
    with pyro.plate("components", 2):
        locs = pyro.sample("locs", dist.Normal(torch.tensor([-2.0, 2.0]).to(x), 1.0))
    component = dist.Categorical(torch.stack([share, 1 - share]))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.MixtureSameFamily(component, dist.Normal(locs, 0.7)), obs=x)


def local(x: Tensor) -> None:
    """One posterior for each datapoint, of z and of w, which depends on a discrete k."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(()).to(x), 1.0))
        k = pyro.sample("k", dist.Categorical(WEIGHTS.to(x)))
        w = pyro.sample("w", dist.Normal(k.to(x), 1.0))
        pyro.sample("x", dist.Normal(z + w * k, 0.5), obs=x)


def local_by_hand(x: Tensor, z: Tensor, w: Tensor) -> Tensor:
    """log p(x, z, w)."""
    parts = [
        WEIGHTS[k].log()
        + dist.Normal(float(k), 1.0).log_prob(w)
        + dist.Normal(z + w * k, 0.5).log_prob(x)
        for k in range(3)
    ]
    return dist.Normal(0.0, 1.0).log_prob(z) + torch.logsumexp(torch.stack(parts), 0)
