"""What every test gets: a seed, clean Pyro state, and a watch on process-wide switches."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyro
import pytest
import torch

# The tensors of the tests are small: a second thread costs more than it brings, and far more
# when another process competes for the core.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start


@pytest.fixture(autouse=True)
def _clean_process() -> Iterator[None]:
    """Seed the test, and fail it if it leaves a process-wide switch changed."""
    torch.manual_seed(0)
    pyro.clear_param_store()
    before = _switches()
    yield
    after = _switches()
    torch.set_default_dtype(before["default dtype"])
    torch.distributions.Distribution.set_default_validate_args(before["validate_args"])
    leaked = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    assert not leaked, f"the test leaked process-wide switches (before, after): {leaked}"


@pytest.fixture(autouse=True, scope="session")
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Note the runs of the tests in a folder of their own, and not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AEVB_STATE", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def data_folder() -> Path:
    """The folder with MNIST and the Frey faces, or a skip."""
    folder = os.environ.get("AEVB_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data: set AEVB_DATA to a folder with MNIST/raw and FreyFace")
    return Path(folder).resolve()


def _switches() -> dict[str, object]:
    return {
        "default dtype": torch.get_default_dtype(),
        "validate_args": torch.distributions.Distribution._validate_args,
        "param store": tuple(pyro.get_param_store().keys()),
        "grad": torch.is_grad_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
    }
