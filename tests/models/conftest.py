"""Every part of a model in turn."""

from typing import Any

import pytest

from model_parts import DISTRIBUTIONS


@pytest.fixture(params=DISTRIBUTIONS, ids=repr, name="part")
def fixture_part(request: pytest.FixtureRequest) -> Any:
    return request.param
