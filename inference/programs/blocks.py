"""A program pair at parts of its data, where that changes nothing."""

from collections.abc import Callable, Iterator
from contextlib import suppress

import torch
from torch import Tensor

from aevb.inference.programs.joint import Joint, together

__all__ = ["datapoint_blocks"]

# Of programs that take all data or nothing.
_REFUSALS = (ValueError, RuntimeError, IndexError)


def datapoint_blocks(joint: Joint, size: int) -> Iterator[Joint]:
    """The programs at blocks of datapoints, cut along the data plate, or at all where they differ.

    Args:
        joint: At all data; tensors as long as the data plate are cut with it.
        size: Datapoints of a block.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> fa = FactorAnalysis((5,), 2)
        >>> joint = Joint(fa.model, torch.zeros(7, 5), guide=fa.guide)
        >>> [part.layout.num_datapoints for part in datapoint_blocks(joint, 3)]
        [3, 3, 1]
    """
    total = joint.layout.num_datapoints
    if total is None or total <= size:
        yield joint
        return
    places = [slice(start, min(start + size, total)) for start in range(0, total, size)]

    def at(place: slice) -> Joint:
        args = (
            a[place] if isinstance(a, Tensor) and a.ndim and len(a) == total else a
            for a in joint.args
        )
        return joint.at(*args, num_datapoints=place.stop - place.start)

    with suppress(*_REFUSALS):
        joint.adopt(at(places[0]))
    if _same_when_cut(joint, places, at):
        yield from map(at, places)
    else:
        yield joint


def _same_when_cut(joint: Joint, places: list[slice], at: Callable[[slice], Joint]) -> bool:
    """Whether every block alone has the log-weights that it has among all.

    It has not if a program holds a value for each datapoint, the size of the data, or something
    that it makes of them all, such as a mean or a maximum.
    """
    guide = joint.given_guide()
    latents, log_q = joint.draw(1)
    log_p = joint.log_joint(latents)
    for place in places:
        where = (slice(None),) * joint.layout.nesting + (place,)  # behind draws, outer plates
        some = {name: value[where] for name, value in latents.items()}
        try:
            alone = at(place)
            (q,) = alone.sums(guide, joint.guide_way, some, together)
            pairs = ((q, log_q), (alone.log_joint(some), log_p))
        except _REFUSALS:
            return False
        if not all(torch.allclose(a, b[:, place], rtol=1e-4, atol=1e-4) for a, b in pairs):
            return False
    return True
