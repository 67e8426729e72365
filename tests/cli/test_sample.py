"""`aevb sample`: pictures and arrays."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# Samples


def test_samples_are_a_picture_and_an_array(run: Path, aevb: Any) -> None:
    result = json.loads(aevb("sample", run, "--num", 5, "--json").out)
    assert result["picture"] == str(run / "samples-5-seed0.png")
    array = np.load(result["array"])
    assert array.shape == (5, 8, 8)
    assert array.min() >= 0
    assert array.max() <= 1
    with Image.open(result["picture"]) as picture:
        assert picture.format == "PNG"


def test_samples_follow_the_seed(run: Path, aevb: Any) -> None:
    arrays = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        aevb("sample", run, "--num", 3, "--seed", seed, "--out", f"{name}.png")
        arrays.append(np.load(f"{name}.npy"))
    assert np.array_equal(arrays[0], arrays[1])
    assert not np.array_equal(arrays[0], arrays[2])
