"""What a minibatch stands for, where latents of all datapoints share the program with it."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample

from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.arguments import Arguments
from aevb.inference.programs.layouts import sites, value_of
from aevb.inference.programs.protocol import ProgramPair, standing_for
from aevb.inference.svi.site_sums import latent_names

__all__ = ["Minibatch", "StandsFor", "read_minibatch", "refuse_overridden_subsamples"]

Sites = dict[str, Any]


class StandsFor(Messenger):
    r"""Scales the sites of a minibatch up to all datapoints, as a subsampled plate would.

    .. math:: \log p(\theta) + \tfrac{N}{M} \sum_{i=1}^M \log p(x_i, z_i \mid \theta)

    References:
        Stochastic Variational Inference (Hoffman, Blei, Wang & Paisley, 2013), section 2.4,
        https://arxiv.org/abs/1206.7051

    Args:
        plates: Those that grow with a minibatch, and how many entries each datapoint has there.
        num_datapoints: N.
    """

    def __init__(self, plates: Mapping[str, float], num_datapoints: int) -> None:
        super().__init__()
        self.plates, self.num_datapoints = dict(plates), num_datapoints

    def _process_message(self, msg: Any) -> None:
        # outermost of all handlers, so that the plates have been here before
        for frame in msg["cond_indep_stack"]:
            if msg["type"] == "sample" and frame.name in self.plates:
                entries = self.num_datapoints * self.plates[frame.name]
                msg["scale"] = msg["scale"] * (entries / _full(frame))


@dataclass(frozen=True)
class Minibatch:
    """How a program counts the datapoints of a minibatch.

    Attributes:
        scaling: What training has to add; None where nothing is to be.
        total: Datapoints that the bound is then of; None for those of the minibatch.
        told: Datapoints that the program is told a minibatch stands for; None to tell it nothing.
    """

    scaling: StandsFor | None = None
    total: float | None = None
    told: int | None = None

    @contextmanager
    def counted(self, program: ProgramPair) -> Iterator[None]:
        """Run the program inside as training does."""
        with standing_for(program, self.told), self.scaling or nullcontext():
            yield


def read_minibatch(
    program: ProgramPair,
    traces: tuple[poutine.Trace, poutine.Trace],
    num: int,
    other: tuple[Arguments, int],
    num_datapoints: int,
) -> Minibatch:
    """Find out whether minibatches of a program must be scaled, from two of them.

    Raises:
        ValueError: If latents of all datapoints share the program with something that grows with
            the minibatch in no plate, or in plates of another length, or that is scaled in part;
            or if the guide has parameters for the places of a minibatch.
    """
    model, guide = (dict(sites(trace)) for trace in traces)
    others = _others(program, other[0], guide, num)
    plates = _Plates(num, other[1] if others else None)
    for number, found in enumerate((model, guide)):
        for name, site in found.items():
            plates.read(site, others[number].get(name) if others else None)
    latents = [name for name in latent_names(traces[1]) if name in model]
    grown = {name for name in model if _grows(name, model, others and others[0], num)}
    shared = [name for name in latents if name not in grown and not plates.holds(guide[name])]
    if not shared:
        return Minibatch()
    if plates.problem:
        raise _unclear(plates.problem)
    loose = {name for name in grown if not plates.holds(model[name])}
    if others:
        loose |= _dependent(program, other[0], model, shared, plates)
    if loose or not (plates.entries or plates.subsampled):
        raise ValueError(
            f"batch_size: the latents {shared} belong to all datapoints, and how much a minibatch "
            f"stands for is not known, because {sorted(loose) or 'the data'} grow with it outside "
            "of any plate: observe them in pyro.plate(name, len(x)), or leave batch_size out"
        )
    if plates.subsampled and not plates.entries:
        return Minibatch(total=float(max(plates.subsampled.values())))
    return _scaling(model, guide, others, plates, shared, num_datapoints)


def refuse_overridden_subsamples(program: ProgramPair, arguments: Arguments) -> None:
    """Look for plates whose subsample is given, and which the guide's own draw would replace.

    Raises:
        ValueError: Names the plate, and how the guide gets the same subsample.
    """
    with torch.no_grad(), argument_checks(False):
        replayed, _ = _traces(program, arguments)
        nodes: dict[str, Any] = dict(replayed.nodes)
        subsampled = [
            name
            for name, site in nodes.items()
            if site_is_subsample(site) and len(site["value"]) < site["fn"].size
        ]
        if not subsampled:
            return
        try:
            alone = [
                poutine.trace(program.model).get_trace(*arguments.args, **arguments.kwargs)
                for _ in range(2)
            ]
        except NotImplementedError:  # of a prior that cannot be drawn from
            return
    for name in subsampled:
        first, second, used = (value_of(trace, name) for trace in (*alone, replayed))
        size: Any = nodes[name]["fn"].size
        # of a model that is given none, the guide may draw one
        given = len(first) < size and torch.equal(first, second)
        if given and not torch.equal(first, used):
            raise ValueError(
                f"guide: draws a subsample of its own for pyro.plate({name!r}), which would "
                "replace the one that the model is given: let both have the same, of an autoguide "
                f"by create_plates=lambda *args: pyro.plate({name!r}, size, subsample=...)"
            )


class _Plates:
    """Which plates are as long as a minibatch, or subsample one.

    Attributes:
        entries: Of plates that grow with the minibatch, for each datapoint.
        subsampled: Plates of which it is a subsample, with their full size.
        problem: Why there is no one number that a minibatch stands for.
    """

    def __init__(self, num: int, other_num: int | None) -> None:
        self._num, self._other_num = num, other_num
        self.entries: dict[str, float] = {}
        self.subsampled: dict[str, int] = {}
        self.problem: str | None = None

    def read(self, site: Any, of_other: Any) -> None:
        others = {f.name: f for f in of_other["cond_indep_stack"]} if of_other else {}
        growing = 0
        for frame in site["cond_indep_stack"]:
            same = others.get(frame.name, frame)
            if self._other_num is None:
                grows = frame.size == _full(frame) == self._num
            else:
                grows = _full(same) != _full(frame)
            growing += grows
            if grows:
                self.entries[frame.name] = _full(frame) / self._num
                wanted = self._num if self._other_num is None else self._other_num
                if self._other_num and _full(same) / wanted != self.entries[frame.name]:
                    self.problem = f"the plate {frame.name!r} grows otherwise than the minibatch"
            elif same.size != frame.size:
                self.subsampled[frame.name] = _full(frame)
        if growing > 1:
            self.problem = f"the site {site['name']!r} lies in two plates that grow with it"

    def holds(self, site: Any) -> bool:
        """Whether a site lies in one of them."""
        names = {frame.name for frame in site["cond_indep_stack"]}
        return bool(names & (self.entries.keys() | self.subsampled.keys()))


def _scaling(
    model: Sites, guide: Sites, others: tuple[Sites, Sites] | None, plates: _Plates,
    shared: list[str], num_datapoints: int,
) -> Minibatch:  # fmt: skip
    """What is missing, by what the program scales itself."""
    shares = {  # of a site's scale in a minibatch and in the other
        (number, name): (_own_scale(site), _own_scale(others[number][name]) if others else None)
        for number, found in enumerate((model, guide))
        for name, site in found.items()
        if others is None or name in others[number]
    }
    inside = {key: v for key, v in shares.items() if plates.holds((model, guide)[key[0]][key[1]])}
    outside = [shares[key] for key in shares if key[1] in shared]
    if any(second is not None and not _close(first, second) for first, second in outside):
        return Minibatch()  # its shared latents are scaled down to the minibatch
    by_hand = {
        name
        for name, (first, second) in inside.items()
        if (not _close(first, second) if second is not None else not _close(first, 1.0))
    }
    if not by_hand:
        return Minibatch(StandsFor(plates.entries, num_datapoints), float(num_datapoints))
    if by_hand != set(inside):
        raise _unclear(
            f"of its sites only {sorted(name for _, name in by_hand)} are scaled with it"
        )
    largest = max(first for first, _ in inside.values())
    return Minibatch(total=largest * plates._num)


def _unclear(why: str) -> ValueError:
    return ValueError(
        "batch_size: latents belong to all datapoints, and how much a minibatch stands for is not "
        f"known, because {why}: scale nothing and use one plate pyro.plate(name, len(x)), or "
        "leave batch_size out"
    )


def _others(
    program: ProgramPair, arguments: Arguments, guide: Sites, num: int
) -> tuple[Sites, Sites] | None:
    """The same at another number of datapoints; None of programs that are made for one."""
    with torch.no_grad(), argument_checks(False):
        try:
            traces = _traces(program, arguments)
            return dict(sites(traces[0])), dict(sites(traces[1]))
        except Exception as error:
            try:
                alone = poutine.trace(program.model).get_trace(*arguments.args, **arguments.kwargs)
                alone.compute_log_prob()
            except Exception:  # of whatever kind
                return None
            local = [
                name
                for name, site in guide.items()
                if any(frame.size == num for frame in site["cond_indep_stack"])
            ]
            if not local:
                return None
            raise ValueError(
                f"guide: takes minibatches of {num} datapoints only, as one with parameters for "
                f"each place in {local} does, which other datapoints take at the next step: let "
                "it compute them from the data, or subsample the plate"
            ) from error


def _dependent(
    program: ProgramPair, other: Arguments, model: Sites, shared: list[str], plates: _Plates
) -> set[str]:
    """Observed sites and factors outside of plates that other data change."""
    values = {name: model[name]["value"] for name in shared}
    with torch.no_grad(), argument_checks(False):
        conditioned = poutine.condition(program.model, data=values)
        try:
            trace = poutine.trace(conditioned).get_trace(*other.args, **other.kwargs)
        except NotImplementedError:  # of a prior that cannot be drawn from
            return set()
        again = dict(sites(trace))
    found = set()
    for name, site in model.items():
        if not site["is_observed"] or plates.holds(site) or name not in again:
            continue
        first, second = (s["fn"].log_prob(s["value"]).sum() for s in (site, again[name]))
        if not torch.allclose(first, second, rtol=1e-5, atol=1e-6, equal_nan=True):
            found.add(name)
    return found


def _traces(program: ProgramPair, arguments: Arguments) -> tuple[poutine.Trace, poutine.Trace]:
    args, kwargs = arguments
    guide = poutine.trace(program.guide).get_trace(*args, **kwargs)
    model = poutine.trace(poutine.replay(program.model, trace=guide)).get_trace(*args, **kwargs)
    model.compute_log_prob()  # where shapes that do not fit show
    return model, guide


def _grows(name: str, found: Sites, others: Sites | None, num: int) -> bool:
    """Whether a site has another shape for another number of datapoints."""
    shape = found[name]["value"].shape
    if others is None:
        return num in shape
    return name not in others or others[name]["value"].shape != shape


def _full(frame: Any) -> int:
    return int(frame.full_size or frame.size)


def _own_scale(site: Any) -> float:
    """A site's scale without that of subsampled plates."""
    sizes = [_full(frame) / frame.size for frame in site["cond_indep_stack"]]
    return float(site["scale"]) / math.prod(sizes)


def _close(first: float, second: float) -> bool:
    return math.isclose(first, second, rel_tol=1e-6)
