"""Nearest neighbours: a classifier with nothing to train, and distances from data."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Votes", "nearest_distance", "vote"]

_QUERIES_AT_ONCE = 500
NUM_CLASSES = 10


@dataclass(frozen=True)
class Votes:
    """Classes of each query's nearest neighbours.

    Attributes:
        shares: Of each class among the k neighbours, ``(Q, classes)``, rows that sum to 1.
        nearest: Distance to the nearest one, ``(Q,)``.
    """

    shares: Tensor
    nearest: Tensor

    @property
    def classes(self) -> Tensor:
        """The class with most votes, the smallest of equals, ``(Q,)``."""
        return self.shares.argmax(-1)

    @property
    def agreement(self) -> Tensor:
        """Share of that class: 1 where all neighbours agree, ``(Q,)``."""
        return self.shares.amax(-1)

    def accuracy(self, labels: Tensor) -> Tensor:
        """Whether the vote hits the label, 0 or 1, ``(Q,)``."""
        return (self.classes == labels).double()


def vote(queries: Tensor, reference: Tensor, labels: Tensor, k: int) -> Votes:
    """Let the k nearest datapoints vote on the class of each query.

    References:
        Nearest neighbor pattern classification (Cover & Hart, 1967),
        https://doi.org/10.1109/TIT.1967.1053964

    Args:
        queries: ``(Q, *shape)``; distances are Euclidean, in units of the data.
        reference: Labelled datapoints, ``(N, *shape)``.
        labels: Their classes, ``(N,)``, int64.
        k: Neighbours that vote.

    Raises:
        ValueError: If there are fewer datapoints than ``k``, or no label for each.

    Example:
        >>> line = torch.tensor([[0.0], [1.0], [9.0]])
        >>> votes = vote(torch.tensor([[0.4]]), line, torch.tensor([3, 3, 7]), k=2)
        >>> votes.classes, votes.agreement
        (tensor([3]), tensor([1.], dtype=torch.float64))
    """
    if not 1 <= k <= len(reference) == len(labels):
        raise ValueError(
            f"k: expected at most as many as there are labelled datapoints; got {k}, "
            f"{len(reference)} datapoints and {len(labels)} labels"
        )
    flat = reference.flatten(1)
    shares, nearest = [], []
    for block in queries.flatten(1).split(_QUERIES_AT_ONCE):
        found = torch.cdist(block, flat).topk(k, dim=1, largest=False)
        chosen = torch.nn.functional.one_hot(labels[found.indices], NUM_CLASSES)
        shares.append(chosen.double().mean(1))
        nearest.append(found.values[:, 0].double())
    return Votes(torch.cat(shares), torch.cat(nearest))


def nearest_distance(queries: Tensor, reference: Tensor) -> Tensor:
    """Euclidean distance to the nearest datapoint, in units of the data.

    Args:
        queries: ``(Q, *shape)``.
        reference: ``(N, *shape)``.

    Returns:
        ``(Q,)``, float64.

    Example:
        >>> nearest_distance(torch.tensor([[0.5]]), torch.tensor([[0.0], [2.0]]))
        tensor([0.5000], dtype=torch.float64)
    """
    blocks = queries.flatten(1).split(_QUERIES_AT_ONCE)
    return torch.cat([torch.cdist(b, reference.flatten(1)).amin(1) for b in blocks]).double()
