"""AnnData's ``.h5ad``: a matrix of counts with the names of its cells and genes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aevb.data.rows import Rows, Table, refuse_larger

if TYPE_CHECKING:
    from h5py import Dataset, Group

__all__ = ["read_h5ad"]


def read_h5ad(path: Path, table: Table = Table()) -> Rows:
    """Read one matrix of an ``.h5ad`` file, dense, in the precision of the file.

    Whole numbers that AnnData keeps as floats become integers, which they are. The file is
    data alone: links to other files, and data kept outside it, are refused.

    References:
        anndata: Annotated data (Virshup et al., 2024), https://doi.org/10.21105/joss.04371; the
        on-disk format, https://anndata.readthedocs.io/en/stable/fileformat-prose.html

    Args:
        path: The file, as AnnData writes it since 0.7.
        table: Which ``layer`` to read, which column of ``obs`` holds the ids, and which variables
            are left out.

    Returns:
        Values ``(N, D)``, with ``obs_names`` and ``var_names``.

    Raises:
        ValueError: If it cannot be decoded, is too large, refers to other files, or lacks what
            ``table`` names.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            layers = sorted(_group(file, "layers", path)) if "layers" in file else []
            place = "X" if table.layer is None else f"layers/{table.layer}"
            if place not in file:
                raise ValueError(
                    f"{path}: has no {place}; its layers: {', '.join(layers) or 'none'}"
                )
            array = _matrix(_node(file, place, path), f"{path} [{place}]")
            ids = _names(_group(file, "obs", path), table.id_column, f"{path} [obs]")
            columns = _names(_group(file, "var", path), None, f"{path} [var]")
    except ValueError:
        raise
    except Exception as error:  # of damaged files: OSError, KeyError, RuntimeError, ...
        raise ValueError(
            f"{path}: cannot be decoded ({' '.join(str(error).split()):.200}); expected a file "
            "written by AnnData"
        ) from error
    if array.ndim != 2 or array.shape != (len(ids), len(columns)):
        raise ValueError(
            f"{path}: {place} of shape {array.shape}; expected ({len(ids)}, {len(columns)}), the "
            "names of its rows and columns"
        )
    kept = Table(columns=table.columns, ignore=table.ignore).features(columns.tolist(), str(path))
    return Rows(_whole(array[:, kept]), ids, tuple(columns[kept].tolist()))


def _matrix(node: Any, where: str) -> NDArray[Any]:
    """A dense or sparse matrix as a dense one."""
    import h5py
    from scipy import sparse

    if isinstance(node, h5py.Dataset):
        return _values(node, where)
    shape, kind = node.attrs.get("shape"), node.attrs.get("encoding-type", "")
    makers = {"csr_matrix": sparse.csr_matrix, "csc_matrix": sparse.csc_matrix}
    if kind not in makers or shape is None:
        raise ValueError(f"{where}: of kind {kind!r}; expected an array, csr_matrix or csc_matrix")
    refuse_larger(shape, where)
    data, indices, starts = (
        _values(_node(node, name, where), f"{where}/{name}")
        for name in ("data", "indices", "indptr")
    )
    matrix = makers[kind]((data, indices, starts), shape=tuple(map(int, shape)))
    matrix.check_format(full_check=True)
    return np.asarray(matrix.toarray())


def _names(group: Group, column: str | None, where: str) -> NDArray[np.str_]:
    """A column of ``obs`` or ``var`` as strings, by default its index."""
    import h5py

    name = column or group.attrs.get("_index", "_index")
    if name not in group:
        have = ", ".join(sorted(group))
        raise ValueError(f"{where}: has no column {name!r}; it has {have:.200}")
    node = _node(group, name, where)
    if isinstance(node, h5py.Dataset):
        return _strings(_values(node, where))
    if "values" in node:  # strings that may be missing
        return _strings(_values(_node(node, "values", where), where))
    codes, kinds = (_values(_node(node, part, where), where) for part in ("codes", "categories"))
    if codes.min() < 0:
        raise ValueError(f"{where}: column {name!r} misses values; expected an id in each row")
    return _strings(kinds)[codes]


def _strings(values: NDArray[Any]) -> NDArray[np.str_]:
    if values.dtype.kind == "O":
        return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values], str)
    return values.astype(str)


def _values(node: Dataset, where: str) -> NDArray[Any]:
    """Everything in a dataset that lies in this file."""
    if node.is_virtual or node.external:
        raise ValueError(f"{where}: lies outside the file; expected values within it")
    refuse_larger(node.shape, where)
    return np.asarray(node[()])


def _node(group: Group, path: str, where: Any) -> Any:
    """What lies at a path of a group, found through no link but the file's own."""
    import h5py

    for name in path.split("/"):
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{where}: {name!r} is a link; expected values within the file")
        group = group[name]
    return group


def _group(file: Any, name: str, path: Path) -> Any:
    import h5py

    found = _node(file, name, path)
    if not isinstance(found, h5py.Group):
        raise ValueError(
            f"{path}: {name} is no group; expected a file written by AnnData 0.7 or later"
        )
    return found


def _whole(array: NDArray[Any]) -> NDArray[Any]:
    """Counts that are kept as floats, and 8-bit ones, as the counts that they are."""
    if array.dtype == np.uint8:
        return array.astype(np.int16)
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        return array
    if array.min() >= 0 and array.max() < 2**24 and bool((array == np.rint(array)).all()):
        return array.astype(np.int32)
    return array
