"""``python -m aevb`` and the ``aevb`` command."""

import codecs
import os
import sys
import unicodedata

# Letters of formulas on a terminal that has none of them.
_SPELLED = {
    "\u0302": "-hat",  # the hat of k̂
    "±": "+/-",
    "×": "x",
    "≥": ">=",
    "≤": "<=",
    "≈": "~",
    "–": "-",
    "−": "-",
    "…": "...",
    "→": "->",
    "·": "-",
    "’": "'",
}


def main() -> None:
    """Run the command line and leave with its exit code."""
    from aevb.cli import main as run

    codecs.register_error("aevb", _spelled)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="aevb")
    try:
        code = run()
        sys.stdout.flush()
    except BrokenPipeError:  # as `aevb --help | true`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    sys.exit(code)


def _spelled(error: UnicodeError) -> tuple[str, int]:
    """What a stream cannot encode, in letters that it can."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    plain = (_SPELLED.get(c) or _without_marks(c) for c in letters)
    return "".join(plain), error.end


def _without_marks(letter: str) -> str:
    found = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return found or "?"


if __name__ == "__main__":
    main()
