"""What a minibatch stands for, where latents of all datapoints share the program with it."""

from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from aevb.inference.feeds import Arguments
from aevb.inference.layouts import value_of
from aevb.inference.program import ProgramPair
from aevb.inference.site_sums import latent_names, sample_sites
from aevb.inference.switches import argument_checks

__all__ = ["StandsFor", "read_minibatch", "refuse_overridden_subsamples"]


class StandsFor(Messenger):
    r"""Scales the sites of a minibatch up to all datapoints, as a subsampled plate would.

    .. math:: \log p(\theta) + \tfrac{N}{M} \sum_{i=1}^M \log p(x_i, z_i \mid \theta)

    References:
        Stochastic Variational Inference (Hoffman, Blei, Wang & Paisley, 2013), section 2.4,
        https://arxiv.org/abs/1206.7051

    Args:
        plates: Names of the plates that are as long as a minibatch.
        num_datapoints: N.
    """

    def __init__(self, plates: frozenset[str], num_datapoints: int) -> None:
        super().__init__()
        self.plates, self.num_datapoints = plates, num_datapoints

    def _process_message(self, msg: Any) -> None:
        # outermost of all handlers, so that the plates have been here before
        for frame in msg["cond_indep_stack"]:
            if msg["type"] == "sample" and frame.name in self.plates:
                msg["scale"] = msg["scale"] * (self.num_datapoints / frame.size)
                return


def read_minibatch(
    program: ProgramPair,
    traces: tuple[poutine.Trace, poutine.Trace],
    num: int,
    other: Arguments,
    num_datapoints: int,
) -> StandsFor | None:
    """Find out whether minibatches of a program must be scaled, from two of them.

    Args:
        program: Model and guide.
        traces: Of model and guide at a minibatch.
        num: Its datapoints.
        other: Arguments for another number of datapoints.
        num_datapoints: N, of all the data.

    Returns:
        None if each datapoint stands for itself, because no latent belongs to all of them, or
        because the program scales its sites already.

    Raises:
        ValueError: If there is such a latent, and what grows with the minibatch lies in no plate.
    """
    model, guide = traces
    latents = [name for name in latent_names(guide) if name in model.nodes]
    lengths = [{f.size for f in guide.nodes[name]["cond_indep_stack"]} for name in latents]
    if all(num in sizes for sizes in lengths):
        return None
    try:
        with torch.no_grad(), argument_checks(False):
            others_of = [sample_sites(trace) for trace in _traces(program, other)]
    except Exception:  # the program is made for one size, by which its plates are known
        others_of = None
    growing, loose = set[str](), set[str]()
    for number, trace in enumerate(traces):
        found = sample_sites(trace)
        others = None if others_of is None else others_of[number]
        grown = {name for name in found if _grows(name, found, others, num)}
        for name, site in found.items():
            growing |= _growing_plates(site, others and others.get(name), num)
        loose |= {name for name in grown if not _plates(found[name]) & growing}
    shared = [
        name for name in latents if name not in loose and not _plates(guide.nodes[name]) & growing
    ]
    both = [*sample_sites(model).values(), *sample_sites(guide).values()]
    if not shared or any(map(_is_scaled, both)):
        return None
    loose = {name for name in loose if name in model.nodes}
    if loose or not growing:
        raise ValueError(
            f"batch_size: the latents {shared} belong to all datapoints, and how much a minibatch "
            f"stands for is not known, because {sorted(loose) or 'the data'} grow with it outside "
            "of any plate: observe them in pyro.plate(name, len(x)), or leave batch_size out"
        )
    return StandsFor(frozenset(growing), num_datapoints)


def refuse_overridden_subsamples(program: ProgramPair, arguments: Arguments) -> None:
    """Look for plates whose subsample is given, and which the guide's own draw would replace.

    Args:
        program: Model and guide.
        arguments: Of both.

    Raises:
        ValueError: Names the plate, and how the guide gets the same subsample.
    """
    with torch.no_grad(), argument_checks(False):
        replayed, _ = _traces(program, arguments)
        subsampled = [name for name, site in replayed.nodes.items() if _is_subsampled(site)]
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
        if torch.equal(first, second) and not torch.equal(first, used):
            raise ValueError(
                f"guide: draws a subsample of its own for pyro.plate({name!r}), which would "
                "replace the one that the model is given: let both have the same, of an autoguide "
                f"by create_plates=lambda *args: pyro.plate({name!r}, size, subsample=...)"
            )


def _traces(program: ProgramPair, arguments: Arguments) -> tuple[poutine.Trace, poutine.Trace]:
    args, kwargs = arguments
    guide = poutine.trace(program.guide).get_trace(*args, **kwargs)
    model = poutine.trace(poutine.replay(program.model, trace=guide)).get_trace(*args, **kwargs)
    model.compute_log_prob()  # where shapes that do not fit show
    return model, guide


def _growing_plates(site: Any, of_other: Any, num: int) -> set[str]:
    """Plates of a site that are as long as the minibatch."""
    sizes = {frame.name: frame.size for frame in of_other["cond_indep_stack"]} if of_other else {}
    return {
        frame.name
        for frame in site["cond_indep_stack"]
        if (sizes.get(frame.name, frame.size) != frame.size if of_other else frame.size == num)
    }


def _grows(name: str, found: Any, others: Any, num: int) -> bool:
    """Whether a site has another shape for another number of datapoints."""
    shape = found[name]["value"].shape
    if others is None:
        return num in shape
    return name not in others or others[name]["value"].shape != shape


def _plates(site: Any) -> set[str]:
    return {frame.name for frame in site["cond_indep_stack"]}


def _is_scaled(site: Any) -> bool:
    return isinstance(site["scale"], Tensor) or site["scale"] != 1


def _is_subsampled(site: Any) -> bool:
    if site["type"] != "sample" or type(site["fn"]).__name__ != "_Subsample":
        return False
    return len(site["value"]) < site["fn"].size
