"""Tables: their values exact, their names kept, and what is no number refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from aevb.data import Table, load
from aevb.data.readers.h5ad import read_h5ad
from aevb.data.readers.tables import read_parquet, read_text
from aevb.data.rows import Rows

COUNTS = np.random.RandomState(0).poisson(2.0, size=(20, 3))
CELLS = [f"{place:03}" for place in range(20)]
GENES = ("CD3", "CD8", "FOXP3")


def text(path: Path, separator: str = ",", corner: str = "cell", values: Any = COUNTS) -> Path:
    lines = [separator.join([corner, *GENES])]
    lines += [
        separator.join([cell, *map(str, row)]) for cell, row in zip(CELLS, values, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_names_of_rows_and_columns_reach_the_splits(tmp_path: Path) -> None:
    dataset = load(text(tmp_path / "x.csv"), table=Table(id_column="cell"))
    assert dataset.columns == GENES
    for split in (dataset.train, dataset.validation, dataset.test):
        assert split.ids is not None
        assert split.ids.tolist() == [CELLS[place] for place in split.indices]
        assert np.array_equal(split.values, COUNTS[split.indices])
    assert (dataset.train.values.dtype, dataset.divisor) == (torch.int32, 1)


@pytest.mark.parametrize(
    ("name", "separator", "corner", "table"),
    [
        ("x.csv", ",", "cell", Table(id_column="cell")),
        ("x.csv", ",", "", Table()),
        ("x.TSV", "\t", "cell", Table(id_column="cell")),
        ("x.tsv", "\t", "", Table()),
    ],
)
def test_row_names_are_kept_as_they_are_written(
    name: str, separator: str, corner: str, table: Table, tmp_path: Path
) -> None:
    rows = read_text(text(tmp_path / name, separator, corner), table)
    assert rows.ids is not None
    assert rows.ids.tolist() == CELLS
    assert rows.columns == GENES
    assert np.array_equal(rows.array, COUNTS)


def test_columns_are_chosen_and_left_out(tmp_path: Path) -> None:
    path = text(tmp_path / "x.csv")
    assert read_text(path, Table(ignore=["cell", "CD8"])).columns == ("CD3", "FOXP3")
    chosen = read_text(path, Table(id_column="cell", columns=["FOXP3", "CD3"]))
    assert chosen.columns == ("FOXP3", "CD3")
    assert np.array_equal(chosen.array, COUNTS[:, [2, 0]])


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ("1,2", np.int64),
        ("1,2.5", np.float32),
        ("16777217,2.5", np.float64),
        ("True,False", np.bool_),
        ("True,3", np.int64),
    ],
)
def test_text_becomes_the_least_that_is_exact(values: str, dtype: Any, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(f"a,b\n{values}\n")
    rows = read_text(tmp_path / "x.csv")
    assert rows.array.dtype == dtype
    assert rows.ids is None
    exact = [float({"True": 1, "False": 0}.get(word, word)) for word in values.split(",")]
    assert rows.array.astype(float).tolist() == [exact]


@pytest.mark.parametrize(
    ("content", "table", "message"),
    [
        ("a,b\n1,x\n2,y\n", Table(), r"hold no numbers: b \(b holds 'x'\).*--table.id_column b"),
        ("a,b\n1,x\n2,x\n", Table(), r"--table.ignore \['b'\]"),
        ("a,b\n1,\n2,3\n", Table(), r"missing or infinite in b \(1\), the first in row 0; fill"),
        ("i,b\nq,1\nr,NA\n", Table(id_column="i"), r"in b \(1\), the first in row 1 \(r\)"),
        ("a,b\n1,inf\n2,3\n", Table(), r"missing or infinite in b \(1\)"),
        ("1,2\n3,4\n", Table(), r"first line holds numbers \(1, 2\); expected names of columns"),
        ("a;b\n1;2\n", Table(), "one column named 'a;b'; expected columns separated by commas"),
        ("a,a\n1,2\n", Table(), "columns named twice: a"),
        ("", Table(), "is empty"),
        ("a,b\n1,2\n1,2,3\n", Table(), "cannot be decoded"),
        ("a,b\n1,2\n", Table(id_column="c"), "has no column 'c'; it has a, b"),
        ("a,b\n1,2\n", Table(ignore=["c"]), "has no column c; it has a, b"),
        ("a,b\n1,2\n", Table(ignore=["a", "b"]), "no columns are left as features"),
    ],
)
def test_what_is_no_table_of_numbers_is_refused_by_name(
    content: str, table: Table, message: str, tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(ValueError, match="x.csv: .*" + message):
        read_text(tmp_path / "x.csv", table)


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes("größe\n1\n".encode("latin-1"))
    with pytest.raises(ValueError, match="x.csv: cannot be decoded"):
        read_text(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("größe\n1\n", encoding="utf-8-sig")
    assert read_text(tmp_path / "x.csv").columns == ("größe",)


def test_compressed_file_with_the_name_of_a_table_is_not_unpacked(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "x.csv").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with pytest.raises(ValueError, match="x.csv: cannot be decoded"):
        read_text(tmp_path / "x.csv")


# Parquet


def parquet(path: Path, index: list[str] | None = None) -> Path:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame(COUNTS.astype(np.uint8), columns=GENES, index=index)
    frame.to_parquet(path)
    return path


def test_parquet_keeps_types_and_index(tmp_path: Path) -> None:
    rows = read_parquet(parquet(tmp_path / "x.parquet", CELLS))
    assert rows.ids is not None
    assert rows.ids.tolist() == CELLS
    assert rows.columns == GENES
    assert np.array_equal(rows.array, COUNTS)
    assert read_parquet(parquet(tmp_path / "y.parquet")).ids is None
    # 8 bits of a table are no grey levels
    assert load(tmp_path / "x.parquet").divisor == 1


def test_parquet_that_claims_too_much_or_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = parquet(tmp_path / "x.parquet")
    monkeypatch.setattr("aevb.data.rows.MOST_VALUES", 59)
    with pytest.raises(ValueError, match="x.parquet: 20 × 3 values; at most 59 are read"):
        read_parquet(path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="x.parquet: cannot be decoded"):
        read_parquet(path)


def test_missing_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pip install 'aevb\[parquet\]'"):
        read_parquet(tmp_path / "x.parquet")


# AnnData


def h5ad(path: Path, kind: str = "dense", values: Any = COUNTS) -> Path:
    """A file as the format's documentation describes it."""
    import h5py

    with h5py.File(path, "w") as file:
        strings = h5py.string_dtype()
        for name, labels in (("obs", CELLS), ("var", list(GENES))):
            group = file.create_group(name)
            group.attrs["_index"] = "_index"
            group.create_dataset("_index", data=labels, dtype=strings)
        donor = file["obs"].create_group("donor")
        donor.create_dataset("codes", data=np.arange(20) % 2)
        donor.create_dataset("categories", data=["ann", "bob"], dtype=strings)
        file.create_group("layers").create_dataset("raw", data=values)
        if kind == "dense":
            file.create_dataset("X", data=values.astype(np.float32), compression="gzip")
        else:
            matrix = sparse.csr_matrix(values) if kind == "csr" else sparse.csc_matrix(values)
            group = file.create_group("X")
            group.attrs["encoding-type"] = f"{kind}_matrix"
            group.attrs["shape"] = matrix.shape
            for name in ("data", "indices", "indptr"):
                group.create_dataset(name, data=getattr(matrix, name))
    return path


@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
def test_counts_of_h5ad_are_exact_and_named(kind: str, tmp_path: Path) -> None:
    large = COUNTS * 700_001
    rows = read_h5ad(h5ad(tmp_path / "x.h5ad", kind, large))
    assert rows.ids is not None
    assert rows.ids.tolist() == CELLS
    assert rows.columns == GENES
    assert rows.array.dtype.kind == "i"
    assert np.array_equal(rows.array, large)


def test_h5ad_has_layers_and_columns_of_ids(tmp_path: Path) -> None:
    path = h5ad(tmp_path / "x.h5ad")
    rows = read_h5ad(path, Table(layer="raw", id_column="donor", ignore=["CD8"]))
    assert rows.ids is not None
    assert rows.ids.tolist() == ["ann", "bob"] * 10
    assert np.array_equal(rows.array, COUNTS[:, [0, 2]])
    with pytest.raises(ValueError, match="has no layers/counts; its layers: raw"):
        read_h5ad(path, Table(layer="counts"))
    with pytest.raises(ValueError, match="has no column 'cell'; it has _index, donor"):
        read_h5ad(path, Table(id_column="cell"))


def test_h5ad_reads_nothing_outside_itself_or_beyond_its_bound(tmp_path: Path) -> None:
    import h5py

    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 480)
    for name, forge in {
        "elsewhere": lambda f: f.create_dataset(
            "X", (20, 3), np.float64, external=[(str(secret), 0, 480)]
        ),
        "link": lambda f: f.__setitem__("X", h5py.ExternalLink(str(secret), "X")),
        "huge": lambda f: f.create_dataset("X", (2**40, 3), np.float32, chunks=(1024, 3)),
        "virtual": lambda f: f.create_virtual_dataset("X", h5py.VirtualLayout((20, 3), "f4")),
    }.items():
        path = h5ad(tmp_path / f"{name}.h5ad")
        with h5py.File(path, "a") as file:
            del file["X"]
            forge(file)
        with pytest.raises(ValueError, match="outside the file|is a link|at most"):
            read_h5ad(path)


def test_h5ad_that_is_none_is_refused(tmp_path: Path) -> None:
    path = h5ad(tmp_path / "x.h5ad")
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ValueError, match="x.h5ad: cannot be decoded"):
        read_h5ad(path)


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_what_anndata_writes_is_read(form: str, tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    values = COUNTS.astype(np.float32)
    made = anndata.AnnData(sparse.csr_matrix(values) if form == "sparse" else values)
    made.obs_names, made.var_names = CELLS, list(GENES)
    made.obs["donor"] = ["ann", "bob"] * 10
    made.layers["log"] = np.log1p(values)
    made.write_h5ad(tmp_path / "x.h5ad")
    found: Rows = read_h5ad(tmp_path / "x.h5ad")
    assert found.ids is not None
    assert (found.ids.tolist(), found.columns) == (CELLS, GENES)
    assert np.array_equal(found.array, COUNTS)
    logs = read_h5ad(tmp_path / "x.h5ad", Table(layer="log", id_column="donor"))
    assert logs.ids is not None
    assert logs.ids.tolist() == ["ann", "bob"] * 10
    assert np.array_equal(logs.array, np.log1p(values))
