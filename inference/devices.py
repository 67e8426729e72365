"""Where tensors live."""

import torch

__all__ = ["pick_device"]


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """The device named, or for ``"auto"`` CUDA where there is one and else the CPU.

    Raises:
        ValueError: If the name is unknown or the device is not there.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device: expected auto, cpu or cuda; got {device!r}") from error
    if target.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: got 'cuda', but this machine has no usable CUDA device; use cpu")
    return target
