"""Programs with discrete latents, in the plain style of Pyro's tutorials and examples.

Each is a function that returns a model and a guide with weights of their own, and the arguments of
both. Data are simulated, or the embedded digits; weights and data are the same at each call.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.autoguide import AutoDelta, AutoNormal
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.distributions import constraints

__all__ = ["PROGRAMS", "Enumerated", "make"]

Pair = tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]


@dataclass(frozen=True)
class Enumerated:
    """A row of the table.

    Attributes:
        title: In the table.
        build: Makes model, guide and arguments.
        max_plate_nesting: Of Pyro's loss; None to let it guess.
    """

    title: str
    build: Callable[[], Pair]
    max_plate_nesting: int | None = None


def make(name: str) -> Pair:
    """Model, guide and arguments of a program, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PROGRAMS[name].build()


# Gaussian mixtures: https://pyro.ai/examples/gmm.html

_COMPONENTS = 3


def _clusters(num: int) -> Tensor:
    centres = torch.tensor([-4.0, 0.0, 5.0])
    return centres[torch.arange(num) % 3] + torch.randn(num)


@config_enumerate
def mixture(data: Tensor) -> None:
    """Weights, one scale, and a location for each component."""
    weights = pyro.sample("weights", dist.Dirichlet(0.5 * torch.ones(_COMPONENTS)))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 2.0))
    with pyro.plate("components", _COMPONENTS):
        locs = pyro.sample("locs", dist.Normal(0.0, 10.0))
    with pyro.plate("data", len(data)):
        assignment = pyro.sample("assignment", dist.Categorical(weights))
        pyro.sample("obs", dist.Normal(locs[assignment], scale), obs=data)


def _subsampled_mixture(data: Tensor) -> None:
    weights = pyro.sample("weights", dist.Dirichlet(0.5 * torch.ones(_COMPONENTS)))
    with pyro.plate("components", _COMPONENTS):
        locs = pyro.sample("locs", dist.Normal(0.0, 10.0))
        scales = pyro.sample("scales", dist.LogNormal(0.0, 2.0))
    with pyro.plate("data", len(data), subsample_size=50) as chosen:
        assignment = pyro.sample(
            "assignment", dist.Categorical(weights), infer={"enumerate": "parallel"}
        )
        pyro.sample("obs", dist.Normal(locs[assignment], scales[assignment]), obs=data[chosen])


def mixture_by_points() -> Pair:
    """The tutorial's guide: points, from locations that lie apart."""
    start = {
        "weights": torch.full((_COMPONENTS,), 1 / _COMPONENTS),
        "scale": torch.tensor(1.5),
        "locs": torch.tensor([-2.0, 0.5, 3.0]),
    }
    init = pyro.infer.autoguide.init_to_value(values=start)
    shown = poutine.block(mixture, expose=["weights", "locs", "scale"])
    return mixture, AutoDelta(shown, init_loc_fn=init), (_clusters(300),)


def mixture_by_normals() -> Pair:
    """A mean-field guide, and a plate that subsamples."""
    hidden = poutine.block(_subsampled_mixture, hide=["assignment"])
    return _subsampled_mixture, AutoNormal(hidden), (_clusters(300),)


# The semi-supervised VAE: pyro/examples/vae/ss_vae_M2.py


class SemiSupervised(nn.Module):
    """Digits with a style z and a label y, which the guide draws where it is not given."""

    def __init__(self, pixels: int, labels: int, style: int, hidden: int) -> None:
        super().__init__()
        self.labels, self.style = labels, style
        self.classifier = _network(pixels, hidden, labels)
        self.encoder = _network(pixels + labels, hidden, 2 * style)
        self.decoder = _network(style + labels, hidden, pixels)

    def model(self, xs: Tensor, ys: Tensor | None = None) -> None:
        """p(z) p(y) p(x|z, y)."""
        pyro.module("ss_vae", self)
        with pyro.plate("data", len(xs)):
            prior = dist.Normal(xs.new_zeros(self.style), xs.new_ones(self.style)).to_event(1)
            zs = pyro.sample("z", prior)
            uniform = dist.OneHotCategorical(xs.new_ones(self.labels) / self.labels)
            ys = pyro.sample("y", uniform, obs=ys)
            logits = self.decoder(_joined(zs, ys))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=xs)

    def guide(self, xs: Tensor, ys: Tensor | None = None) -> None:
        """q(y|x) q(z|x, y)."""
        pyro.module("ss_vae", self)
        with pyro.plate("data", len(xs)):
            if ys is None:
                probs = self.classifier(xs).softmax(-1)
                ys = pyro.sample("y", dist.OneHotCategorical(probs))
            loc, log_scale = self.encoder(_joined(xs, ys)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def _network(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Softplus(), nn.Linear(hidden, outputs))


def _joined(*parts: Tensor) -> Tensor:
    """Side by side, of whatever plates and enumerated dimensions."""
    shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*shape, part.shape[-1]) for part in parts], -1)


def _digits(num: int) -> tuple[Tensor, Tensor]:
    found = load_digits()
    images = torch.as_tensor(found.data[:num] > 7, dtype=torch.get_default_dtype())
    labels = nn.functional.one_hot(torch.as_tensor(found.target[:num]), 10).to(images)
    return images, labels


def semi_supervised(pixels: int = 64, batch: int = 50, hidden: int = 50, style: int = 8) -> Pair:
    """Labels unknown, and enumerated in the guide."""
    vae = SemiSupervised(pixels, 10, style, hidden)
    images = _digits(batch)[0] if pixels == 64 else torch.rand(batch, pixels).round()
    return vae.model, config_enumerate(vae.guide), (images,)


def supervised() -> Pair:
    """The same with labels that are known."""
    vae = SemiSupervised(64, 10, 8, 50)
    return vae.model, config_enumerate(vae.guide), _digits(50)


def semi_supervised_large() -> Pair:
    """The sizes of the example, whose time is that of its matrix products."""
    return semi_supervised(784, 200, 500, 50)


# Hidden Markov models: pyro/examples/hmm.py


def _songs(num: int, length: int, tones: int) -> tuple[Tensor, Tensor]:
    lengths = 3 + torch.arange(num) % (length - 2)
    return (0.75 * torch.rand(num, length, tones)).round(), lengths


def hidden_markov(batch_size: int | None = None, states: int = 8) -> Callable[..., Any]:
    """One chain of states; each tone depends on the state."""

    def model(songs: Tensor, lengths: Tensor) -> None:
        num, longest, tones = songs.shape
        transition = dist.Dirichlet(0.9 * torch.eye(states) + 0.1).to_event(1)
        probs_x = pyro.sample("probs_x", transition)
        sounding = dist.Beta(0.1, 0.9).expand([states, tones]).to_event(2)
        probs_y = pyro.sample("probs_y", sounding)
        tones_plate = pyro.plate("tones", tones, dim=-1)
        with pyro.plate("songs", num, batch_size, dim=-2) as batch:
            left = lengths[batch]
            x: Any = 0
            for t in pyro.markov(range(longest)):
                with poutine.mask(mask=(t < left).unsqueeze(-1)):
                    x = pyro.sample(
                        f"x_{t}", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"}
                    )
                    with tones_plate:
                        pyro.sample(
                            f"y_{t}", dist.Bernoulli(probs_y[x.squeeze(-1)]), obs=songs[batch, t]
                        )

    return model


def autoregressive_markov(songs: Tensor, lengths: Tensor, states: int = 8) -> None:
    """Each tone depends on the state and on itself before."""
    num, longest, tones = songs.shape
    transition = dist.Dirichlet(0.9 * torch.eye(states) + 0.1).to_event(1)
    probs_x = pyro.sample("probs_x", transition)
    sounding = dist.Beta(0.1, 0.9).expand([states, 2, tones]).to_event(3)
    probs_y = pyro.sample("probs_y", sounding)
    tones_plate = pyro.plate("tones", tones, dim=-1)
    with pyro.plate("songs", num, dim=-2):
        x: Any = 0
        y: Any = 0
        for t in pyro.markov(range(longest)):
            with poutine.mask(mask=(t < lengths).unsqueeze(-1)):
                x = pyro.sample(
                    f"x_{t}", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"}
                )
                with tones_plate as tone:
                    probs = probs_y[x, y, tone]
                    y = pyro.sample(f"y_{t}", dist.Bernoulli(probs), obs=songs[:, t]).long()


def factorial_markov(songs: Tensor, lengths: Tensor, states: int = 3) -> None:
    """Two chains of states."""
    num, longest, tones = songs.shape
    transition = dist.Dirichlet(0.9 * torch.eye(states) + 0.1).to_event(1)
    probs_w = pyro.sample("probs_w", transition)
    probs_x = pyro.sample("probs_x", transition)
    sounding = dist.Beta(0.1, 0.9).expand([states, states, tones]).to_event(3)
    probs_y = pyro.sample("probs_y", sounding)
    tones_plate = pyro.plate("tones", tones, dim=-1)
    with pyro.plate("songs", num, dim=-2):
        w: Any = 0
        x: Any = 0
        for t in pyro.markov(range(longest)):
            with poutine.mask(mask=(t < lengths).unsqueeze(-1)):
                w = pyro.sample(
                    f"w_{t}", dist.Categorical(probs_w[w]), infer={"enumerate": "parallel"}
                )
                x = pyro.sample(
                    f"x_{t}", dist.Categorical(probs_x[x]), infer={"enumerate": "parallel"}
                )
                with tones_plate as tone:
                    pyro.sample(f"y_{t}", dist.Bernoulli(probs_y[w, x, tone]), obs=songs[:, t])


def _pointed(model: Callable[..., Any]) -> Pair:
    """With the guide of the example: points of the probabilities."""
    shown = poutine.block(model, expose_fn=lambda msg: msg["name"].startswith("probs_"))
    return model, AutoDelta(shown), _songs(20, 12, 30)


# Topics: pyro/examples/lda.py

_TOPICS, _WORDS, _DOCUMENTS, _LENGTH = 8, 256, 400, 64


def topics() -> Pair:
    """Amortized, with documents that the guide subsamples."""
    predictor = nn.Sequential(
        nn.Linear(_WORDS, 50), nn.Sigmoid(), nn.Linear(50, _TOPICS), nn.Softmax(-1)
    )

    def model(data: Tensor) -> None:
        with pyro.plate("topics", _TOPICS):
            weights = pyro.sample("topic_weights", dist.Gamma(1.0 / _TOPICS, 1.0))
            words = pyro.sample("topic_words", dist.Dirichlet(torch.ones(_WORDS) / _WORDS))
        with pyro.plate("documents", _DOCUMENTS) as chosen:
            data = data[:, chosen]
            doc_topics = pyro.sample("doc_topics", dist.Dirichlet(weights))
            with pyro.plate("words", _LENGTH):
                word_topics = pyro.sample(
                    "word_topics", dist.Categorical(doc_topics), infer={"enumerate": "parallel"}
                )
                pyro.sample("doc_words", dist.Categorical(words[word_topics]), obs=data)

    def guide(data: Tensor) -> None:
        weights = pyro.param(
            "weights_posterior", lambda: torch.ones(_TOPICS), constraint=constraints.positive
        )
        words = pyro.param(
            "words_posterior", lambda: torch.ones(_TOPICS, _WORDS),
            constraint=constraints.greater_than(0.5),
        )  # fmt: skip
        with pyro.plate("topics", _TOPICS):
            pyro.sample("topic_weights", dist.Gamma(weights, 1.0))
            pyro.sample("topic_words", dist.Dirichlet(words))
        pyro.module("predictor", predictor)
        with pyro.plate("documents", _DOCUMENTS, 32) as chosen:
            data = data[:, chosen]
            counts = torch.zeros(_WORDS, len(chosen)).scatter_add(0, data, torch.ones(data.shape))
            pyro.sample("doc_topics", dist.Delta(predictor(counts.T), event_dim=1))

    return model, guide, (torch.randint(_WORDS, (_LENGTH, _DOCUMENTS)),)


# Annotation of cells: pyro/examples/scanvi


class Annotation(nn.Module):
    """Counts of genes, whose second latent layer depends on a label that the guide enumerates."""

    def __init__(self, genes: int, labels: int = 4, latent: int = 10) -> None:
        super().__init__()
        self.genes, self.labels, self.latent = genes, labels, latent
        self.z2_decoder = _normalized(latent + labels, 50, 2 * latent)
        self.x_decoder = _normalized(latent, 100, 2 * genes)
        self.z2l_encoder = _normalized(genes, 100, 2 * latent + 2)
        self.classifier = _normalized(latent, 50, labels)
        self.z1_encoder = _normalized(labels + latent, 50, 2 * latent)

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        """p(z1) p(y) p(z2|z1, y) p(l) p(x|z2, l)."""
        pyro.module("scanvi", self)
        theta = pyro.param("dispersion", x.new_ones(self.genes), constraint=constraints.positive)
        with pyro.plate("batch", len(x)), poutine.scale(scale=1.0 / x.numel()):
            z1 = pyro.sample("z1", dist.Normal(0, x.new_ones(self.latent)).to_event(1))
            prior = dist.OneHotCategorical(logits=x.new_zeros(self.labels))
            y = pyro.sample("y", prior, obs=y)
            loc, scale = _through(self.z2_decoder, z1, y)
            z2 = pyro.sample("z2", dist.Normal(loc, scale).to_event(1))
            size = pyro.sample("l", dist.LogNormal(3.0, x.new_ones(1)).to_event(1))
            gate, share = self.x_decoder(z2).chunk(2, -1)
            gate = 1e-6 + (1 - 2e-6) * gate.sigmoid()
            logits = (theta + 1e-6).log() - (size * share.softmax(-1) + 1e-6).log()
            counts = dist.ZeroInflatedNegativeBinomial(theta, logits=logits, gate=gate)
            pyro.sample("x", counts.to_event(1), obs=x)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        """q(l|x) q(z2|x) q(y|z2) q(z1|z2, y), and a loss of the classifier where y is known."""
        pyro.module("scanvi", self)
        with pyro.plate("batch", len(x)), poutine.scale(scale=1.0 / x.numel()):
            first, second = self.z2l_encoder(x).chunk(2, -1)
            second = nn.functional.softplus(second)
            size = dist.LogNormal(first[..., -1:], second[..., -1:]).to_event(1)
            pyro.sample("l", size)
            z2 = pyro.sample("z2", dist.Normal(first[..., :-1], second[..., :-1]).to_event(1))
            label = dist.OneHotCategorical(logits=self.classifier(z2))
            if y is None:
                y = pyro.sample("y", label)
            else:
                pyro.factor("classification", -0.1 * label.log_prob(y), has_rsample=False)
            loc, scale = _through(self.z1_encoder, z2, y)
            pyro.sample("z1", dist.Normal(loc, scale).to_event(1))


def _normalized(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )


def _through(network: nn.Module, *parts: Tensor) -> tuple[Tensor, Tensor]:
    """Location and scale; batch norm knows two dimensions only."""
    inputs = _joined(*parts)
    found = network(inputs.reshape(-1, inputs.shape[-1]))
    loc, scale = found.reshape(*inputs.shape[:-1], -1).chunk(2, -1)
    return loc, nn.functional.softplus(scale)


def annotation(known: bool = False) -> Pair:
    """Cells of unknown, or known, kind."""
    cells = Annotation(100)
    counts = torch.poisson(torch.rand(50, 100) * 3)
    labels = nn.functional.one_hot(torch.arange(50) % 4, 4).to(counts)
    guide = config_enumerate(cells.guide, "parallel", expand=True)
    return cells.model, guide, (counts, labels) if known else (counts,)


PROGRAMS: dict[str, Enumerated] = {
    "mixture": Enumerated("Gaussian mixture, AutoDelta", mixture_by_points),
    "mixture-subsampled": Enumerated(
        "Gaussian mixture, AutoNormal, 50 of 300 subsampled", mixture_by_normals
    ),
    "ss-vae": Enumerated("semi-supervised VAE, digits, label enumerated", semi_supervised),
    "ss-vae-labelled": Enumerated("semi-supervised VAE, digits, label given", supervised),
    "ss-vae-large": Enumerated("semi-supervised VAE 784-500-50, 200 rows", semi_supervised_large),
    "hmm": Enumerated("hidden Markov model, masked", lambda: _pointed(hidden_markov()), 2),
    "hmm-subsampled": Enumerated(
        "hidden Markov model, 5 of 20 subsampled", lambda: _pointed(hidden_markov(5)), 2
    ),
    "hmm-autoregressive": Enumerated(
        "autoregressive hidden Markov model", lambda: _pointed(autoregressive_markov), 2
    ),
    "hmm-factorial": Enumerated(
        "factorial hidden Markov model", lambda: _pointed(factorial_markov), 2
    ),
    "lda": Enumerated("latent Dirichlet allocation, 32 documents", topics, 2),
    "scanvi": Enumerated("scANVI, label enumerated", annotation),
    "scanvi-labelled": Enumerated("scANVI, label given", lambda: annotation(True)),
}
