"""Models of datapoints of which only some values are known."""

from collections.abc import Callable
from typing import Any

import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.layouts import factors, sites

__all__ = ["observed_site", "partly_observed"]


def partly_observed(
    model: Callable[..., Any], observed: Tensor, site: str = "x"
) -> Callable[..., Any]:
    r"""The model with the missing values of one observed site integrated out.

    .. math:: p(x_o \mid z) = \prod_{d \in o} p(x_d \mid z)

    The likelihood must be a product over the values of a datapoint: the missing ones are masked
    one by one within the event, where :func:`pyro.poutine.mask` masks whole datapoints. What the
    program is given in their place must lie in the likelihood's support, and changes nothing.

    Args:
        model: Pyro program.
        observed: True where a value is known, broadcast against the site, ``(N, *shape)``.
        site: Observed site.

    Returns:
        A Pyro program of the same arguments.

    Raises:
        ValueError: When it is run, if the site's likelihood does not factorize.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> fa, x = FactorAnalysis((5,), 2), torch.zeros(3, 5)
        >>> nothing = partly_observed(fa.model, torch.zeros(3, 5, dtype=torch.bool))
        >>> poutine.trace(nothing).get_trace(x).log_prob_sum(lambda name, _: name == "x").item()
        0.0
    """
    if observed.dtype != torch.bool:
        raise ValueError(f"observed: expected a mask of torch.bool; got {observed.dtype}")

    def masked(*args: Any, **kwargs: Any) -> Any:
        with _MaskWithinEvents(site, observed):
            return model(*args, **kwargs)

    return masked


def observed_site(model: Callable[..., Any], x: Tensor) -> str:
    """The name of the site that observes ``x``.

    Args:
        model: Pyro program ``model(x)``.
        x: Data, ``(N, *shape)``.

    Raises:
        ValueError: If the program does not observe just one site, of the shape of ``x``.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> observed_site(FactorAnalysis((5,), 2).model, torch.zeros(3, 5))
        'x'
    """
    with torch.no_grad(), argument_checks(False):
        trace = poutine.trace(model).get_trace(x)
    shapes = {name: site["value"].shape for name, site in sites(trace) if site["is_observed"]}
    if len(shapes) != 1 or next(iter(shapes.values())) != x.shape:
        found = ", ".join(f"{name!r} {tuple(shape)}" for name, shape in shapes.items()) or "none"
        raise ValueError(
            f"model: expected one observed site of shape {tuple(x.shape)}, that of x; got {found}"
        )
    return next(iter(shapes))


class _MaskWithinEvents(Messenger):
    """Puts the mask on the factors of a product of independent distributions."""

    def __init__(self, site: str, observed: Tensor) -> None:
        super().__init__()
        self.site, self.observed = site, observed

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] != self.site or not msg["is_observed"]:
            return
        fn, dims = factors(msg["fn"])
        if fn.event_shape:
            raise ValueError(
                f"site {self.site!r}: {type(fn).__name__} is no product over the values of a "
                "datapoint, so that single ones cannot be left out: use a likelihood that is"
            )
        msg["fn"] = dist.MaskedDistribution(fn, self.observed).to_event(dims)
