"""A program pair at its data: its draws, and its log-densities at many of them at once."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from aevb.inference.process import randomness
from aevb.inference.process.devices import device_of, moved
from aevb.inference.process.switches import SingularAsNaN, argument_checks
from aevb.inference.programs.assignments import refuse_other_factors
from aevb.inference.programs.cost import Cost, cost_of
from aevb.inference.programs.enumeration import enumerated, packed_trace, summed_out
from aevb.inference.programs.layouts import (
    Layout,
    float64_log_prob,
    in_plate,
    latents_of,
    natural,
    read_layout,
    read_model_layout,
    refuse_nan,
    sites,
    sum_log_prob,
)
from aevb.inference.programs.ways import find_guide_way, find_way

__all__ = ["Joint", "together"]

Latents = dict[str, Tensor]
Program = Callable[..., Any]
_Choose = Callable[[poutine.Trace], list[list[tuple[str, Any]]]]


class Joint:
    """A model, perhaps with a guide, at its data.

    Many draws of the latents are evaluated at once: under an outer plate where the program
    broadcasts, as Pyro's vectorized particles need it; through :func:`torch.func.vmap` where it
    does not, as with ``b[group]`` or ``x @ b``; and one after the other where an operation has no
    such rule, as one that fills a tensor in place. Which way is found by comparing them with the
    program run at single draws. A program in which Python decides by the value of a latent is
    refused.

    Latents are ``(S, *plates, *event)``, a plate that a site does not lie in being 1.

    Args:
        model: Pyro program of the joint distribution.
        args: Its arguments; they are moved to where the programs' parameters are.
        guide: Pyro program of the posterior with the same arguments; may be left out.
        layout: Of the pair, if it is known.

    Attributes:
        layout: How the sites lie in plates.
        device: Of parameters and data.

    Raises:
        ValueError: If a site is scaled or subsampled, is latent in one program only, is a point
            mass, or observes data outside its support.

    Example:
        >>> import pyro
        >>> from pyro.distributions import Normal
        >>> def model(y):  # a sum, which an outer plate would take over the draws as well
        ...     w = pyro.sample("w", Normal(torch.zeros(2), 1.0).to_event(1))
        ...     pyro.sample("y", Normal(w.sum(), 0.5), obs=y)
        >>> joint = Joint(model, torch.tensor(4.0))
        >>> joint.way, joint.log_joint({"w": torch.zeros(7, 2)}).shape
        ('vmap', torch.Size([7, 1]))
    """

    def __init__(
        self,
        model: Program,
        *args: Any,
        guide: Program | None = None,
        layout: Layout | None = None,
    ) -> None:
        self.model, self.guide = model, guide
        self.device = device_of(model, guide, args=args)
        self.args = moved(args, self.device)
        if layout is None:
            with randomness.stream(0, "layout", self.device), argument_checks(False):
                layout = (
                    read_model_layout(model, *self.args)[0]
                    if guide is None
                    else read_layout(model, guide, *self.args)
                )
        self.layout = layout
        self._way: str | None = None
        self._guide_way: str | None = None
        self._ranks: dict[str, int] = {}  # dimensions of the model's latents in a run of its own

    def adopt(self, other: "Joint") -> None:
        """Evaluate draws as was found out for the same programs at less data."""
        self._way, self._ranks, self._guide_way = other.way, other._ranks, other.guide_way

    def at(self, *args: Any, num_datapoints: int | None = None) -> "Joint":
        """The same programs at other data, with the size of its data plate, where there is one."""
        other = copy.copy(self)
        other.args = moved(args, self.device)
        other.layout = replace(self.layout, num_datapoints=num_datapoints)
        return other

    @property
    def way(self) -> str:
        """How several draws are evaluated: ``"plate"``, ``"vmap"`` or ``"loop"``.

        Raises:
            ValueError: If the program can be evaluated in no way, has another density at each
                call, or other factors with all values of a discrete latent at once.
        """
        if self._way is None:
            with randomness.stream(0, "ways", self.device):
                self._way, self._ranks = find_way(self)
        return self._way

    @property
    def guide_way(self) -> str:
        """How several draws of the guide are made: ``"plate"``, or one by one, ``"loop"``."""
        if self._guide_way is None:
            with randomness.stream(0, "ways", self.device):
                self._guide_way = find_guide_way(self)
        return self._guide_way

    def log_joint(self, latents: Latents) -> Tensor:
        """Log p(x, z), ``(S, B)``, or ``(S, 1)`` for a joint posterior, float64, in nats."""
        (total,) = self.sums(self.model, self.way, latents, together)
        return total

    def log_parts(self, latents: Latents) -> tuple[Tensor, Tensor]:
        """Log p(z) and log p(x|z), each as :meth:`log_joint`."""

        def parts(trace: poutine.Trace) -> list[list[tuple[str, Any]]]:
            both = sites(trace)
            dependent = sorted(set(latents) - set(dict(both)))
            if dependent:
                raise ValueError(
                    f"model: the latents {dependent} depend on discrete ones that are summed out, "
                    "so that nothing says what of the sum is their prior: anneal from a guide"
                )
            return [
                [(name, site) for name, site in both if (name in latents) is latent]
                for latent in (True, False)
            ]

        prior, likelihood = self.sums(self.model, self.way, latents, parts)
        return prior, likelihood

    def log_guide(self, latents: Latents) -> Tensor:
        """Log q(z|x) of given latents, as :meth:`log_joint`.

        Raises:
            KeyError: Or NotImplementedError, if the guide can score only its own draws.
            ValueError: If it has sites that the latents lack.
        """
        guide, foreign = self.given_guide(), set()

        def known(trace: poutine.Trace) -> list[list[tuple[str, Any]]]:
            foreign.update({name for name, _ in sites(trace)} - set(latents))
            return together(trace)

        (total,) = self.sums(guide, self.guide_way, latents, known)
        if foreign:
            raise ValueError(
                f"guide: its density needs the sites {sorted(foreign)} that the model lacks; "
                "start from the prior (guide=None)"
            )
        return total

    def draw(self, num: int) -> tuple[Latents, Tensor]:
        """Draws of the guide by site, from the global generator; log q as :meth:`log_joint`."""
        guide = self.given_guide()
        if self.guide_way == "plate":
            return self.drawn_in_plate(guide, num)
        return self._drawn_singly(guide, num)

    def prior_draws(self, num: int) -> Latents:
        """Draws of the model's own latents, S of them, from the global generator."""
        if self.way != "plate":
            return self._drawn_singly(self.model, num)[0]
        with torch.no_grad(), argument_checks(False), SingularAsNaN():
            inside = in_plate(self.model, self.layout, num)
            return latents_of(poutine.trace(inside).get_trace(*self.args), self.layout, num)

    def run(self, program: Program, latents: Latents) -> poutine.Trace:
        """The trace of a program at given latents, under the plate of draws.

        Args:
            program: The model, or what a handler made of it.
            latents: Parts of :meth:`chunks`; one draw where the way is not ``"plate"``.
        """
        if self.way == "plate":
            conditioned = poutine.condition(program, data=latents)
            inside = in_plate(conditioned, self.layout, _count(latents))
        else:
            alone = {name: value[0] for name, value in self._natural(latents).items()}
            inside = poutine.condition(program, data=alone)
        with argument_checks(False), SingularAsNaN():
            return poutine.trace(inside).get_trace(*self.args)

    def refuse_nan(self, latents: Latents) -> None:
        """Refuse the first site of the model whose log-probability is NaN, by name."""
        for part in _parts(latents, _count(latents) if self.way == "plate" else 1):
            refuse_nan(self.run(self.model, part))

    def cost(self, latents: Latents, program: Program | None = None) -> Cost:
        """What the first draw costs: :meth:`run` of a program, else :meth:`log_joint`."""
        first = {name: value[:1] for name, value in latents.items()}
        _ = self.way  # found now, and not while counting
        if program is None:
            return cost_of(lambda: self.log_joint(first))
        return cost_of(lambda: self.run(program, first))

    def num_fitting(self, latents: Latents, num_bytes: int, program: Program | None = None) -> int:
        """Draws that :meth:`chunks` evaluates at once."""
        if program is not None and self.way != "plate":
            return 1
        return max(1, num_bytes // self.cost(latents, program).num_bytes)

    def chunks(
        self, latents: Latents, num_bytes: int, program: Program | None = None
    ) -> Iterator[Latents]:
        """The draws in parts whose :meth:`cost` stays within a memory budget."""
        return _parts(latents, self.num_fitting(latents, num_bytes, program))

    def sums(self, program: Program, way: str, latents: Latents, choose: _Choose) -> list[Tensor]:
        """Sums of log-probabilities over the groups of sites that are chosen, ``(S, B)`` each."""
        num = _count(latents)
        with argument_checks(False), SingularAsNaN():
            if way == "plate":
                trace = self._scored(program, latents, lambda p: in_plate(p, self.layout, num))
                return [sum_log_prob(chosen, self.layout, num) for chosen in choose(trace)]

            def one(values: Latents) -> tuple[Tensor, ...]:
                return tuple(self.alone(program, values, choose))

            natural = self._natural(latents)
            if way == "vmap":
                return list(torch.func.vmap(one)(natural))
            rows = [one({name: value[i] for name, value in natural.items()}) for i in range(num)]
            return [torch.stack(column) for column in zip(*rows, strict=True)]

    def alone(self, program: Program, values: Latents, choose: _Choose) -> list[Tensor]:
        """The same of one draw, as the program itself has it, ``(B,)`` each."""
        trace = self._scored(program, values, lambda p: p)
        return [sum_log_prob(chosen, self.layout, None) for chosen in choose(trace)]

    def _scored(
        self, program: Program, values: Latents, wrapped: Callable[[Program], Program]
    ) -> poutine.Trace:
        """The trace of a program at values of its latents, with the discrete ones summed out."""
        if not self.layout.summed_out or program is not self.model:
            inside = wrapped(poutine.condition(program, data=values))
            return poutine.trace(inside).get_trace(*self.args)
        return summed_out(self._at_once(values, wrapped), _log_prob)

    def _at_once(
        self, values: Latents, wrapped: Callable[[Program], Program] = lambda p: p
    ) -> poutine.Trace:
        """The trace of the model at values of its latents, with all those of the discrete ones."""
        whole = enumerated(self.model, values, self.layout.nesting)
        inside = wrapped(poutine.condition(whole, data=values))
        return poutine.trace(inside).get_trace(*self.args)

    def refuse_other_factors(self, values: Latents) -> None:
        """Refuse a model that is another with the values of discrete latents at once.

        Args:
            values: One draw of the others, as in a run of its own.
        """
        if not self.layout.summed_out:
            return

        def run(discrete: Latents) -> list[poutine.Trace]:
            inside = poutine.condition(self.model, data={**values, **discrete})
            return [poutine.trace(inside).get_trace(*self.args)]

        refuse_other_factors(
            lambda: [packed_trace(self._at_once(values), _log_prob)],
            run, self.layout.summed_out, self.device,
        )  # fmt: skip

    def _natural(self, latents: Latents) -> Latents:
        """The model's latents without the places of plates that a run of its own lacks."""
        if not self._ranks:
            _ = self.way
        return natural(latents, self._ranks)

    def given_guide(self) -> Program:
        """The guide, which must be there."""
        if self.guide is None:
            raise ValueError("guide: none was given")
        return self.guide

    def drawn_in_plate(self, guide: Program, num: int) -> tuple[Latents, Tensor]:
        """Draws of a guide under the outer plate, and their log q, whatever they are worth."""
        with torch.no_grad(), argument_checks(False):
            trace = poutine.trace(in_plate(guide, self.layout, num)).get_trace(*self.args)
        refuse_nan(trace)
        return latents_of(trace, self.layout, num), sum_log_prob(sites(trace), self.layout, num)

    def _drawn_singly(self, program: Program, num: int) -> tuple[Latents, Tensor]:
        """The same, one run after the other."""
        drawn, sums = [], []
        with torch.no_grad(), argument_checks(False), SingularAsNaN():
            for _ in range(num):
                trace = poutine.trace(program).get_trace(*self.args)
                refuse_nan(trace)
                drawn.append(latents_of(trace, self.layout, 1))
                sums.append(sum_log_prob(sites(trace), self.layout, 1))
        return {name: torch.cat([part[name] for part in drawn]) for name in drawn[0]}, torch.cat(
            sums
        )


def together(trace: poutine.Trace) -> list[list[tuple[str, Any]]]:
    """All sites as one group of :meth:`Joint.sums`."""
    return [sites(trace)]


def _log_prob(site: Any) -> Tensor:
    return float64_log_prob(site["fn"], site["value"])


def _count(latents: Latents) -> int:
    return len(next(iter(latents.values())))


def _parts(latents: Latents, at_once: int) -> Iterator[Latents]:
    for start in range(0, _count(latents), at_once):
        yield {name: value[start : start + at_once] for name, value in latents.items()}
