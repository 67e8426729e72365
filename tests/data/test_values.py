"""Values: what a dtype means."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from aevb.data import load

from small_datasets import GREY, everything, sorted_rows

# Values: what a dtype means


@pytest.mark.parametrize(
    ("values", "stored", "divisor", "presented"),
    [
        (GREY, torch.uint8, 255, torch.float32),
        (GREY > 100, torch.uint8, 1, torch.float32),
        (GREY.astype(np.int8), torch.int8, 1, torch.float32),
        (GREY.astype(np.int16), torch.int16, 1, torch.float32),
        (GREY.astype(np.uint16), torch.int32, 1, torch.float32),
        (GREY.astype(np.uint32), torch.int32, 1, torch.float32),
        (GREY.astype(np.int64), torch.int32, 1, torch.float32),
        (GREY.astype(">i2"), torch.int16, 1, torch.float32),
        (GREY.astype(np.float16), torch.float32, 1, torch.float32),
        (GREY.astype(np.float32) - 0.5, torch.float32, 1, torch.float32),
        (GREY.astype(">f4"), torch.float32, 1, torch.float32),
        (GREY.astype(np.float64) / 7, torch.float64, 1, torch.float64),
    ],
)
def test_dtype_tells_how_values_are_stored_and_presented(
    values: NDArray[Any], stored: torch.dtype, divisor: float, presented: torch.dtype
) -> None:
    dataset = load(values)
    assert (dataset.train.values.dtype, dataset.divisor) == (stored, divisor)
    shown = torch.cat([part.evaluation() for part in (dataset.train, dataset.validation)])
    shown = torch.cat([shown, dataset.test.gather(torch.arange(4))])
    assert shown.dtype == presented
    exact = torch.from_numpy(values.astype(np.float64)).to(presented) / divisor
    assert sorted_rows(shown) == sorted_rows(exact)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_tensor_and_array_of_the_same_numbers_are_the_same_data(dtype: torch.dtype) -> None:
    tensor = torch.from_numpy(GREY).to(dtype).requires_grad_()
    array = GREY.astype(np.float32)
    if dtype == torch.bfloat16:
        array = torch.from_numpy(GREY).bfloat16().float().numpy()
    assert load(tensor).sha256 == load(array).sha256
    assert not load(tensor).train.values.requires_grad


def test_changing_the_source_does_not_change_the_dataset() -> None:
    tensor = torch.ones(20, 3)
    dataset = load(tensor)
    tensor.zero_()
    assert everything(dataset).min() == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(20), r"source: shape \(20,\); expected \(N, \*shape\)"),
        (torch.tensor(1.0), r"source: shape \(\); expected \(N, \*shape\)"),
        (np.zeros((9, 3)), "source: 9 datapoints; expected at least 10"),
        (np.zeros((0, 3)), "source: 0 datapoints"),
        (np.zeros((20, 0, 3)), r"shape \(20, 0, 3\), whose datapoints are empty"),
        (np.zeros((20, 3), dtype=complex), "source: dtype complex128; expected uint8"),
        (torch.zeros(20, 3, dtype=torch.complex64), "source: dtype complex64"),
        (np.full((20, 3), "a"), "source: dtype <U1; expected uint8"),
        (np.full((20, 3), None), "source: dtype object; expected uint8"),
        (np.zeros((20, 3), dtype="M8[s]"), "dtype datetime64"),
        (np.zeros((20, 3), dtype=np.longdouble), "source: dtype"),
        (torch.zeros(20, 3).to_sparse(), "source: layout torch.sparse_coo"),
        (torch.zeros(20, 3).to(torch.float8_e5m2), "source: dtype torch.float8_e5m2"),
        (np.ma.masked_less(GREY, 9), "source: masked array"),
        (np.full((20, 3), 2**24 + 1), r"integers from 16777217 to 16777217; expected .* 2\*\*24"),
        (np.full((20, 3), -(2**40)), "integers from -1099511627776"),
        ((GREY > 9).astype(np.uint8), "uint8 values that are all 0 or 1; expected pixels 0..255"),
        ([[1.0, 2.0]] * 20, "source: list; expected one of digits, mnist"),
        (None, "source: NoneType; expected one of digits"),
    ],
)
def test_values_that_are_no_data_are_an_error(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(values)


@pytest.mark.parametrize(("value", "name"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_values_that_are_not_finite_are_counted_and_located(value: float, name: str) -> None:
    values = np.zeros((20, 3, 2))
    values[[4, 7, 9], 1, 0] = value
    message = rf"source: 3 values .* the first \({name}\) at index \(4, 1, 0\)"
    with pytest.raises(ValueError, match=message):
        load(values)
