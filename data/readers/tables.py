"""A user's own tables: ``.csv``, ``.tsv`` and ``.parquet``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aevb.data.rows import Rows, Table, listed, refuse_larger
from aevb.data.values import MAX_COUNT

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["read_parquet", "read_text"]

_UNNAMED = "Unnamed: 0"  # pandas' name of a first column without one


def read_text(path: Path, table: Table = Table()) -> Rows:
    r"""Read a table with one line of column names, separated by commas, or in ``.tsv`` by tabs.

    Whole numbers stay whole. With decimals among them all become float32, or float64 if a whole
    number would lose digits. A first column without a name, as pandas and R write row names, is
    the rows' ids.

    Args:
        path: The file, UTF-8.
        table: Which column holds the ids, and which are left out.

    Returns:
        Features ``(N, D)`` with the names of rows and columns.

    Raises:
        ValueError: If it cannot be decoded, a column holds text or misses values, or the first
            line holds no names.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "counts.csv"
        >>> _ = path.write_text("cell,CD3,CD8\na,4,0\nb,0,1\n")
        >>> read_text(path, Table(id_column="cell"))
        Rows(array=array([[4, 0],
               [0, 1]]), ids=array(['a', 'b'], dtype='<U1'), columns=('CD3', 'CD8'))
    """
    import pandas

    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            names = next(csv.reader(file, delimiter=separator), [])
        _check_names(names, path)
        has_index = len(names) > 1 and not names[0].strip()
        of_ids = _UNNAMED if has_index else table.id_column
        frame = pandas.read_csv(
            path, sep=separator, encoding="utf-8-sig", compression=None, low_memory=False,
            index_col=False, dtype={of_ids: str},  # as they are written, 007 too
        )  # fmt: skip
        if has_index:
            frame = frame.set_index(_UNNAMED)
    except (OSError, UnicodeDecodeError, csv.Error, pandas.errors.ParserError) as error:
        raise _undecodable(path, error) from error
    rows = _rows(frame, path, table, has_index)
    if rows.array.dtype != np.float64:
        return rows
    # text has no precision of its own
    whole = [c for c in frame.columns if frame[c].dtype.kind in "iu"]
    exact = all(float(frame[c].abs().max()) <= MAX_COUNT for c in whole)
    return rows._replace(array=rows.array.astype(np.float32)) if exact else rows


def read_parquet(path: Path, table: Table = Table()) -> Rows:
    """Read a Parquet file; its types are kept, and an index of pandas that is no range is the ids.

    Args:
        path: The file.
        table: As for :func:`read_text`.

    Returns:
        As :func:`read_text`.

    Raises:
        ValueError: As :func:`read_text`; or if pyarrow is missing.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f"{path}: needs pyarrow: pip install 'aevb[parquet]'") from error
    import pandas

    try:
        metadata = parquet.read_metadata(path)
    except Exception as error:  # Arrow's errors share no other type
        raise _undecodable(path, error) from error
    refuse_larger((metadata.num_rows, metadata.num_columns), str(path))
    try:
        frame = parquet.ParquetFile(path).read().to_pandas()
    except Exception as error:
        raise _undecodable(path, error) from error
    return _rows(frame, path, table, not isinstance(frame.index, pandas.RangeIndex))


def _check_names(names: Sequence[str], path: Path) -> None:
    """Refuse a first line that holds no names, or the same one twice."""
    if not names:
        raise ValueError(f"{path}: is empty; expected one line of column names")
    if all(map(_is_number, names)):
        raise ValueError(
            f"{path}: the first line holds numbers ({listed(names)}); expected names of columns"
        )
    if len(names) == 1 and (other := next((c for c in ";\t|" if c in names[0]), None)):
        raise ValueError(
            f"{path}: one column named {names[0]!r:.60}; expected columns separated by commas "
            f"(or tabs in .tsv), not by {other!r}"
        )
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise ValueError(f"{path}: columns named twice: {listed(twice)}; expected names of one")


def _rows(frame: DataFrame, path: Path, table: Table, has_index: bool) -> Rows:
    """The features as one array, and who they are."""
    frame = frame.rename(columns=str)
    _check_names(list(frame.columns) or [""], path)
    found = list(frame.columns)
    if table.id_column is not None and table.id_column not in found:
        raise ValueError(f"{path}: has no column {table.id_column!r}; it has {listed(found)}")
    places = table.features(found, str(path))
    ids = None
    if table.id_column is not None:
        ids = frame[table.id_column].astype(str).to_numpy(dtype=str)
    elif has_index:
        ids = frame.index.astype(str).to_numpy(dtype=str)
    frame = frame.iloc[:, places]
    _refuse_text(frame, path)
    array = np.stack([_numbers(frame[name]) for name in frame.columns], axis=1)
    _refuse_missing(array, frame, ids, path)
    return Rows(array, ids, tuple(frame.columns))


def _numbers(column: Any) -> NDArray[Any]:
    """One column; one that misses values as floats."""
    if column.isna().any():
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    values = np.asarray(column.to_numpy(dtype=column.dtype.name.lower().removesuffix("[pyarrow]")))
    # a column of a table is no image: 8 bits are small counts
    return values.astype(np.int16) if values.dtype == np.uint8 else values


def _refuse_text(frame: DataFrame, path: Path) -> None:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    text = [
        name
        for name in frame.columns
        if not (is_numeric_dtype(frame[name]) or is_bool_dtype(frame[name]))
    ]
    if not text:
        return
    values = frame[text[0]].dropna().astype(str)
    example = next((value for value in values if not _is_number(value)), "nothing")
    field = "id_column" if frame[text[0]].is_unique else "ignore"
    value = text[0] if field == "id_column" else text
    raise ValueError(
        f"{path}: columns that hold no numbers: {listed(text)} ({text[0]} holds {example!r:.40}); "
        "name the one that tells rows apart as id_column and leave others out with ignore, as in "
        f"table=Table({field}={value!r:.60}) or --table.{field} {value!s:.60}, or code them as "
        "numbers"
    )


def _refuse_missing(
    array: NDArray[Any], frame: DataFrame, ids: NDArray[np.str_] | None, path: Path
) -> None:
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    missing = ~np.isfinite(array)
    counts = missing.sum(0)
    named = [f"{frame.columns[c]} ({counts[c]})" for c in counts.nonzero()[0]]
    row = int(missing.any(1).argmax())
    who = f"row {row}" if ids is None else f"row {row} ({ids[row]})"
    raise ValueError(
        f"{path}: values that are missing or infinite in {listed(named)}, the first in {who}; "
        "fill them in, drop these rows, or leave the columns out with ignore"
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _undecodable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path}: cannot be decoded ({' '.join(str(error).split()):.200}); expected a table of "
        "numbers with names of columns"
    )
