"""Files that are written whole, where they are said to be, as any program reads them."""

import csv
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aevb.data import Datapoints

__all__ = [
    "PICTURES",
    "as_json",
    "destination",
    "names_of_rows",
    "refuse_read_only",
    "replace_whole",
    "write_json",
    "write_rows",
    "write_text",
]

PICTURES = (".png", ".jpg", ".jpeg", ".pdf", ".svg")


def destination(path: Path, *suffixes: str) -> Path:
    """Where a file goes whose writer insists on a suffix; its folder is made.

    Args:
        path: As it was asked for.
        suffixes: Those that are left as they are; the first one is appended to any other.

    Raises:
        OSError: If the folder cannot be made or written to.
    """
    path = path if path.suffix in suffixes else path.with_name(path.name + suffixes[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_read_only(path.parent)
    return path


def refuse_read_only(folder: Path) -> None:
    """Say before the work that its results could not be written.

    Raises:
        PermissionError: If the folder cannot be written to.
    """
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder}: cannot be written to, and the results belong there")


def as_json(value: Any, **options: Any) -> str:
    """JSON that any parser reads: numbers that are not finite are null.

    Args:
        value: Of dictionaries, lists, strings and numbers.
        options: Of :func:`json.dumps`.

    Example:
        >>> as_json({"error": float("nan"), "gaps": [1.0, float("inf")]})
        '{"error": null, "gaps": [1.0, null]}'
    """
    return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list | tuple) else value


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON; see :func:`as_json`."""
    write_text(path, as_json(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a whole file or leave the old one, whatever happens in between."""
    replace_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def names_of_rows(found: "Datapoints") -> dict[str, Any]:
    """Arrays that say which datapoints these are: ``id``, if the file has any, index and split."""
    names = {"index": found.indices.numpy(), "split": found.splits}
    return names if found.ids is None else {"id": found.ids, **names}


def write_rows(path: Path, found: "Datapoints", columns: Mapping[str, Sequence[Any]]) -> None:
    """Write a line for each datapoint, which begins with which it is.

    Args:
        path: A ``.csv`` file.
        found: The datapoints; their ``index`` is the position in the file that they come from.
        columns: Values of each, by name; floats are written to their last digit.
    """
    table = {**names_of_rows(found), **columns}

    def write(partial: Path) -> None:
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(table)
            writer.writerows(zip(*table.values(), strict=True))

    replace_whole(path, write)


def replace_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let something write a file that takes the place of the old one only when it is whole."""
    partial = path.with_name(f".{path.name}.partial")
    write(partial)
    with partial.open("r+b") as file:
        os.fsync(file.fileno())
    partial.replace(path)
