"""NumPyro's SVI, with each update jitted or with the whole loop in one program.

Both follow NumPyro's own ``examples/vae.py``: the batch is taken from the data set inside the
jitted function, and the loop is ``lax.fori_loop``. The single update also gives its old state
away, which a user has to ask for and which saves copying it.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.infer
from jax import lax

from benchmarks.steps.competitors import Run
from benchmarks.steps.numpyro_programs import programs
from benchmarks.steps.workloads import LEARNING_RATE, Workload, make_data, make_order

__all__ = ["build", "load"]


class Loaded(NamedTuple):
    """Data set and minibatch indices, on the device.

    Attributes:
        data: The data set.
        order: Indices of each step, ``(steps, batch)``; None for programs that take all data.
        rows: The same, step by step.
    """

    data: tuple[jax.Array, ...]
    order: jax.Array | None
    rows: list[jax.Array] | None


# PyTorch multiplies in float32 unless told otherwise; XLA's default on a GPU is TF32.
jax.config.update("jax_default_matmul_precision", "highest")


def load(workload: Workload, device: str) -> Loaded:
    """Data and order as arrays on JAX's default device, which its environment has settled."""
    del device
    data = tuple(jnp.asarray(part) for part in make_data(workload))
    order = jnp.asarray(make_order(workload).astype("int32")) if workload.networks else None
    rows = None if order is None else list(order)
    return jax.block_until_ready(Loaded(data, order, rows))


def build(workload: Workload, variant: str, loaded: Loaded) -> Run:
    """``variant`` is ``"update"`` or ``"loop"``."""
    model, guide = programs(workload)
    optimizer = numpyro.optim.Adam(LEARNING_RATE)
    svi = numpyro.infer.SVI(model, guide, optimizer, numpyro.infer.Trace_ELBO())
    data, order, batches = loaded

    def arguments(data: tuple[jax.Array, ...], rows: jax.Array | None) -> tuple[jax.Array, ...]:
        return data if rows is None else tuple(jnp.take(part, rows, axis=0) for part in data)

    state = svi.init(jax.random.PRNGKey(0), *arguments(data, None if order is None else order[0]))
    if variant == "loop":
        return _loop(svi, state, data, order, arguments)

    @partial(jax.jit, donate_argnums=0)
    def update(state: Any, data: tuple[jax.Array, ...], rows: jax.Array | None) -> Any:
        return svi.update(state, *arguments(data, rows))

    state = jax.tree.map(jnp.copy, state)  # the programs keep their initial weights

    def run(first: int, count: int) -> float:
        nonlocal state
        losses = []
        for number in range(first, first + count):
            rows = None if batches is None else batches[number % len(batches)]
            state, loss = update(state, data, rows)
            losses.append(loss)
        jax.block_until_ready(state)
        return sum(map(float, jax.device_get(losses))) / max(count, 1)

    return run


def _loop(svi: Any, state: Any, data: Any, order: jax.Array | None, arguments: Any) -> Run:
    @jax.jit
    def steps(state: Any, first: int, count: int, data: Any, order: jax.Array | None) -> Any:
        def body(number: jax.Array, carry: Any) -> Any:
            state, total = carry
            rows = None
            if order is not None:
                rows = lax.dynamic_index_in_dim(order, number % len(order), keepdims=False)
            state, loss = svi.update(state, *arguments(data, rows))
            return state, total + loss

        return lax.fori_loop(first, first + count, body, (state, 0.0))

    def run(first: int, count: int) -> float:
        nonlocal state
        state, total = jax.block_until_ready(steps(state, first, count, data, order))
        return float(total) / max(count, 1)

    return run
