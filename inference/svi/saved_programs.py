"""Trained programs on disk: their weights in one file, for the same programs elsewhere."""

from importlib import metadata
from pathlib import Path
from typing import TypeVar

from aevb.inference.process.devices import device_of
from aevb.inference.programs.arguments import Arguments
from aevb.inference.programs.program import Program, name_of, prepare
from aevb.inference.programs.protocol import ProgramPair, as_module
from aevb.inference.svi.checkpoint import load_checkpoint, save_checkpoint

__all__ = ["load", "save"]

_FORMAT = "aevb-program-1"

P = TypeVar("P", bound=ProgramPair)


def save(program: ProgramPair, path: str | Path) -> None:
    """Write the parameters and buffers of a program: safetensors with JSON, and no pickle.

    The programs themselves are Python and are not in the file. A crash leaves the old file or the
    new one.

    Args:
        program: One of our models, or ``Program(model, guide)``, of which at least one call has
            created what is to be saved.
        path: File to create or replace, as ``"weights.safetensors"``.

    Raises:
        ValueError: If the program is none, has no parameters yet, or was loaded and not called.
        OSError: If the file cannot be written.

    Example:
        >>> import tempfile, torch
        >>> from aevb.models import FactorAnalysis
        >>> path = Path(tempfile.mkdtemp()) / "factors.safetensors"
        >>> trained, fresh = FactorAnalysis((5,), 2), FactorAnalysis((5,), 2)
        >>> save(trained, path)
        >>> bool(torch.equal(load(fresh, path).decoder.weight, trained.decoder.weight))
        True
    """
    module = as_module(program)
    if isinstance(module, Program) and module.is_awaiting:
        raise ValueError("program: was loaded and not called since; call model and guide once")
    weights = module.state_dict()
    if not weights:
        raise ValueError(
            "program: has no parameters yet, which the first call creates; train it or call it"
        )
    record = {"program": name_of(module), "aevb": metadata.version("aevb")}
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder to save a program in")
    save_checkpoint(path, {"format": _FORMAT, **record, "weights": weights})


def load(program: P, path: str | Path, *args: object) -> P:
    """Read what :func:`save` wrote into a program, which may be fresh.

    Parameters that a program creates at its first call, as those of Pyro's autoguides, get their
    values at that call, or at once if ``args`` are given.

    Args:
        program: Made as the saved one was; it is changed in place, stays where it is (CPU or GPU)
            and is left in evaluation mode.
        path: The file.
        args: Arguments of model and guide.

    Returns:
        The program.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is truncated, corrupt, no saved program or that of another program.

    Example:
        >>> import pyro, tempfile, torch
        >>> from pyro.distributions import Normal
        >>> from pyro.infer.autoguide import AutoNormal
        >>> def model(x):
        ...     mean = pyro.sample("mean", Normal(0.0, 10.0))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("x", Normal(mean, 1.0), obs=x)
        >>> x, path = torch.zeros(5), Path(tempfile.mkdtemp()) / "mean.safetensors"
        >>> trained = Program(model, AutoNormal(model, init_scale=0.5))
        >>> _ = trained.guide(x)
        >>> save(trained, path)
        >>> loaded = load(Program(model, AutoNormal(model)), path, x)
        >>> loaded.guide_program.median()["mean"].shape, loaded.guide_program.scales.mean.item()
        (torch.Size([]), 0.5)
    """
    module, path = as_module(program), Path(path)
    state = load_checkpoint(path, device_of(module))
    weights = state.get("weights") if isinstance(state, dict) else None
    if not isinstance(weights, dict) or state.get("format") != _FORMAT:
        raise ValueError(
            f"{path}: is no saved program, but maybe the checkpoint of a run; expected a file of "
            "aevb.inference.save"
        )
    try:
        module.load_state_dict(weights)
        if args:
            prepare(module, Arguments(args, {}))
    except RuntimeError as error:
        raise ValueError(
            f"{path}: holds the weights of another program, a {state.get('program')}: "
            f"{' '.join(str(error).split())}"
        ) from error
    module.eval()
    return program
