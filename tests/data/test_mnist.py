"""MNIST and its kin: IDX files, their place and their download."""

import gzip
import hashlib
import re
import struct
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from aevb.data import load

from small_datasets import GREY


def _idx(images: NDArray[Any]) -> bytes:
    return struct.pack(">4I", 0x803, *images.shape) + images.tobytes()


def _write_idx(root: Path, folder: str = "MNIST") -> Path:
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(_idx(GREY[:10]))
    (raw / "t10k-images-idx3-ubyte").write_bytes(_idx(GREY[10:14]))
    return raw


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("name", "folder"),
    [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")],
)
def test_idx_files_are_split_by_position(name: str, folder: str, tmp_path: Path) -> None:
    raw = _write_idx(tmp_path, folder)
    dataset = load(name, root=tmp_path, download=False)
    assert np.array_equal(dataset.train.values, GREY[:7])
    assert np.array_equal(dataset.validation.values, GREY[7:10])
    assert np.array_equal(dataset.test.values, GREY[10:14])
    assert (dataset.name, dataset.source, dataset.divisor) == (name, str(raw), 255)
    assert dataset.split_rule == (
        "training file in its order: first 7 train, last 3 validation; test file: 4 test"
    )


@pytest.mark.usefixtures("small")
def test_root_defaults_to_the_environment_then_to_the_cache_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_idx(tmp_path)
    monkeypatch.setenv("AEVB_DATA", str(tmp_path))
    assert load("mnist", download=False).shape == (6, 5)
    monkeypatch.setenv("AEVB_DATA", "")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda app: tmp_path / f"cache-{app}")
    with pytest.raises(FileNotFoundError, match="mnist: not in root=.*cache-aevb; expected"):
        load("mnist", download=False)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-1], r"315 bytes .*shape '\[10, 6, 5\]' is invalid"),
        (lambda content: content + b"x", r"317 bytes .*shape '\[10, 6, 5\]' is invalid"),
        (lambda content: content[:16], "16 bytes"),
        (lambda content: content[:7], "7 bytes"),
        (lambda content: b"", "0 bytes"),
        (lambda content: b"\x1f\x8b" + content, "318 bytes .*AssertionError"),
        (lambda content: content[:3] + b"\x02" + content[4:], "316 bytes"),
        (lambda content: content[:2] + b"\x0d" + content[3:], "316 bytes"),
        (lambda content: content[:4] + b"\xff" * 12 + content[16:], "316 bytes"),
        (lambda content: content[:4] + bytes(4) + content[8:], "316 bytes"),
    ],
)
@pytest.mark.parametrize("download", [False, True])
def test_damaged_idx_file_is_an_error_that_names_it(
    change: Callable[[bytes], bytes], message: str, download: bool, tmp_path: Path
) -> None:
    path = _write_idx(tmp_path) / "train-images-idx3-ubyte"
    path.write_bytes(change(path.read_bytes()))
    expected = f"{re.escape(str(path))}: {message}.*; expected idx images: delete"
    with pytest.raises(ValueError, match=expected):
        load("mnist", root=tmp_path, download=download)


def test_idx_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = _write_idx(tmp_path) / "train-images-idx3-ubyte"
    with path.open("ab") as file:
        file.truncate(2**40)  # sparse: reading it would need a terabyte
    with pytest.raises(ValueError, match="1,099,511,627,776 bytes .*are not read"):
        load("mnist", root=tmp_path, download=False)


def test_idx_file_of_other_images_is_an_error(tmp_path: Path) -> None:
    _write_idx(tmp_path)
    message = "10 training and 4 test datapoints; expected 60000 and 10000"
    with pytest.raises(ValueError, match=message):
        load("mnist", root=tmp_path, download=False)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Address of a server of this computer for the files in `tmp_path`."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """Keeps the output of the tests clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("small")
def test_mnist_is_downloaded_with_its_checksums(
    served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import MNIST

    root = tmp_path / "root"
    resources = []
    for part, images in (("train", GREY[:10]), ("t10k", GREY[10:14])):
        labels = struct.pack(">2I", 0x801, len(images)) + bytes(len(images))
        for kind, content in (("images-idx3", _idx(images)), ("labels-idx1", labels)):
            packed = gzip.compress(content)
            (tmp_path / f"{part}-{kind}-ubyte.gz").write_bytes(packed)
            resources.append((f"{part}-{kind}-ubyte.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(MNIST, "mirrors", [served + "/"])
    monkeypatch.setattr(MNIST, "resources", [(name, "0" * 32) for name, _ in resources])
    with pytest.raises(
        FileNotFoundError, match="the download failed: .*File not found or corrupted"
    ):
        load("mnist", root=root)
    monkeypatch.setattr(MNIST, "resources", resources)
    dataset = load("mnist", root=root)
    assert dataset.sha256 == load("mnist", root=root, download=False).sha256
    assert np.array_equal(dataset.test.values, GREY[10:14])
