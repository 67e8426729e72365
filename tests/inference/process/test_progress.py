"""Progress bars: in notebooks, where asked for, and nowhere else."""

import sys
import types
from typing import Any

import pytest
import torch

from aevb import inference, models
from aevb.inference.process import progress


class Notebook:
    """What IPython gives in a kernel of Jupyter's."""

    config = {"IPKernelApp": {}}


@pytest.fixture(name="notebook")
def fixture_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("IPython")
    module.get_ipython = Notebook
    monkeypatch.setitem(sys.modules, "IPython", module)


def work(**settings: Any) -> None:
    fa, x = models.FactorAnalysis((5,), 2), torch.zeros(3, 5)
    inference.hmc(fa.model, x, num_chains=2, num_samples=5, num_warmup=5, **settings)
    inference.importance_evidence(fa.model, fa.guide, x, num_samples=5, **settings)
    inference.ais_evidence(fa.model, x, num_temperatures=3, num_chains=2, **settings)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.progress_bar, "__defaults__", (0, None, None, 0.0))


@pytest.mark.filterwarnings("ignore:HMC")
@pytest.mark.usefixtures("notebook")
def test_bars_are_shown_in_notebooks(capfd: pytest.CaptureFixture[str]) -> None:
    assert progress.in_notebook()
    work()
    shown = "".join(capfd.readouterr())
    for what in ("HMC", "importance sampling", "annealing"):
        assert what in shown


@pytest.mark.filterwarnings("ignore:HMC")
@pytest.mark.usefixtures("notebook")
def test_bars_are_not_shown_where_they_are_not_wanted(capfd: pytest.CaptureFixture[str]) -> None:
    work(progress=False)
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.filterwarnings("ignore:HMC")
def test_bars_are_shown_elsewhere_only_if_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    work()
    assert "".join(capfd.readouterr()) == ""
    work(progress=True)
    assert "HMC" in capfd.readouterr().err


def test_training_shows_a_bar_in_notebooks(
    capfd: pytest.CaptureFixture[str], notebook: None
) -> None:
    del notebook
    fa, x = models.FactorAnalysis((5,), 2), torch.zeros(30, 5)
    inference.fit(fa, x, epochs=2, batch_size=10, progress=False)
    assert "".join(capfd.readouterr()) == ""
    inference.fit(fa, x, epochs=2, batch_size=10)
    assert "6/6" in "".join(capfd.readouterr())


def test_bars_change_no_draw() -> None:
    fa, x = models.FactorAnalysis((5,), 2), torch.zeros(3, 5)
    settings: dict[str, Any] = {"num_chains": 2, "num_samples": 30, "num_warmup": 30}
    first, second = (
        inference.hmc(fa.model, x, progress=show, **settings).unconstrained
        for show in (True, False)
    )
    assert torch.equal(first, second)
