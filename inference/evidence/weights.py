"""Log-weights of many draws at many datapoints, in blocks whose draws depend on nothing else."""

from collections.abc import Callable, Iterator
from contextlib import suppress

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from aevb.data.seeds import stream_seed
from aevb.inference.graphs.agreement import check_function
from aevb.inference.graphs.compile import graph_function
from aevb.inference.graphs.tracing import NotTraceableError
from aevb.inference.programs.joint import Joint, together

__all__ = ["LogJoint", "datapoint_blocks", "log_weights"]

# Draws are made in blocks of a fixed size, each from a seed of its own, so that the memory budget
# changes how the model is evaluated and never which draws it is evaluated at.
_SAMPLES_PER_BLOCK = 100
_DATAPOINTS_PER_BLOCK = 250
# A graph sends large products to a faster library and skips Pyro; tracing costs a second. Once
# compiled it also fuses what surrounds the products; that takes ten seconds, or one if cached.
_WORTH_A_GRAPH = {"compiled": 2e12, "traced": 2e10}  # floating-point operations
# Of programs that take all data or nothing.
_REFUSALS = (ValueError, RuntimeError, IndexError)
_WEIGHTS_PER_BLOCK = 2_000_000  # float64 log-weights held at once for k̂: 16 MB


def datapoint_blocks(
    joint: Joint, num_samples: int, chosen: Tensor | None = None
) -> Iterator[tuple[Tensor, Joint]]:
    """The programs at blocks of datapoints, cut along the data plate, if that changes nothing.

    Args:
        joint: A pair of programs at all data.
        num_samples: Draws whose weights are held at once for each datapoint.
        chosen: Numbers of the datapoints wanted; None for all.

    Returns:
        Which datapoints each block has, and the programs at them. Where the data cannot be cut it
        is one block, with all of them.
    """
    total = joint.layout.num_datapoints
    wanted = torch.arange(total or 1) if chosen is None else chosen
    size = max(1, min(_DATAPOINTS_PER_BLOCK, _WEIGHTS_PER_BLOCK // num_samples))
    if total is None or (len(wanted) == total and total <= size):
        yield torch.arange(total or 1), joint
        return
    places = list(wanted.split(size))

    def at(place: Tensor) -> Joint:
        place = place.to(joint.device)
        args = (
            a[place] if isinstance(a, Tensor) and a.ndim and len(a) == total else a
            for a in joint.args
        )
        return joint.at(*args, num_datapoints=len(place))

    with suppress(*_REFUSALS):
        joint.adopt(at(places[0]))
    if _same_when_cut(joint, places, at):
        for place in places:
            yield place, at(place)
    else:
        yield torch.arange(total), joint


def _same_when_cut(joint: Joint, places: list[Tensor], at: Callable[[Tensor], Joint]) -> bool:
    """Whether every block alone has the log-weights that it has among all.

    It has not if a program holds a value for each datapoint, the size of the data, or something
    that it makes of them all, such as a mean or a maximum.
    """
    guide = joint.given_guide()
    latents, log_q = joint.draw(1)
    log_p = joint.log_joint(latents)
    for place in places:
        place = place.to(joint.device)
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


def log_weights(
    joint: Joint,
    draw: Callable[[int], tuple[dict[str, Tensor], Tensor]],
    num_samples: int,
    seed: int,
    block: int,
    evaluate: "LogJoint",
) -> Tensor:
    """Log-weights of one block of datapoints, ``(S, B)``, float64, in nats.

    Args:
        joint: The programs at the block.
        draw: Gives draws by site and their log q.
        num_samples: S.
        seed: Of all blocks.
        block: Its number, which its draws depend on.
        evaluate: Of all blocks.

    Raises:
        ValueError: If there is nothing to draw.
    """
    # filled in place: small results kept between large temporaries would cut the heap to pieces,
    # and the peak would grow with S
    weights = torch.empty(
        num_samples, joint.layout.num_datapoints or 1, dtype=torch.float64, device=joint.device
    )
    for start in range(0, num_samples, _SAMPLES_PER_BLOCK):
        count = min(_SAMPLES_PER_BLOCK, num_samples - start)
        torch.manual_seed(stream_seed(seed, f"importance/{block}/{start}"))
        latents, log_q = draw(count)
        if not latents:
            raise ValueError("model: has no latent sites, so there is nothing to integrate over")
        if start == 0:
            evaluate.begin(joint, latents)
        for first in range(0, count, evaluate.at_once):
            chunk = slice(first, first + evaluate.at_once)
            log_p = evaluate({name: z[chunk] for name, z in latents.items()})
            torch.sub(log_p, log_q[chunk], out=weights[start + first : start + first + len(log_p)])
    return weights


class LogJoint:
    """log p(x, z), block of datapoints by block, as a graph where that repays making one.

    Attributes:
        at_once: Draws whose evaluation stays within the memory budget.
    """

    def __init__(self, num_draws: int, budget: int) -> None:
        self._budget = budget
        self._num_draws = num_draws  # over all blocks
        self._graph: Callable[..., Tensor] | None = None
        self._shapes: list[torch.Size] = []  # of the graph's inputs
        self._unchecked = False

    def begin(self, joint: Joint, latents: dict[str, Tensor]) -> None:
        """Go on to a block of datapoints, and draws of a whole block of draws."""
        self._joint = joint
        self._leaves, self._form = tree_flatten(joint.args)
        self._names = list(latents)
        fitting = joint.num_fitting(latents, self._budget)
        count = len(next(iter(latents.values())))
        # all of one size, since other sizes have no graph
        self.at_once = max(n for n in range(1, count + 1) if count % n == 0 and n <= fitting)
        # decided by what there is to do and not by the clock, so that results repeat
        flops = joint.cost(latents).num_flops * self._num_draws
        self._level = next((name for name, least in _WORTH_A_GRAPH.items() if flops > least), "")
        self._unchecked = True

    def __call__(self, latents: dict[str, Tensor]) -> Tensor:
        """``(S, B)``, float64, in nats."""
        inputs = [latents[name] for name in self._names]
        inputs += [leaf for leaf in self._leaves if isinstance(leaf, Tensor)]
        result = self._function_for(inputs)(*inputs)
        if bool(torch.isnan(result).any()):
            self._joint.refuse_nan(latents)
        return result

    def _function_for(self, inputs: list[Tensor]) -> Callable[..., Tensor]:
        # the shape is part of a graph
        if not self._level or len(inputs[0]) != self.at_once:
            return self._eager
        shapes = [value.shape for value in inputs]
        try:
            if self._graph is None or shapes != self._shapes:
                self._graph = graph_function(self._eager, *inputs, level=self._level)
                self._shapes = shapes
            elif self._unchecked:  # a program may look at the data, which are others now
                check_function(self._eager, self._graph, inputs)
        except NotTraceableError:
            self._level, self._graph = "", None
            return self._eager
        self._unchecked = False
        return self._graph

    def _eager(self, *inputs: Tensor) -> Tensor:
        values = iter(inputs)
        latents = {name: next(values) for name in self._names}
        leaves = [next(values) if isinstance(a, Tensor) else a for a in self._leaves]
        size = self._joint.layout.num_datapoints
        args = tree_unflatten(leaves, self._form)
        return self._joint.at(*args, num_datapoints=size).log_joint(latents)
