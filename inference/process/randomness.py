"""Every random state of the process, as values that a checkpoint can hold."""

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch

from aevb.data.seeds import stream_seed

__all__ = [
    "capture",
    "capture_torch",
    "restore",
    "restore_torch",
    "seed_everything",
    "seeded",
    "stream",
]


def capture(device: torch.device) -> dict[str, Any]:
    """The states of torch (CPU, and ``device`` if CUDA), NumPy's global one and Python's.

    Example:
        >>> state = capture(torch.device("cpu"))
        >>> first = torch.rand(3)
        >>> restore(state, torch.device("cpu"))
        >>> bool((torch.rand(3) == first).all())
        True
    """
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        **capture_torch(device),
        "python": [version, list(words), gauss],
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            position,
            has_gauss,
            cached,
        ],
    }


def capture_torch(device: torch.device) -> dict[str, Any]:
    """The states of torch alone: cheap enough for every step."""
    state = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_torch(state: dict[str, Any], device: torch.device) -> None:
    """Put back what :func:`capture_torch` returned."""
    torch.set_rng_state(state["torch"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


def restore(state: dict[str, Any], device: torch.device) -> None:
    """Put back what :func:`capture` returned."""
    restore_torch(state, device)
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    words32 = keys.cpu().numpy().astype(np.uint32)
    np.random.set_state((kind, words32, position, has_gauss, cached))  # noqa: NPY002


def seed_everything(seed: int) -> None:
    """Seed torch, NumPy's global generator and Python's."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch, NumPy and Python inside the block; their states outside stay as they were.

    Example:
        >>> with seeded(0, torch.device("cpu")):
        ...     a = torch.rand(())
        >>> with seeded(0, torch.device("cpu")):
        ...     b = torch.rand(())
        >>> bool(a == b)
        True
    """
    before = capture(device)
    torch.default_generator.manual_seed(seed)  # of no other device
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        restore(before, device)


def stream(seed: int, name: str, device: torch.device) -> AbstractContextManager[None]:
    """The stream of one purpose: :func:`seeded` by the seed and the purpose's name.

    Every function of the library that draws has a name of its own, so that functions that hand
    one seed to each other never draw the same numbers.

    Example:
        >>> with stream(0, "momenta", torch.device("cpu")):
        ...     a = torch.rand(())
        >>> with stream(0, "noise", torch.device("cpu")):
        ...     b = torch.rand(())
        >>> bool(a == b)
        False
    """
    return seeded(stream_seed(seed, name), device)
