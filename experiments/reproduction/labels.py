"""Class labels, which the datasets themselves leave out, in the order of a dataset's splits."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aevb.data.locations import data_root
from aevb.data.partitions import by_permutation, by_position
from aevb.data.sources import SIZES

__all__ = ["labels"]


def labels(name: str, root: Path | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Of the training, validation and test split, row by row as the splits hold their images.

    Args:
        name: ``"mnist"`` or ``"digits"``.
        root: Folder of the datasets, as :func:`aevb.data.load` takes it.

    Returns:
        Classes 0 to 9, ``(N,)`` each, int64.

    Raises:
        ValueError: If no labels are known for a dataset.

    Example:
        >>> [len(part) for part in labels("digits")]
        [1297, 250, 250]
    """
    if name == "digits":
        from sklearn.datasets import load_digits

        parts: Any = by_permutation(load_digits().target, SIZES[name], name)
    elif name == "mnist":
        from torchvision.datasets import MNIST

        training, test = (
            MNIST(data_root(root), train=train, download=False).targets.numpy()
            for train in (True, False)
        )
        parts = by_position(training, test, SIZES[name], name)
    else:
        raise ValueError(f"name: labels are known for mnist and digits; got {name!r}")
    train, validation, test = (torch.as_tensor(part).long() for part in parts[:3])
    return train, validation, test
