"""Hooks of the site: the package laid out for its reference, figures shown, notebooks written."""

import re
import shutil
import sys
import tomllib
from io import StringIO
from pathlib import Path
from typing import Any

import griffe
import jupytext
import matplotlib
from matplotlib import pyplot

ROOT = Path(__file__).parent.parent
ROLE = re.compile(r":(?:mod|class|func|meth|attr|data):`~?([^`]+)`")


def on_startup(command: str, dirty: bool) -> None:
    """Lay the package out as a wheel has it, where the reference is read from.

    Before plugins read the configuration, since the reference passes over folders that are not
    there yet.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    api = ROOT / "build" / "api"
    shutil.rmtree(api, ignore_errors=True)
    for name, path in project["tool"]["setuptools"]["package-dir"].items():
        package = api / name.replace(".", "/")
        package.mkdir(parents=True)
        for module in (ROOT / path).glob("*.py"):
            shutil.copy(module, package)
    matplotlib.use("Agg")
    pyplot.show = _show


def on_post_build(config: Any) -> None:
    """Write each tutorial as a notebook beside its page."""
    for page in (Path(config.docs_dir) / "tutorials").glob("*.md"):
        if "python exec" in (text := page.read_text()):
            notebook = Path(config.site_dir) / "tutorials" / f"{page.stem}.ipynb"
            jupytext.write(jupytext.reads(as_cells(text), fmt="md"), notebook)


def as_cells(page: str) -> str:
    """A page without what concerns the site alone: options of its code and links to itself."""
    text = re.sub(r"```python exec[^\n]*", "```python", page)
    return re.sub(r"\n[^\n]*\.ipynb\)[^\n]*\n", "\n", text)


def _show(*_: Any, **__: Any) -> None:
    """Put the open figures into the page whose code asks for them."""
    into_the_page = sys._getframe(1).f_globals["print"]
    for number in pyplot.get_fignums():
        figure, drawn = pyplot.figure(number), StringIO()
        figure.savefig(drawn, format="svg", bbox_inches="tight")
        title = figure.get_label() or "figure"
        svg = drawn.getvalue()
        into_the_page(f'<div role="img" aria-label="{title}">{svg[svg.index("<svg") :]}</div>')
    pyplot.close("all")


class Roles(griffe.Extension):
    """Docstrings as griffe reads them: an example is code, Sphinx's roles are links."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            text = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.M)
            obj.docstring.value = ROLE.sub(lambda found: _link(obj, found[1]), text)


def _link(obj: griffe.Object, name: str) -> str:
    try:
        path = obj.resolve(name)
    except griffe.NameResolutionError:
        path = name
    return f'<autoref identifier="{path}" optional><code>{name}</code></autoref>'
