"""Small arrays and files in the place of datasets."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aevb.data import Dataset

GREY = np.random.RandomState(0).randint(0, 256, size=(40, 6, 5)).astype(np.uint8)


def everything(dataset: Dataset) -> Tensor:
    return torch.cat([part.values for part in (dataset.train, dataset.validation, dataset.test)])


def sorted_rows(values: Tensor | NDArray[Any]) -> list[tuple[float, ...]]:
    return sorted(tuple(row) for row in torch.as_tensor(values).flatten(1).tolist())
