"""Figures as small tables, for notebooks and for pandas: what results of every layer share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["data_frame", "html_table"]


def html_table(title: str, rows: Mapping[str, Any], note: str = "") -> str:
    """A two-column table without styles or scripts of its own, as notebooks show it.

    Args:
        title: Its caption.
        rows: Values by name; floats are given four digits, None and empty strings left out.
        note: A line, or several, below; as ``repr`` has them.

    Example:
        >>> html_table("Run", {"step": 3, "why": None}, "k < 1")
        '<table><caption>Run</caption><tr><th>step</th><td>3</td></tr></table><pre>k &lt; 1</pre>'
    """
    shown = {name: _shown(value) for name, value in rows.items() if value is not None}
    cells = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>"
        for name, text in shown.items()
        if text
    )
    below = f"<pre>{escape(note)}</pre>" if note else ""
    return f"<table><caption>{escape(title)}</caption>{cells}</table>{below}"


def data_frame(
    columns: Mapping[str, Tensor | Iterable[Any]], index: Iterable[Any] | None = None
) -> DataFrame:
    """A row for each datapoint, in the order in which they came.

    Args:
        columns: ``(B,)`` each; a single value stands for a joint posterior.
        index: Names or numbers of the datapoints; by default 0, 1, 2, ...

    Raises:
        ValueError: If there are other than B of them.

    Example:
        >>> data_frame({"ess": torch.tensor([9.0, 8.5])}, index=[17, 4])["ess"].to_dict()
        {17: 9.0, 4: 8.5}
    """
    from pandas import DataFrame, Index  # not before it is asked for

    found = {name: _column(value) for name, value in columns.items()}
    frame = DataFrame(found)
    if index is None:
        return frame.rename_axis("datapoint")
    given = index.tolist() if isinstance(index, Tensor) else list(index)
    if len(given) != len(frame):
        raise ValueError(f"index: expected one for each of {len(frame)} rows; got {len(given)}")
    return frame.set_axis(Index(given, name="datapoint"), axis=0)


def _column(value: Tensor | Iterable[Any]) -> Any:
    if isinstance(value, Tensor):
        value = torch.atleast_1d(value.detach().cpu()).numpy()
    return value


def _shown(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
