"""A table of what chains drew: a row for each dimension."""

from collections.abc import Iterable
from itertools import product
from typing import TYPE_CHECKING, Any

import torch

from aevb.inference.mcmc.diagnostics import bulk_ess, mean_ess, rank_rhat, tail_ess

if TYPE_CHECKING:
    from pandas import DataFrame

    from aevb.inference.mcmc.draws import Draws

__all__ = ["summary_of"]


def summary_of(draws: "Draws", index: Iterable[Any] | None = None) -> "DataFrame":
    """See :meth:`~aevb.inference.Draws.summary`.

    Raises:
        ValueError: If there is another number of names than of datapoints.
    """
    from pandas import DataFrame, concat  # not before it is asked for

    names = None if index is None else list(index)
    count = draws.unconstrained.shape[2]
    if names is not None and not draws.is_local:
        raise ValueError("index: names datapoints, and these share one joint posterior")
    if names is not None and len(names) != count:
        raise ValueError(f"index: expected one for each of {count} datapoints; got {len(names)}")
    tables = []
    for name, values in draws.samples.items():
        shape = list(values.shape[2:])
        flat = values.detach().double().cpu().reshape(*values.shape[:2], -1)
        together = flat.flatten(0, 1)
        levels = torch.tensor([0.05, 0.95], dtype=together.dtype)
        low, high = torch.quantile(together, levels, dim=0)
        sd = together.std(0)
        columns = {
            "mean": together.mean(0), "sd": sd, "q5": low, "q95": high,
            "mcse_mean": sd / mean_ess(flat).sqrt(), "ess_bulk": bulk_ess(flat),
            "ess_tail": tail_ess(flat), "r_hat": rank_rhat(flat),
        }  # fmt: skip
        places: list[Iterable[Any]] = [range(size) for size in shape]
        if names is not None and count in shape:
            places[shape.index(count)] = names
        rows = [
            name + f"[{', '.join(map(str, place))}]" * bool(shape) for place in product(*places)
        ]
        tables.append(DataFrame({k: v.numpy() for k, v in columns.items()}, index=rows))
    return concat(tables)
