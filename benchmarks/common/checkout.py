"""The package ``aevb`` out of a checkout, where it cannot be installed."""

import importlib.util
from pathlib import Path

from benchmarks.common.machine import ROOT

__all__ = ["make_importable"]

_FOLDERS = ("data", "models", "inference", "evaluation")


def make_importable(folder: Path) -> str | None:
    """Build a package of links to the checkout's folders, unless ``aevb`` is installed.

    Its ``__init__`` is empty: the real one asks for the installed version and imports everything.

    Args:
        folder: Where the package is put.

    Returns:
        What belongs on ``PYTHONPATH``, or None.
    """
    if importlib.util.find_spec("aevb") is not None:
        return None
    package = folder / "aevb"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for name in _FOLDERS:
        (package / name).symlink_to(ROOT / name, target_is_directory=True)
    return str(folder)
