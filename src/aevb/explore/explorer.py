"""Everything that the page may ask, as JSON-able values and pictures."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aevb.data.seeds import stream_seed
from aevb.explore.latent_space import LatentSpace
from aevb.explore.pictures import Painter, address, sheet
from aevb.explore.trials import Steps, put_on_trial, weigh
from aevb.models import LatentVariableModel

__all__ = ["Explorer", "read_labels"]

# Draws of a guide by which its ellipse is known, and those that are drawn.
_GUIDE_DRAWS, _SHOWN_DRAWS = 2_000, 200
# Pictures along one side of the plane of two latents.
_PLANE = 21
# Prior draws in one try of a region, and tries.
_PRIOR_DRAWS, _TRIES = 5_000, 20
_MOST_SAMPLES = 100
# Different labels beyond which they are a scale and not classes.
_CLASSES = 12


class Explorer:
    """A model and some of its data, to be looked at.

    Args:
        model: The model, at the means of its weights where these are latent.
        x: Data, ``(N, *shape)``.
        labels: Of the data, ``(N,)``, numbers or text; None for none.
        about: Shown at the top: run, model, data.
        seed: Of everything random.
        num_samples: Of each datapoint's importance sampling.
        max_latents: Latents that are axes and sliders.
        trial: Settings of :func:`aevb.explore.trials.put_on_trial`, where others are wanted.

    Raises:
        ValueError: If there are fewer than two datapoints, or other than one label for each.

    Example:
        >>> from aevb.models import VAE
        >>> explorer = Explorer(VAE((4, 4)), torch.eye(4).expand(3, 4, 4), np.array([0, 1, 1]))
        >>> explorer.overview()["columns"], explorer.datapoint(2)["label"]
        (['z[0]', 'z[1]'], '1')
    """

    def __init__(
        self,
        model: LatentVariableModel,
        x: Tensor,
        labels: NDArray[Any] | None = None,
        about: dict[str, Any] | None = None,
        seed: int = 0,
        num_samples: int = 500,
        max_latents: int = 40,
        trial: dict[str, int] | None = None,
    ) -> None:
        if len(x) < 2:
            raise ValueError(f"limit: a map needs at least two datapoints; got {len(x)}")
        if labels is not None and labels.shape != (len(x),):
            raise ValueError(
                f"labels: expected one for each of {len(x)} datapoints; got shape {labels.shape}"
            )
        self.space = LatentSpace(model, x, seed, max_latents)
        self.labels, self.about, self.seed = labels, about or {}, seed
        self.num_samples, self.settings = num_samples, trial or {}
        self.paint = Painter(x)
        self.thumbnails, self._sprite = sheet(self.paint(x))

    def __len__(self) -> int:
        """Number of datapoints."""
        return len(self.space.x)

    @property
    def is_plane(self) -> bool:
        """Whether there are two latents."""
        return len(self.space.units.names) == 2

    def overview(self) -> dict[str, Any]:
        """All that the map needs: where datapoints lie in each column, and their labels."""
        space = self.space
        positions = space.columns(space.mean, space.scale)
        return {
            "about": self.about,
            "count": len(self),
            "columns": space.names,
            "positions": _rounded(positions.mT),
            "latents": [
                {"name": name, "low": low, "high": high, "centre": centre, "variance": variance}
                for name, low, high, centre, variance in zip(
                    space.names,
                    space.low.tolist(),
                    space.high.tolist(),
                    space.centre[space.shown].tolist(),
                    space.units.variance[space.shown].tolist(),
                    strict=False,
                )
            ],  # fmt: skip
            "active": space.units.count,
            "total": len(space.units.names),
            "explained": space.explained() if len(space.units.names) > 2 else None,
            "labels": self._labels(),
            "sprite": self._sprite,
            "plane": {"side": _PLANE} if self.is_plane else None,
            "image": self.paint.is_image,
            "num_samples": self.num_samples,
        }

    def datapoint(self, index: int) -> dict[str, Any]:
        """One datapoint: its picture and reconstruction, and what the guide makes of it."""
        space = self.space
        self._check(index)
        mean = space.mean[index]
        pictures = self.paint(torch.cat([space.x[index : index + 1], space.decode(mean[None])]))
        seed = stream_seed(self.seed, f"explore/guide/{index}")
        drawn = space.guide_draws(index, _GUIDE_DRAWS, seed)
        columns = space.columns(drawn).double()
        return {
            "index": index,
            "label": None if self.labels is None else str(self.labels[index]),
            "data": address(pictures[0]),
            "reconstruction": address(pictures[1]),
            "samples": [address(p) for p in self.paint(space.decode(drawn[:6]))],
            "values": _rounded(mean[space.shown]),
            "guide": {
                "mean": _rounded(columns.mean(0)),
                "covariance": columns.mT.cov().cpu().numpy().round(6).tolist(),
                "draws": _rounded(columns[:_SHOWN_DRAWS]),
            },
        }

    def decode(self, values: list[float], base: int | None = None) -> dict[str, Any]:
        """E[x|z] where the shown latents have these values.

        Args:
            values: Of the shown latents.
            base: Datapoint that the latents which are not shown are taken from; by default they
                are the mean over all.
        """
        space = self.space
        if len(values) != len(space.shown):
            raise ValueError(f"values: expected {len(space.shown)}; got {len(values)}")
        given = torch.tensor([values], dtype=torch.float64)
        if not bool(torch.isfinite(given).all()):
            raise ValueError("values: expected finite numbers")
        given = torch.minimum(torch.maximum(given, space.low.cpu()), space.high.cpu())
        if base is not None:
            self._check(base)
        z = space.with_shown(space.centre if base is None else space.mean[base], given)
        return {"picture": address(self.paint(space.decode(z))[0])}

    def sample(
        self,
        columns: tuple[int, int],
        region: tuple[float, float, float, float],
        source: Literal["prior", "posteriors"] = "prior",
        num: int = 24,
        draw: int = 0,
    ) -> dict[str, Any]:
        """Draws of z within a region of the map, and what they decode to.

        Args:
            columns: Of the two axes.
            region: ``(left, right, bottom, top)``.
            source: The prior given that its draw lies in the region, exactly, by rejection; or
                ``"posteriors"``: those of the datapoints whose means lie there, each as likely.
            num: Draws.
            draw: Another number, other draws.

        Returns:
            ``samples``, each with its ``picture`` and ``at``, its columns; ``share``, of the
            prior's mass or of the datapoints in the region; and ``found``, of ``num``.
        """
        space, most = self.space, len(self.space.names)
        if not all(0 <= column < most for column in columns):
            raise ValueError(f"columns: expected two of 0..{most - 1}; got {list(columns)}")
        if source not in ("prior", "posteriors"):
            raise ValueError(f"source: expected prior or posteriors; got {source!r}")
        if not 1 <= num <= _MOST_SAMPLES:
            raise ValueError(f"num: expected 1 to {_MOST_SAMPLES}; got {num}")
        seed = stream_seed(self.seed, f"explore/sample/{draw}")
        take = self._of_prior if source == "prior" else self._of_posteriors
        z, share = take(columns, region, num, seed)
        shown: Any = self.paint(space.decode(z)) if len(z) else []
        return {
            "samples": [
                {"picture": address(picture), "at": _rounded(at)}
                for picture, at in zip(shown, space.columns(z), strict=True)
            ],
            "share": share,
            "found": len(z),
        }

    def weigh(self) -> Steps:
        """See :func:`aevb.explore.trials.weigh`."""
        return weigh(self.space, self.num_samples)

    def trial(self, index: int) -> Steps:
        """See :func:`aevb.explore.trials.put_on_trial`."""
        self._check(index)
        return put_on_trial(self.space, index, **self.settings)

    def plane(self) -> bytes:
        """The pictures of a plane of two latents, rows from the top, as one."""
        x, y = (
            torch.linspace(float(low), float(high), _PLANE)
            for low, high in zip(self.space.low, self.space.high, strict=True)
        )
        rows, columns = torch.meshgrid(y.flip(0), x, indexing="ij")
        values = torch.stack([columns.flatten(), rows.flatten()], -1)
        z = self.space.with_shown(self.space.centre, values)
        return sheet(self.paint(self.space.decode(z)), _PLANE)[0]

    def _of_prior(
        self, columns: tuple[int, int], region: tuple[float, ...], num: int, seed: int
    ) -> tuple[Tensor, float]:
        kept: list[Tensor] = []
        tried = found = 0
        while found < num and tried < _TRIES * _PRIOR_DRAWS:
            z = self.space.prior_draws(_PRIOR_DRAWS, stream_seed(seed, str(tried)))
            inside = _inside(self.space.columns(z), columns, region)
            kept.append(z[inside])
            tried, found = tried + len(z), found + int(inside.sum())
        return torch.cat(kept)[:num], found / tried

    def _of_posteriors(
        self, columns: tuple[int, int], region: tuple[float, ...], num: int, seed: int
    ) -> tuple[Tensor, float]:
        space = self.space
        inside = _inside(space.columns(space.mean, space.scale), columns, region).nonzero()[:, 0]
        if not len(inside):
            return space.mean[:0], 0.0
        generator = torch.Generator().manual_seed(seed)
        which = inside.cpu()[torch.randint(len(inside), (num,), generator=generator)]
        z = [space.guide_draws(int(i), 1, seed + n) for n, i in enumerate(which)]
        return torch.cat(z), len(inside) / len(self)

    def _labels(self) -> dict[str, Any] | None:
        if self.labels is None:
            return None
        classes = np.unique(self.labels)
        if len(classes) > _CLASSES and np.issubdtype(self.labels.dtype, np.number):
            return {"classes": None, "values": self.labels.astype(float).tolist()}
        places = np.searchsorted(classes, self.labels)
        return {"classes": [str(value) for value in classes], "values": places.tolist()}

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self):
            raise ValueError(f"index: expected 0..{len(self) - 1}; got {index}")


def read_labels(path: Path, num: int) -> NDArray[Any]:
    """Labels from a file: ``.npy``, or text with one in each line.

    Args:
        path: The file, with a label for each row of the split, in its order.
        num: Datapoints that are shown, the first ones.

    Raises:
        ValueError: If it does not hold one label for each.
    """
    if path.suffix == ".npy":
        found = np.load(path, allow_pickle=False)
    else:
        found = np.array(path.read_text(encoding="utf-8").splitlines())
    if found.ndim != 1 or len(found) < num or found.dtype.kind not in "biufU":
        raise ValueError(
            f"labels: {path} has shape {found.shape} and dtype {found.dtype}; expected a label "
            f"for each row of the split, at least {num}"
        )
    return found[:num]


def _inside(at: Tensor, columns: tuple[int, int], region: tuple[float, ...]) -> Tensor:
    left, right, bottom, top = region
    x, y = at[:, columns[0]], at[:, columns[1]]
    return (x >= left) & (x <= right) & (y >= bottom) & (y <= top)


def _rounded(values: Tensor) -> Any:
    return values.double().cpu().numpy().round(4).tolist()
