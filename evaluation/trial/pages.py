"""Pages of HTML that open from disk: one frame, pictures as SVG, words explained."""

import io
import re
import zlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, Undefined
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure

from aevb.evaluation.trial.verdict import counted, decimal, shown_p, words

__all__ = ["explained", "glossary", "page", "svg"]

# What readers of a page may not know, each as it occurs and what it means.
WORDS = {
    "false discovery rate": "the share of false ones among datapoints called different",
    "importance weights": "p(x, z) / q(z|x): they turn draws of the guide into draws that count "
    "unequally, as the posterior's",
    "amortization": "one encoder for all datapoints: what it loses against the best posterior of "
    "the same family, fitted to each datapoint alone",
    "encoder": "the network of the guide, which turns a datapoint into its approximate posterior",
    "energy distance": "a distance between two sets of draws; 0 if their distributions agree",
    "calibrated": "over data that the model made, the truth ranks uniformly among the draws",
    "posterior predictive p": "how often data that the model replicates from the posterior's "
    "draws exceed the data themselves; 0 and 1 are extreme",
    "effective draws": "so many independent draws would tell a mean as precisely",
    "active": "the data move the posterior mean of the latent",
    "guide": "the approximate posterior q(z|x) that was trained with the model",
    "chains": "draws of the posterior by Hamiltonian Monte Carlo, the reference here",
    "family": "the kind of distribution that the guide may choose from, as a diagonal normal",
    "ELBO": "the evidence lower bound, which training maximizes",
    "nats": "units of information with natural logarithms; 1 nat is 1.44 bits",
    "log p(x)": "the evidence: how probable the model finds a datapoint",
    "KL": "Kullback and Leibler's divergence of the posterior from the prior, in nats",
    "ESS": "effective sample size: so many independent draws would tell as much",
    "k̂": "Pareto k̂: how heavy the tail of the importance weights is; above 0.7 nothing helps",
    "R̂": "by how much chains differ from each other; 1 is agreement",
    "sd": "standard deviation",
}
_PATTERN = re.compile("|".join(rf"(?<!\w){re.escape(str(escape(w)))}(?!\w)" for w in WORDS))
_MEANING = {str(escape(word)): meaning for word, meaning in WORDS.items()}


def page(
    template: str, package: str, undefined: type[Undefined] = StrictUndefined, **found: Any
) -> str:
    """Fill in a template that extends the frame ``base.html.jinja``.

    Args:
        template: Name of its file.
        package: Where it lies.
        undefined: What stands for what is not there; by default an error.
        found: What it shows.
    """
    homes = {"base.html.jinja": __package__}

    def load(name: str) -> str:
        return files(homes.get(name, package)).joinpath(name).read_text(encoding="utf-8")

    environment = Environment(
        autoescape=True,
        undefined=undefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        loader=FunctionLoader(load),
    )
    environment.filters |= {
        "counted": counted,
        "decimal": decimal,
        "explained": explained,
        "shown_p": shown_p,
        "svg": svg,
        "words": words,
    }
    return environment.get_template(template).render(glossary=glossary, **found)


def explained(text: str) -> Markup:
    """Text whose words of the field say on hover what they mean.

    Example:
        >>> explained("2 nats")
        Markup('2 <abbr title="units of information with natural logarithms; ...">nats</abbr>')
    """
    seen: set[str] = set()

    def marked(found: re.Match[str]) -> str:
        if found[0] in seen:
            return found[0]
        seen.add(found[0])
        return f'<abbr title="{escape(_MEANING[found[0]])}">{found[0]}</abbr>'

    return Markup(_PATTERN.sub(marked, str(escape(text))))


def glossary(*texts: str) -> dict[str, str]:
    """The words of texts that are explained, for where nothing hovers."""
    text = str(escape(" ".join(texts)))
    used = {found[0] for found in _PATTERN.finditer(text)}
    return {word: WORDS[word] for word in WORDS if str(escape(word)) in used}


def svg(figure: Figure, alt: str) -> Markup:
    """A picture within the page, whose lines and words take the page's colour.

    Args:
        figure: Drawn with black lines on white.
        alt: What it shows, for those who do not see it.
    """
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": alt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"#000000\b|(?<=: )black", "currentColor", text)
    text = re.sub(r"(fill: )#ffffff", r"\1var(--paper)", text)
    # names are unique on a page: keep those referred to, with the picture's own mark
    mark = f"{zlib.crc32(alt.encode()):08x}-"
    used = set(re.findall(r'(?:href="#|url\(#)([\w.-]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda m: f' id="{mark}{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{mark}", text)
    head, rest = text.split(">", 1)
    head = re.sub(r'\s(?:width|height|version|xmlns(?::\w+)?)="[^"]*"', "", head)
    rest = rest.replace("xlink:href", "href")
    return Markup(
        f'{head} role="img" aria-label="{escape(alt)}"><title>{escape(alt)}</title>{rest}'
    )
