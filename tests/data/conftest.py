"""Folders and sizes in the place of the real ones."""

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray

from aevb.data import DATASETS, sources
from aevb.data.readers import frey

# MNIST and its kin


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> tuple[int, int, int]:
    """Lets the downloaded datasets be a few images of the test's own."""
    sizes = (7, 3, 4)
    for name in set(DATASETS) - {"digits", "frey-face"}:
        monkeypatch.setitem(sources.SIZES, name, sizes)
    return sizes


# The Frey faces


@pytest.fixture
def faces(monkeypatch: pytest.MonkeyPatch) -> NDArray[np.uint8]:
    """Stand-ins for the frames, (1965, 560), which are made to have the expected checksum."""
    frames = (np.arange(1965 * 560) * 13 % 241).astype(np.uint8).reshape(1965, 560)
    monkeypatch.setattr(frey, "SHA256", hashlib.sha256(frames.tobytes()).hexdigest())
    return frames
