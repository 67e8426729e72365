"""Datasets as tensors in memory, their splits, their binarization and the order of training."""

from aevb.data.datasets import Datapoints, Dataset, load
from aevb.data.minibatches import Minibatches
from aevb.data.rows import Table
from aevb.data.sources import DATASETS
from aevb.data.splits import Split

__all__ = ["DATASETS", "Datapoints", "Dataset", "Minibatches", "Split", "Table", "load"]
