"""Groups of variables for ArviZ: the only place that knows which of its lines is installed."""

import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from xarray import Dataset

__all__ = ["CHAINS", "Groups", "Sites", "has_trees"]

Sites = Mapping[str, Tensor]

CHAINS = ("chain", "draw")
_RESERVED = ("chain", "draw", "sample", "pred_id")  # ArviZ looks for them by name
_FIRST_WITH_TREES = 1  # major version of ArviZ


class Groups:
    """Datasets by group.

    Args:
        sample_dims: Dimensions that draws begin with.
        batch: Size of the data plate; None for a joint posterior.
        names: Of dimensions behind them that the caller chose, by site.
    """

    def __init__(
        self,
        sample_dims: tuple[str, ...],
        batch: int | None,
        names: Mapping[str, Sequence[str]] | None,
    ) -> None:
        self._sample_dims, self._batch, self._names = sample_dims, batch, names or {}
        self._groups: dict[str, Dataset] = {}

    def add(
        self,
        group: str,
        values: Sites,
        *,
        are_draws: bool = True,
        event: str | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """A group of variables; ``event`` names the one event dimension of a single variable."""
        from xarray import Dataset  # half a second, which importing this library does not take

        arrays = {
            name.replace("/", "."): value.detach().cpu().numpy() for name, value in values.items()
        }
        refused = sorted(set(arrays) & set(_RESERVED))
        if refused:
            raise ValueError(
                f"{group}: {', '.join(refused)} is a dimension of ArviZ's; name the site otherwise"
            )
        first = self._sample_dims if are_draws else ()
        variables = {}
        for name, array in arrays.items():
            if array.ndim < len(first):
                raise ValueError(
                    f"{group}: expected {name!r} to begin with ({', '.join(first)}); got "
                    f"shape {array.shape}"
                )
            behind = self._behind(name, array.shape[len(first) :], event, set(arrays))
            variables[name] = ((*first, *behind), array)
        # plots of ArviZ 1.x select by coordinate
        coords = {
            dim: np.arange(size)
            for dims, array in variables.values()
            for dim, size in zip(dims, array.shape, strict=True)
        }
        self._groups[group] = Dataset(variables, coords, {**_attributes(first), **(attrs or {})})

    def _behind(
        self, name: str, shape: tuple[int, ...], event: str | None, variables: set[str]
    ) -> tuple[str, ...]:
        """Dimensions of a site behind the draws; names of variables are not free for them."""
        if name in self._names:
            if len(self._names[name]) != len(shape):
                raise ValueError(
                    f"dims: expected {len(shape)} names for {name!r} of shape {shape}; got "
                    f"{tuple(self._names[name])}"
                )
            return tuple(self._names[name])
        place = shape.index(self._batch) if self._batch in shape else None
        others = [number for number in range(len(shape)) if number != place]
        found = {number: f"{name}_dim_{count}" for count, number in enumerate(others)}
        if event is not None and len(others) == len(variables) == 1:
            found[others[0]] = event
        if place is not None:
            found[place] = "datapoint"
        return tuple(dim + "_dim" * (dim in variables) for _, dim in sorted(found.items()))

    def add_evidence(self, evidence: Any) -> None:
        """The group ``constant_data``."""
        if isinstance(evidence, Tensor):
            values, attrs = {"log_evidence": evidence}, {}
        else:
            values = {
                "log_evidence": evidence.log_evidence,
                "log_evidence_standard_error": evidence.standard_error,
            }
            attrs = {"log_evidence_estimator": type(evidence).__name__}
        count, wanted = values["log_evidence"].numel(), self._batch or 1
        if count != wanted:
            raise ValueError(f"log_evidence: expected {wanted} values; got {count}")
        shape = () if self._batch is None else (self._batch,)
        shaped = {name: value.reshape(shape) for name, value in values.items()}
        self.add("constant_data", shaped, are_draws=False, attrs=attrs)

    def assembled(self, predictive: Sites | None, observed: Sites | None, evidence: Any) -> Any:
        """With what draws of every kind may come with, as the installed ArviZ has it."""
        if predictive:
            self.add("posterior_predictive", predictive)
        if observed:
            self.add("observed_data", observed, are_draws=False)
        if evidence is not None:
            self.add_evidence(evidence)
        if has_trees():
            from xarray import DataTree

            return DataTree.from_dict(self._groups)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ArviZ 0.x announces its refactoring at import
            from arviz import InferenceData
        datasets: dict[str, Any] = {**self._groups}
        return InferenceData(**datasets)


def _attributes(sample_dims: tuple[str, ...]) -> dict[str, Any]:
    """As ArviZ's converters write them."""
    version = metadata.version("aevb")
    return {
        "created_at": datetime.now(UTC).isoformat(),
        "creation_library": "aevb",
        "creation_library_version": version,
        "creation_library_language": "Python",
        "inference_library": "aevb",
        "inference_library_version": version,
        **({"sample_dims": list(sample_dims)} if sample_dims else {}),
    }


def has_trees() -> bool:
    """Whether ArviZ is of the 1.x line, whose data are trees."""
    return int(metadata.version("arviz").split(".")[0]) >= _FIRST_WITH_TREES
