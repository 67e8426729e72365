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

__all__ = ["refuse_other_factors"]

Values = dict[str, Tensor]
Run = Callable[[Values], Sequence[poutine.Trace]]

# Assignments drawn at random, beside the two of equal values that products and maxima hide behind.
_DRAWN = 3
# Relative rounding of a factor's float32 terms; a factor of other elements differs by far more.
_AGREEMENT = 1e-4
# Of guides that can score only what they have just drawn, as a flow without an inverse.
_CANNOT_SCORE = (KeyError, NotImplementedError)


@dataclass(frozen=True)
class _Named:
    """A tensor whose leading dimensions have names: ``(*dims, *event)``."""

    values: Tensor
    dims: tuple[str, ...]

    def along(self, dims: Sequence[str]) -> Tensor:
        """The values with these dimensions in order, of size 1 where there is none."""
        order = [self.dims.index(dim) for dim in dims if dim in self.dims]
        rest = range(len(self.dims), self.values.ndim)
        sizes = [self.values.shape[self.dims.index(d)] if d in self.dims else 1 for d in dims]
        event = self.values.shape[len(self.dims) :]
        return self.values.permute((*order, *rest)).reshape((*sizes, *event))


@dataclass(frozen=True)
class _Choice:
    """A discrete latent with all its values at once, or of which a run has one after the other.

    Attributes:
        support: Its values, with the dimension ``symbol``.
        plates: Sizes of its plates by symbol, where they hold more than one element.
        places: Where each of these lies in a run of its own, counted from the right.
        rank: Dimensions of its plates in such a run.
        only: Place of the one value that the run has, of a sequential site; else None.
    """

    symbol: str
    support: _Named
    event_dim: int
    plates: dict[str, int]
    places: dict[str, int]
    rank: int
    only: int | None
    of_guide: bool
    plate_names: tuple[str, ...]

    @property
    def size(self) -> int:
        return self.support.values.shape[self.support.dims.index(self.symbol)]

    def drawn(self, number: int, device: torch.device) -> _Named:
        """Which value each element of the plates has: the first, the last, or any."""
        shape, dims = list(self.plates.values()), tuple(self.plates)
        if self.only is not None and (number < 2 or not shape):
            return _Named(torch.full(shape, self.only, device=device), dims)
        if number < 2:
            return _Named(torch.full(shape, number * (self.size - 1), device=device), dims)
        places = torch.randint(self.size, shape).to(device)
        if self.only is not None:  # half of them are what the run has
            places = torch.where((torch.rand(shape) < 0.5).to(device), self.only, places)
        return _Named(places, dims)


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
        try:
            traces = at_once()
        except Exception as error:
            if not _runs(run):
                raise
            reason = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
            raise ValueError(
                f"model: fails where its discrete latents {sorted(summed)} have all their values "
                f"at once ({reason}), though it runs at single ones: they are summed out, and lie "
                "on the left of all plates with size 1 along their own. Write what depends on them "
                f"element by element, with dimensions counted from the right{_remedy()}"
            ) from error
        choices = _choices(traces)
        if not choices:
            return
        count = 2 + _DRAWN
        for number in range(count):
            places = {name: choice.drawn(number, device) for name, choice in choices.items()}
            _compare(traces, run, choices, places)


def _runs(run: Run) -> bool:
    """Whether a program runs without enumeration, with all its dimensions in plates or events."""
    try:
        traces = run({})
    except Exception:  # whatever the program does
        return False
    for trace in traces:
        for _, site in _scored_sites(trace):
            shape = site["fn"].batch_shape
            plates = {frame.dim for frame in site["cond_indep_stack"] if frame.vectorized}
            if any(n > 1 and i - len(shape) not in plates for i, n in enumerate(shape)):
                return False
    return True


def _compare(
    traces: Sequence[poutine.Trace],
    run: Run,
    choices: dict[str, _Choice],
    places: dict[str, _Named],
) -> None:
    """Compare all factors at one assignment."""
    values = _values(traces, choices, places)
    plain = run(values)
    for trace, single in zip(traces, plain, strict=True):
        for name, site in _scored_sites(trace):
            if name not in single.nodes:
                continue
            try:
                found = _gathered(_factor(site, site), choices, places)
                truth = _factor(single.nodes[name], site)
            except _CANNOT_SCORE:
                continue
            if _agree(found, truth, _shown(choices, places, site)):
                continue
            again = run(values)[list(traces).index(trace)]
            if not _agree(_factor(again.nodes[name], site), truth, None):
                continue  # noise that is no site, which no two runs share
            _refuse(name, trace is not traces[0], traces, run, choices, places, truth)


def _refuse(
    name: str,
    in_guide: bool,
    traces: Sequence[poutine.Trace],
    run: Run,
    choices: dict[str, _Choice],
    places: dict[str, _Named],
    truth: _Named,
) -> None:
    """Say which of the latents the factor depends on, by changing one at a time."""
    blamed = []
    site = traces[int(in_guide)].nodes[name]
    for latent, choice in choices.items():
        other = _Named((places[latent].values + 1) % choice.size, places[latent].dims)
        values = _values(traces, choices, {**places, latent: other})
        changed = _factor(run(values)[int(in_guide)].nodes[name], site)
        if not _agree(changed, truth, None):
            blamed.append(latent)
    blamed = blamed or list(choices)
    inside = [latent for latent in blamed if choices[latent].plates]
    latent = (inside or blamed)[0]
    choice = choices[latent]
    program = "guide" if in_guide else "model"
    told = f"latent{'s' if len(blamed) > 1 else ''} {', '.join(map(repr, blamed))}"
    plates = " and ".join(map(repr, choice.plate_names))
    cause = (
        f"{latent!r} has size 1 there along its plate {plates} of "
        f"{' x '.join(map(str, choice.plates.values()))}, so that a sum, mean, product, maximum, "
        "matrix product or index over that plate (or batch statistics) gives something else"
        if choice.plates
        else f"a sum, index or reshape over all dimensions takes the values of {latent!r} as well"
    )
    raise ValueError(
        f"{program}: site {name!r} has another log-probability where all values of the discrete "
        f"{told} are summed out at once than in runs at single values: {cause}. Write what depends "
        f"on {latent!r} element by element, with dimensions counted from the right"
        f"{_remedy(latent, choice)}"
    )


def _remedy(latent: str | None = None, choice: _Choice | None = None) -> str:
    named = repr(latent) if latent else "them"
    loop = "; or take the plate as a loop, `for i in pyro.plate(...)`, with a site for each element"
    if choice is not None and not choice.plates:
        loop = ""
    if choice is not None and choice.of_guide:
        return f"{loop}; or leave out infer={{'enumerate': ...}} of the guide, which then draws it"
    return f"{loop}, all of which are summed over jointly; or let the guide draw {named}" if (
        loop
    ) else f"; or let the guide draw {named}"


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
                support = _named(site["value"], event_dim, symbols)
                if symbol not in support.dims:
                    continue  # of one value
            elif "_enum_total" in site["infer"]:
                symbol = f"sequential {name}"
                values = site["fn"].enumerate_support(expand=False)
                event = values.shape[values.ndim - event_dim :]
                support = _Named(values.reshape((len(values), *event)), (symbol,))
                first = site["value"].reshape((-1, *event))[0]
                only = int((support.values == first).reshape(len(values), -1).all(-1).nonzero()[0])
            else:
                continue
            frames = [f for f in site["cond_indep_stack"] if f.vectorized]
            inside = [f for f in frames if f.size > 1]
            found[name] = _Choice(
                symbol, support, event_dim,
                {symbols[f.dim]: f.size for f in inside},
                {symbols[f.dim]: f.dim for f in inside},
                max((-f.dim for f in frames), default=0),
                only, number > 0, tuple(f.name for f in inside),
            )  # fmt: skip
    return {name: found[name] for trace in traces for name, _ in sites(trace) if name in found}


def _values(
    traces: Sequence[poutine.Trace], choices: dict[str, _Choice], places: dict[str, _Named]
) -> Values:
    """The value of each latent at an assignment, of the shape that a plain run has."""
    values: Values = {}
    for trace in traces:
        for name, site in sites(trace):
            if site["is_observed"] or name in values:
                continue
            value = site["value"]
            if name in choices:
                choice = choices[name]
                inside = {choice.symbol: places[name]}
                named = _gathered(choice.support, choices, places, inside)
                value = _placed(named, choice.places, choice.rank, choice.event_dim)
            else:
                event_dim = len(site["fn"].event_shape)
                symbols = site["infer"].get("_dim_to_symbol", {})
                named = _named(value, event_dim, symbols)
                if {choice.symbol for choice in choices.values()} & set(named.dims):
                    named = _gathered(named, choices, places)
                    frames = [f for f in site["cond_indep_stack"] if f.vectorized]
                    rank = max((-f.dim for f in frames), default=0)
                    where = {symbol: dim for dim, symbol in symbols.items()}
                    value = _placed(named, where, rank, event_dim)
            values[name] = value
    return values


def _placed(named: _Named, where: dict[str, int], rank: int, event_dim: int) -> Tensor:
    """A named tensor with its plates counted from the right, as Pyro has them."""
    dims = sorted(named.dims, key=lambda dim: where[dim])
    values = named.along(dims)
    shape = [1] * max(rank, max((-where[dim] for dim in dims), default=0))
    for dim, size in zip(dims, values.shape, strict=False):
        shape[where[dim]] = size
    return values.reshape((*shape, *values.shape[values.ndim - event_dim :]))


def _scored_sites(trace: poutine.Trace) -> Iterator[tuple[str, Any]]:
    for name, site in sites(trace):
        if not site["infer"].get("_deterministic"):
            yield name, site


def _factor(site: Any, like: Any) -> _Named:
    """The log-probability of a site as the sum has it, by the names of another's dimensions."""
    value = float64_log_prob(site["fn"], site["value"])
    # a latent that is summed out counts beside its mask, and sums to one
    if site["mask"] is not None and like["infer"].get("_enumerate_dim") is None:
        value = torch.where(torch.as_tensor(site["mask"], device=value.device), value, 0.0)
    return _named(value, 0, like["infer"]["_dim_to_symbol"])


def _named(value: Tensor, event_dim: int, symbols: dict[int, str]) -> _Named:
    batch = value.shape[: value.ndim - event_dim]
    kept = [i for i, size in enumerate(batch) if size > 1]
    dims = tuple(symbols.get(i - len(batch), f"undeclared {i - len(batch)}") for i in kept)
    return _Named(value.reshape([batch[i] for i in kept] + list(value.shape[len(batch) :])), dims)


def _gathered(
    named: _Named,
    choices: dict[str, _Choice],
    places: dict[str, _Named],
    inside: dict[str, _Named] | None = None,
) -> _Named:
    """The entries at an assignment, along the plates of the tensor and of what it depends on."""
    chosen = {choice.symbol: places[name] for name, choice in choices.items()} | (inside or {})
    plates = [dim for dim in named.dims if dim not in chosen]
    for dim in named.dims:
        plates += [p for p in chosen[dim].dims if p not in plates] if dim in chosen else []
    index = tuple(
        (
            chosen[dim]
            if dim in chosen
            else _Named(torch.arange(size, device=named.values.device), (dim,))
        ).along(plates)
        for dim, size in zip(named.dims, named.values.shape, strict=False)
    )
    if not index:
        return named
    return _Named(named.values[index], tuple(plates))


def _shown(choices: dict[str, _Choice], places: dict[str, _Named], site: Any) -> _Named | None:
    """Elements at which the run has what is assigned, of latents that it takes one by one."""
    symbols = set(site["infer"]["_dim_to_symbol"].values())
    shown: _Named | None = None
    for name, choice in choices.items():
        if choice.only is None or not choice.plates or not set(choice.plates) <= symbols:
            continue
        same = _Named(places[name].values == choice.only, places[name].dims)
        if shown is None:
            shown = same
        else:
            dims = tuple(dict.fromkeys((*shown.dims, *same.dims)))
            shown = _Named(shown.along(dims) & same.along(dims), dims)
    return shown


def _agree(found: _Named, truth: _Named, shown: _Named | None) -> bool:
    dims = list(dict.fromkeys((*found.dims, *truth.dims, *(shown.dims if shown else ()))))
    first, second = torch.broadcast_tensors(found.along(dims), truth.along(dims))
    if shown is not None:
        where = shown.along(dims)
        first, second = (torch.where(where, each, 0.0) for each in (first, second))
    finite = second[torch.isfinite(second)]
    size = float(finite.abs().mean()) if len(finite) else 0.0
    return torch.allclose(first, second, 0.0, _AGREEMENT * (1e-3 + size), equal_nan=True)
