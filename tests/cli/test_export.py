"""`aevb export`: graphs that say what the model says, and what is left out with the reason."""

import hashlib
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aevb import data, models
from aevb.cli.export import export
from aevb.cli.runs import SavedRun

module: Any = importlib.import_module("aevb.cli.export")

NAMES = ("encoder", "decoder", "log_weights")


def saved_run(model: Any, folder: Path, values: Tensor | str = "digits") -> SavedRun:
    dataset = data.load(values, binarize="dynamic" if values == "digits" else "none")
    return SavedRun(folder, model.eval(), dataset, 2, torch.device("cpu"), 0)


def test_graphs_of_a_run_are_the_model(run: Path, aevb: Any) -> None:
    result = json.loads(aevb("export", run, "--format", "torch", "--json").out)
    folder = run / "export"
    assert result["files"] == [f"{name}.pt2" for name in NAMES]
    assert result["largest_error"] < 1e-4
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in NAMES:
        graph = manifest["graphs"][name]
        content = (folder / f"{name}.pt2").read_bytes()
        assert graph["files"]["pt2"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert manifest["graphs"]["log_weights"]["inputs"] == {"x": ["batch", 8, 8], "z": ["batch", 2]}
    assert manifest["graphs"]["encoder"]["outputs"] == ["loc", "scale"]
    assert manifest["tolerance"] == {"absolute": 1e-4, "relative": 1e-4}


@pytest.mark.slow
def test_graphs_need_neither_pyro_nor_this_package(run: Path, aevb: Any) -> None:
    assert aevb("export", run, "--format", "torch", "--out", "graphs").code == 0
    script = (
        "import sys, torch\n"
        "load = lambda name: torch.export.load(f'graphs/{name}.pt2').module()\n"
        "x = torch.zeros(5, 8, 8)\n"
        "loc, scale = load('encoder')(x)\n"
        "assert load('decoder')(loc).shape == (5, 8, 8)\n"
        "assert load('log_weights')(x, loc).shape == (5,)\n"
        "assert not {'pyro', 'aevb'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def own_weights(model: Any, x: Tensor, z: Tensor) -> Tensor:
    found: Tensor = (
        model.prior().log_prob(z) + model.decoder(z).log_prob(x) - model.encoder(x).log_prob(z)
    )
    return found


def test_weights_give_the_evidence(tmp_path: Path) -> None:
    model = models.VAE((8, 8), 3, [8], posterior=models.RankOneNormal())
    saved = saved_run(model, tmp_path)
    result = export(saved, tmp_path / "out", "torch")
    assert "left_out" not in result
    graph = torch.export.load(tmp_path / "out" / "log_weights.pt2").module()
    x = saved.values("test", 11)
    with torch.no_grad():
        z = model.guide(x)
        assert torch.allclose(graph(x, z), own_weights(model, x, z), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: models.VAE((8, 8), 3, [8], posterior=models.FullNormal()),
        lambda: models.VAE((8, 8), 3, [8], posterior=models.LowRankNormal()),
        lambda: models.VAE((8, 8), 3, [8], posterior=models.InverseAutoregressiveFlow()),
        lambda: models.VAE((8, 8), 3, [8], prior=models.VampPrior(5)),
        lambda: models.VAE((8, 8), 3, [8], prior=models.MixtureOfGaussians()),
        lambda: models.VAE((8, 8), 3, [8], prior=models.Dirichlet()),
        lambda: models.VAE((8, 8), 3, [8], weights=models.LatentWeights()),
        lambda: models.VAE((8, 8), 3, network=models.Conv([4, 8])),
        lambda: models.DLGM((8, 8), [3, 2], [8]),
        lambda: models.HierarchicalVAE((8, 8), [3, 2], [[8], [8]]),
    ],
)
def test_every_model_of_pixels_is_exported_whole(make: Any, tmp_path: Path) -> None:
    result = export(saved_run(make(), tmp_path), tmp_path / "out", "torch")
    assert "left_out" not in result


@pytest.mark.slow
def test_models_of_numbers_and_counts_are_exported_whole(tmp_path: Path) -> None:
    numbers, counts = torch.randn(60, 5), torch.randint(9, (60, 5))
    for model, values in (
        (models.FactorAnalysis((5,), 2), numbers),
        (models.VAE((5,), 2, [8], likelihood=models.Normal()).double(), numbers.double()),
        (models.VAE((5,), 2, [8], likelihood=models.NegativeBinomial()), counts),
    ):
        result = export(saved_run(model, tmp_path, values), tmp_path / "out", "torch")
        assert "left_out" not in result, model


@pytest.mark.slow
def test_onnx_is_the_model_too(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = models.VAE((8, 8), 2, [8])
    saved = saved_run(model, tmp_path)
    result = export(saved, tmp_path / "out", "onnx")
    assert result["files"] == [f"{name}.onnx" for name in NAMES]
    x = saved.values("test", 11)
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "log_weights.onnx"))
    with torch.no_grad():
        z = model.guide(x)
        (found,) = session.run(None, {"x": x.numpy(), "z": z.numpy()})
        assert torch.allclose(torch.from_numpy(found), own_weights(model, x, z), atol=1e-4)


def test_what_cannot_be_exported_is_left_out_with_the_reason(tmp_path: Path) -> None:
    model = models.VAE((8, 8), 2, [8], posterior=models.Delta())
    result = export(saved_run(model, tmp_path), tmp_path / "out", "torch")
    assert "single point" in result["left_out"]["log_weights.pt2"]
    assert not (tmp_path / "out" / "log_weights.pt2").exists()


def test_a_graph_that_differs_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: a decoder whose graph was made of other weights."""
    saved = saved_run(models.VAE((8, 8), 2, [8]), tmp_path)
    other = models.VAE((8, 8), 2, [8]).eval()

    def traced(part: Any, example: Any) -> Any:
        if isinstance(part, module.Decoder):
            part = module.Decoder(other)
        return honest(part, example)

    honest = module._traced
    monkeypatch.setattr(module, "_traced", traced)
    result = export(saved, tmp_path / "out", "torch")
    assert "differs from the model by" in result["left_out"]["decoder.pt2"]
    assert not (tmp_path / "out" / "decoder.pt2").exists()
    assert result["files"] == ["encoder.pt2", "log_weights.pt2"]


def test_the_extra_is_named_where_it_is_missing(
    run: Path, aevb: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    result = aevb("export", run, "--format", "onnx")
    assert result.code == 2
    assert "pip install 'aevb[onnx]'" in result.err
