"""Pages of the documentation as tests read them: their blocks of code, and commands in these."""

import re
from pathlib import Path

__all__ = ["DOCS", "ROOT", "blocks", "commands", "pages"]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def pages() -> dict[str, str]:
    """The text of README and of every page, by its path in the repository."""
    paths = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths}


def blocks(language: str, text: str) -> list[str]:
    """Fenced blocks of a language, whatever options stand behind it, and however far indented.

    Args:
        language: As it stands behind the fence.
        text: Of a page.
    """
    found = re.findall(
        rf"^( *)```{language}(?: [^\n]*)?\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE
    )
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


def commands(text: str) -> list[str]:
    """What follows ``aevb`` in the lines of bash blocks, comments and a last ``&`` left out.

    Args:
        text: Of a page.
    """
    joined = "\n".join(blocks("bash", text)).replace("\\\n", " ")
    lines = [line.partition(" #")[0].rstrip(" &") for line in joined.splitlines()]
    return [found[1] for line in lines if (found := re.match(r"(?:.* )?aevb (.+)$", line))]
