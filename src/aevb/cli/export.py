"""The networks of a run as graphs that need neither this package nor Pyro."""

import hashlib
import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from aevb.cli.files import refuse_read_only, replace_whole, write_json
from aevb.cli.graphs import Decoder, Encoder, LogWeights
from aevb.cli.runs import SavedRun
from aevb.data import Split
from aevb.inference.process.randomness import stream
from aevb.inference.process.switches import argument_checks

__all__ = ["export"]

MANIFEST = "manifest.json"

# Largest difference from the model, absolute and relative, beyond which nothing is written.
_TOLERANCES = {torch.float32: (1e-4, 1e-4), torch.float64: (1e-9, 1e-9)}
_TRACED_WITH = 2  # datapoints, and those that graphs are checked with
_CHECKED_WITH = (1, 3, 7)


def export(
    saved: SavedRun, out: Path | None = None, format: Literal["all", "torch", "onnx"] = "all"
) -> dict[str, Any]:
    """Export encoder, decoder and log-weights of a run, checked against the model.

    Graphs take any number of datapoints: encoder.pt2 from x to the parameters of q(z|x),
    decoder.pt2 from z to E[x|z], log_weights.pt2 from x and z to log p(x, z) − log q(z|x), for
    torch.export.load; the same as .onnx, and manifest.json with inputs, outputs and errors.

    Args:
        saved: The run.
        out: Folder to write; by default export in the run.
        format: torch, onnx (needs the extra aevb[onnx]), or all that are installed.

    Returns:
        The files written, the largest difference from the model, and what was left out and why.
    """
    has_onnx = all(find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
    if format == "onnx" and not has_onnx:
        raise ValueError("format: onnx needs packages of an extra: pip install 'aevb[onnx]'")
    out = saved.folder / "export" if out is None else out
    kinds = {"pt2": format != "onnx", "onnx": format != "torch" and has_onnx}
    model = saved.at_means.to("cpu").eval().requires_grad_(False)
    rows = _rows(saved.dataset.train)
    out.mkdir(parents=True, exist_ok=True)
    refuse_read_only(out)
    graphs: dict[str, Any] = {}
    with torch.no_grad(), argument_checks(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # exporters warn of themselves
        with stream(saved.seed, "export", torch.device("cpu")):
            drawn: Any = model.guide(rows)
        latents = drawn if isinstance(drawn, tuple) else (drawn,)
        encoder, seen = Encoder(model, rows), latents[: 1 if _is_hierarchy(model) else None]
        wanted: dict[str, tuple[nn.Module, dict[str, Tensor], list[str]]] = {
            "encoder": (encoder, {"x": rows}, encoder.names),
            "decoder": (Decoder(model), _named(seen), ["mean"]),
            "log_weights": (LogWeights(model), {"x": rows, **_named(latents)}, ["log_weight"]),
        }
        for name, (module, inputs, outputs) in wanted.items():
            graphs[name] = {
                "inputs": {key: ["batch", *value.shape[1:]] for key, value in inputs.items()},
                "outputs": outputs,
                "files": {},
                "left_out": {},
            }
            for kind in [kind for kind, is_wanted in kinds.items() if is_wanted]:
                path = out / f"{name}.{kind}"
                path.unlink(missing_ok=True)  # of an earlier export
                _write(module, inputs, outputs, path, graphs[name])
    if not has_onnx and format == "all":
        for graph in graphs.values():
            graph["left_out"]["onnx"] = "not installed: pip install 'aevb[onnx]'"
    absolute, relative = _TOLERANCES[rows.dtype]
    write_json(
        out / MANIFEST,
        {
            "format": "aevb-export-1",
            "model": repr(model),
            "run": str(saved.folder),
            "epoch": saved.epoch,
            **saved.weights,
            "data": saved.dataset.record(),
            "dtype": str(rows.dtype).removeprefix("torch."),
            "posterior": "the encoder's parameters are of what is transformed to z"
            if encoder.transforms
            else "the encoder's parameters are of z",
            "tolerance": {"absolute": absolute, "relative": relative},
            "checked_with": list(_CHECKED_WITH),
            "graphs": graphs,
            "versions": {name: metadata.version(name) for name in ("aevb", "torch", "pyro-ppl")},
        },
    )
    left_out = {
        f"{name}.{kind}": why
        for name, graph in graphs.items()
        for kind, why in graph["left_out"].items()
    }
    files = [found for graph in graphs.values() for found in graph["files"].values()]
    return {
        "run": str(saved.folder),
        "folder": str(out),
        "files": [file["name"] for file in files],
        "largest_error": max((file["largest_error"] for file in files), default=None),
        **({"left_out": left_out} if left_out else {}),
        "manifest": str(out / MANIFEST),
    }


def _write(
    module: nn.Module,
    inputs: dict[str, Tensor],
    outputs: list[str],
    path: Path,
    graph: dict[str, Any],
) -> None:
    """One file, or the reason why there is none."""
    kind = path.suffix.lstrip(".")
    traced_with = tuple(value[:_TRACED_WITH].clone() for value in inputs.values())
    try:
        run: Callable[..., Any]
        with redirect_stdout(io.StringIO()):  # exporters talk
            exported = _traced(module, traced_with)
            if kind == "pt2":
                replace_whole(path, lambda partial: torch.export.save(exported, _file(partial)))
                run = torch.export.load(path).module()
            else:
                program = torch.onnx.export(
                    exported, input_names=list(inputs), output_names=outputs, dynamo=True
                )
                replace_whole(path, lambda partial: program.save(str(partial)))  # type: ignore[union-attr]
                run = _onnx(path)
        error = _largest_error(module, run, inputs)
    except Exception as problem:
        # whatever it is, exporters raise it, and a file that is not checked is not left
        path.unlink(missing_ok=True)
        graph["left_out"][kind] = _reason(problem)
        return
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    graph["files"][kind] = {"name": path.name, "largest_error": error, "sha256": digest}


def _traced(module: nn.Module, example: tuple[Tensor, ...]) -> Any:
    batch = torch.export.Dim("batch")
    # one name for the number of rows of all inputs; those of *args come as a tuple
    rows = tuple({0: batch} for _ in example)
    shapes: Any = {
        Encoder: rows, Decoder: (rows,), LogWeights: (rows[0], rows[1:]),
    }[type(module)]  # fmt: skip
    return torch.export.export(module, example, dynamic_shapes=shapes, strict=False)


def _rows(split: Split) -> Tensor:
    """As many datapoints as are wanted, over again where there are fewer."""
    wanted = sum(_CHECKED_WITH) + _TRACED_WITH
    found = split.evaluation(min(wanted, len(split)))
    return found[torch.arange(wanted) % len(found)]


def _reason(problem: BaseException) -> str:
    """What is at the root of an exporter's error, in a line."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    return f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}"


def _file(path: Path) -> Any:
    return path.open("wb")


def _onnx(path: Path) -> Callable[..., Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        found = session.run(
            None, dict(zip(names, (value.numpy() for value in values), strict=True))
        )
        return tuple(map(torch.from_numpy, found))

    return run


def _largest_error(module: nn.Module, run: Callable[..., Any], inputs: dict[str, Tensor]) -> float:
    """Over batches of several sizes.

    Raises:
        ValueError: If one is beyond the tolerance, or not finite where the model is.
    """
    largest, first = 0.0, _TRACED_WITH
    for size in _CHECKED_WITH:
        values = [value[first : first + size] for value in inputs.values()]
        first += size
        for own, other in zip(_tuple(module(*values)), _tuple(run(*values)), strict=True):
            absolute, relative = _TOLERANCES[own.dtype]
            if not torch.allclose(own, other, rtol=relative, atol=absolute, equal_nan=True):
                worst = float((own - other).abs().max())
                raise ValueError(f"differs from the model by {worst:.3g} on {size} datapoints")
            largest = max(largest, float(torch.nan_to_num(own - other).abs().max()))
    return largest


def _tuple(value: Any) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def _named(latents: tuple[Tensor, ...]) -> dict[str, Tensor]:
    if len(latents) == 1:
        return {"z": latents[0]}
    return {f"z{layer}": value for layer, value in enumerate(latents, start=1)}


def _is_hierarchy(model: nn.Module) -> bool:
    return type(model).__name__ == "HierarchicalVAE"
