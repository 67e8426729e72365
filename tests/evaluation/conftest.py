"""A model whose posteriors and evidence are known, and its data."""

import pytest
from torch import Tensor

from aevb import models

from oracles import (
    linear_gaussian,
    simulate,
)


@pytest.fixture(scope="module", name="oracle")
def fixture_oracle() -> tuple[models.FactorAnalysis, Tensor]:
    fa = linear_gaussian()
    return fa, simulate(fa, 30)
