"""Whether a program with all values of its discrete latents at once is the program at each.

An enumerated latent has its values on the left of all plates, where it is of size 1 along its own:
``(2, 1)`` in place of ``(4,)``. A program that works element by element broadcasts; one that takes
a sum, a product, a maximum or an index over such a plate computes something else, in silence. So
its factors are compared with those of plain runs in which each element has a value of its own.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from aevb.inference.process import randomness
from aevb.inference.process.switches import SingularAsNaN, argument_checks
from aevb.inference.programs.guide_checks import sites
from aevb.inference.programs.layouts import float64_log_prob
from aevb.inference.programs.named_dims import Named, agree, named, taken_at

__all__ = ["refuse_other_factors"]

Values = dict[str, Tensor]
Run = Callable[[Values], Sequence[poutine.Trace]]

# Assignments drawn at random, beside the two of equal values that products and maxima hide behind.
_DRAWN = 3
# Pyro's plate of draws, which no program has written.
_PARTICLES = "num_particles_vectorized"
# Of guides that can score only what they have just drawn, as a flow without an inverse.
_CANNOT_SCORE = (KeyError, NotImplementedError)


@dataclass(frozen=True)
class _Choice:
    """A discrete latent with all its values at once, or of which a run has one after the other.

    Attributes:
        symbol: Name of the dimension of its values.
        support: Its values, with that dimension.
        plates: Sizes of its plates by symbol, where they hold more than one element.
        frames: The same as the program has them, by name.
        of_guide: Whether the guide has all its values, and not the model.
        only: Place of the one value that the run has, of a sequential site; else None.
    """

    symbol: str
    support: Named
    plates: dict[str, int]
    only: int | None
    of_guide: bool
    frames: dict[str, int]

    @property
    def size(self) -> int:
        return self.support.values.shape[self.support.dims.index(self.symbol)]

    def drawn(self, number: int, device: torch.device) -> Named:
        """Which value each element of the plates has: the first, the last, or any."""
        shape, dims = list(self.plates.values()), tuple(self.plates)
        if self.only is not None and (number < 2 or not shape):
            return Named(torch.full(shape, self.only, device=device), dims)
        if number < 2:
            return Named(torch.full(shape, number * (self.size - 1), device=device), dims)
        places = torch.randint(self.size, shape).to(device)
        if self.only is not None:  # half of them are what the run has
            places = torch.where((torch.rand(shape) < 0.5).to(device), self.only, places)
        return Named(places, dims)

    def others(self, places: Named) -> Named:
        """Another value for each element."""
        return Named((places.values + 1) % self.size, places.dims)


def refuse_other_factors(
    at_once: Callable[[], Sequence[poutine.Trace]],
    run: Run,
    summed: Collection[str],
    device: torch.device,
) -> None:
    """Refuse a program whose factors are others with all values of a discrete latent at once.

    Args:
        at_once: Traces of the model, and of a guide if there is one, with tensors packed.
        run: The same without enumeration, at values of their latents; what is not given is drawn.
        summed: Discrete latents that have all values at once.
        device: Of the data.

    Raises:
        ValueError: Names the site, the latent and its plate, with the remedy; also in place of an
            error of torch or Pyro that a plain run does not raise.
    """
    with (
        torch.no_grad(), argument_checks(False), SingularAsNaN(),
        randomness.stream(0, "assignments", device),
    ):  # fmt: skip
        natural = run({})
        try:
            traces = at_once()
        except Exception as error:
            if not all(map(_is_declared, natural)):
                raise
            reason = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
            raise ValueError(
                f"model: fails where its discrete latents {sorted(summed)} have all their values "
                f"at once ({reason}), though it runs at single ones: to be summed out they lie on "
                "the left of all plates, with size 1 along their own. Write what depends on them "
                + _remedy("them", True, False)
            ) from error
        runs = _Runs(traces, run, _choices(traces), _ranks(natural))
        for number in range(2 + _DRAWN if runs.choices else 0):
            runs.compare({n: choice.drawn(number, device) for n, choice in runs.choices.items()})


def _is_declared(trace: poutine.Trace) -> bool:
    """Whether all dimensions of a run are of plates or events."""
    for _, site in _scored_sites(trace):
        shape = site["fn"].batch_shape
        plates = {frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
        if any(size > 1 and i - len(shape) not in plates for i, size in enumerate(shape)):
            return False
    return True


@dataclass(frozen=True)
class _Runs:
    """A program with all values at once, and at single ones.

    Attributes:
        traces: Of the model, and of a guide, with all values at once.
        run: The same at values of their latents.
        choices: Discrete latents that have all values at once.
        ranks: Dimensions on the left of each site's event in a plain run.
    """

    traces: Sequence[poutine.Trace]
    run: Run
    choices: dict[str, _Choice]
    ranks: dict[str, int]

    def compare(self, places: dict[str, Named]) -> None:
        """Compare all factors at one assignment."""
        plain = self.run(self._values(places))
        for number, trace in enumerate(self.traces):
            for name, site in _scored_sites(trace):
                if name not in plain[number].nodes:
                    continue
                try:
                    found = taken_at(_factor(site, site), self._by_symbol(places))
                    truth = _factor(plain[number].nodes[name], site)
                except _CANNOT_SCORE:
                    continue
                if not agree(found, truth, self._shown(places, site)):
                    self._refuse(name, number, places, truth)

    def _refuse(self, name: str, number: int, places: dict[str, Named], truth: Named) -> None:
        """Say which latents the factor of a site depends on, by changing one at a time."""

        def is_same(places: dict[str, Named]) -> bool:
            nodes: Any = self.run(self._values(places))[number].nodes
            return agree(_factor(nodes[name], self.traces[number].nodes[name]), truth)

        if not is_same(places):
            return  # noise that is no site, and that no two runs share
        blamed = [
            latent
            for latent, choice in self.choices.items()
            if not is_same({**places, latent: choice.others(places[latent])})
        ] or list(self.choices)
        latent = next((each for each in blamed if self.choices[each].frames), blamed[0])
        choice = self.choices[latent]
        sizes = " x ".join(map(str, choice.frames.values()))
        cause = (
            f"{latent!r} has size 1 there along its plate "
            f"{' and '.join(map(repr, choice.frames))} of {sizes}, so that a sum, mean, "
            "product, maximum, matrix product or index over that plate, or batch normalization, "
            "gives something else"
            if choice.frames
            else f"a sum, index or reshape over all dimensions takes those of {latent!r} as well"
        )
        raise ValueError(
            f"{('model', 'guide')[number]}: site {name!r} has another log-probability where all "
            f"values of the discrete {', '.join(map(repr, blamed))} are there at once, to be "
            f"summed out, than in runs at single ones: {cause}. Write what depends on {latent!r} "
            + _remedy(repr(latent), bool(choice.frames), choice.of_guide)
        )

    def _values(self, places: dict[str, Named]) -> Values:
        """The value of each latent at an assignment, of the shape that a plain run has."""
        values: Values = {}
        chosen = self._by_symbol(places)
        for trace in self.traces:
            for name, site in sites(trace):
                if site["is_observed"] or name in values:
                    continue
                symbols = site["infer"].get("_dim_to_symbol", {})
                where = {symbol: dim for dim, symbol in symbols.items()}
                if name in self.choices:
                    source = self.choices[name].support
                else:
                    source = named(site["value"], len(site["fn"].event_shape), symbols)
                values[name] = site["value"]
                if not chosen.keys().isdisjoint(source.dims):
                    values[name] = taken_at(source, chosen).placed(where, self.ranks.get(name, 0))
        return values

    def _by_symbol(self, places: dict[str, Named]) -> dict[str, Named]:
        return {choice.symbol: places[name] for name, choice in self.choices.items()}

    def _shown(self, places: dict[str, Named], site: Any) -> Named | None:
        """Elements at which the traces have what is assigned, of latents taken one by one."""
        symbols = set(site["infer"]["_dim_to_symbol"].values())
        shown: Named | None = None
        for name, choice in self.choices.items():
            if choice.only is None or not choice.plates or not choice.plates.keys() <= symbols:
                continue
            same = Named(places[name].values == choice.only, places[name].dims)
            if shown is not None:
                dims = tuple(dict.fromkeys((*shown.dims, *same.dims)))
                same = Named(shown.along(dims) & same.along(dims), dims)
            shown = same
        return shown


def _remedy(latent: str, in_plate: bool, of_guide: bool) -> str:
    loop = (
        "; or take the plate as a loop, `for i in pyro.plate(...)`, with a site for each element, "
        "whose values are summed out together"
    )
    draw = (
        f"; or leave infer={{'enumerate': ...}} out of the guide, which then draws {latent}"
        if of_guide
        else f"; or let the guide draw {latent}"
    )
    return f"element by element, with dimensions counted from the right{loop * in_plate}{draw}"


def _choices(traces: Sequence[poutine.Trace]) -> dict[str, _Choice]:
    found: dict[str, _Choice] = {}
    for number, trace in reversed(list(enumerate(traces))):
        for name, site in sites(trace):
            symbols = site["infer"].get("_dim_to_symbol", {})
            if name in found or site["is_observed"]:
                continue
            event_dim = len(site["fn"].event_shape)
            only = None
            if site["infer"].get("_enumerate_dim") is not None:
                symbol = symbols[site["infer"]["_enumerate_dim"]]
                support = named(site["value"], event_dim, symbols)
                if symbol not in support.dims:
                    continue  # of one value
            elif "_enum_total" in site["infer"]:
                symbol = f"sequential {name}"
                values = site["fn"].enumerate_support(expand=False)
                event = values.shape[values.ndim - event_dim :]
                support = Named(values.reshape((len(values), *event)), (symbol,))
                first = site["value"].reshape((-1, *event))[0]
                only = int((support.values == first).reshape(len(values), -1).all(-1).nonzero()[0])
            else:
                continue
            inside = [f for f in site["cond_indep_stack"] if f.vectorized and f.size > 1]
            found[name] = _Choice(
                symbol, support,
                {symbols[f.dim]: f.size for f in inside},
                only, number > 0, {f.name: f.size for f in inside if f.name != _PARTICLES},
            )  # fmt: skip
    return {name: found[name] for trace in traces for name, _ in sites(trace) if name in found}


def _ranks(traces: Sequence[poutine.Trace]) -> dict[str, int]:
    """Dimensions on the left of each site's event."""
    return {
        name: site["value"].ndim - len(site["fn"].event_shape)
        for trace in traces
        for name, site in sites(trace)
    }


def _scored_sites(trace: poutine.Trace) -> Iterator[tuple[str, Any]]:
    for name, site in sites(trace):
        if not site["infer"].get("_deterministic"):
            yield name, site


def _factor(site: Any, like: Any) -> Named:
    """The log-probability of a site as the sum has it, by the names of another's dimensions."""
    value = float64_log_prob(site["fn"], site["value"])
    # a latent that is summed out counts beside its mask, and sums to one
    if site["mask"] is not None and like["infer"].get("_enumerate_dim") is None:
        value = torch.where(torch.as_tensor(site["mask"], device=value.device), value, 0.0)
    return named(value, 0, like["infer"]["_dim_to_symbol"])
