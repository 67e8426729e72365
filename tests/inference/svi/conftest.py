"""Data of the tests of training."""

import pytest

from aevb import data


@pytest.fixture(scope="session", name="digits")
def fixture_digits() -> data.Dataset:
    return data.load("digits", binarize="dynamic")
