"""Where the files of a named dataset lie, and what to say when they do not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["data_root", "not_found"]


def data_root(root: str | os.PathLike[str] | None) -> Path:
    """The folder of the named datasets: ``root``, else ``$AEVB_DATA``, else the user's cache.

    Example:
        >>> data_root("datasets").name
        'datasets'
    """
    if root is not None:
        return Path(root).expanduser()
    if os.environ.get("AEVB_DATA"):
        return Path(os.environ["AEVB_DATA"]).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("aevb")


def not_found(
    name: str, root: Path, files: Sequence[Path], error: Exception | None = None
) -> FileNotFoundError:
    """The error for a dataset that is not on disk, which names the folder and the remedy.

    Args:
        name: The dataset.
        root: The folder looked in.
        files: The files that would have been read.
        error: What stopped the download, or None if none was tried.

    Returns:
        The error to raise.

    Example:
        >>> str(not_found("mnist", Path("data"), [Path("data/MNIST/raw/train")]))[:54]
        'mnist: not in root=data; expected MNIST/raw/train: put'
    """
    expected = ", ".join(file.relative_to(root).as_posix() for file in files)
    tried = f" (the download failed: {' '.join(str(error).split())})" if error else ""
    remedy = f', or let load("{name}", download=True) fetch them' if not error else ""
    return FileNotFoundError(
        f"{name}: not in root={root}{tried}; expected {expected}: put the files there or name "
        f"another folder with root= or $AEVB_DATA{remedy}"
    )
