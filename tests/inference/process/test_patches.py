"""What is replaced inside torch and Pyro is still there, and replacing it has its effect."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

import pyro.infer
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.ops.einsum import torch_log
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from aevb.inference.process import patches
from aevb.inference.process.switches import argument_checks

PLACES: list[tuple[Callable[[], AbstractContextManager[None]], Any, str]] = [
    (patches.losses_in_tensors, pyro.infer.trace_elbo, "torch_item"),
    (patches.losses_in_tensors, pyro.infer.trace_mean_field_elbo, "torch_item"),
    (patches.losses_in_tensors, pyro.infer.tracegraph_elbo, "torch_item"),
    (patches.losses_in_tensors, pyro.util, "torch_isnan"),
    (patches.losses_in_tensors, pyro.infer.util.Dice, "compute_expectation"),
    (patches.sums_of_operations, torch_log, "safe_log"),
    (patches.samples_unchecked, torch.distributions.Distribution, "_validate_sample"),
    (patches.updates_in_tensors, torch.compiler, "is_compiling"),
]
NAN, OUTSIDE = torch.tensor(float("nan")), torch.tensor(0.3)
COIN = dist.Bernoulli(torch.tensor(0.5), validate_args=True)


def item_of_loss() -> Any:
    return pyro.infer.trace_elbo.torch_item(torch.tensor(2.0))


def capturable_update() -> Any:
    weight = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.Adam([weight], capturable=True, foreach=False)
    weight.grad = torch.ones(2)
    optimizer.step()
    return weight.detach()


@pytest.mark.parametrize(("patch", "owner", "name"), PLACES)
def test_what_is_replaced_is_put_back(
    patch: Callable[[], AbstractContextManager[None]], owner: Any, name: str
) -> None:
    original = vars(owner)[name]
    with patch():
        assert vars(owner)[name] is not original
    assert vars(owner)[name] is original
    with suppress(KeyError), patch():
        raise KeyError
    assert vars(owner)[name] is original


def test_every_loss_of_pyro_that_reads_a_scalar_is_reached() -> None:
    original = pyro.infer.util.torch_item
    with patches.losses_in_tensors():
        left = [
            name
            for name, module in vars(pyro.infer).items()
            if getattr(module, "torch_item", None) is original
        ]
    assert not left


@pytest.mark.parametrize("loss", [Trace_ELBO(), TraceMeanField_ELBO()])
def test_loss_has_no_scalar_in_a_graph(loss: Any) -> None:
    def model(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("z", dist.Normal(x.detach().requires_grad_(), 1.0))

    def step(x: Tensor) -> Tensor:
        result: Tensor = loss.differentiable_loss(model, guide, x)
        return result

    with argument_checks(False):
        with pytest.raises(RuntimeError, match="_local_scalar_dense"):
            make_fx(step)(torch.tensor(0.5))
        with patches.losses_in_tensors():
            make_fx(step)(torch.tensor(0.5))


def test_nan_is_not_looked_for() -> None:
    with pytest.warns(UserWarning, match="Encountered NaN"):
        pyro.infer.trace_elbo.warn_if_nan(NAN, "loss")
    with patches.losses_in_tensors():
        pyro.infer.trace_elbo.warn_if_nan(NAN, "loss")


def test_samples_are_not_looked_at() -> None:
    with pytest.raises(ValueError, match="support"):
        COIN.log_prob(OUTSIDE)
    with patches.samples_unchecked():
        assert bool(COIN.log_prob(OUTSIDE).isfinite())


def test_optimizer_updates_without_scalars_on_a_cpu() -> None:
    with pytest.raises(AssertionError, match="capturable=True"):
        capturable_update()
    with patches.updates_in_tensors():
        torch.testing.assert_close(capturable_update(), torch.full((2,), 0.999))


def test_other_threads_keep_the_original() -> None:
    found: list[Any] = []
    with patches.losses_in_tensors(), patches.updates_in_tensors():
        other = threading.Thread(
            target=lambda: found.extend([item_of_loss(), torch.compiler.is_compiling()])
        )
        other.start()
        other.join()
        assert isinstance(item_of_loss(), Tensor)
        assert torch.compiler.is_compiling()
    assert found == [2.0, False]


def test_threads_that_replace_at_once_leave_the_original() -> None:
    original = torch.compiler.is_compiling
    results: list[bool] = []

    def work() -> None:
        for _ in range(200):
            with patches.updates_in_tensors():
                results.append(torch.compiler.is_compiling())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 800
    assert torch.compiler.is_compiling is original
