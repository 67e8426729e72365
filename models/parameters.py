"""How a module's parameters become visible to Pyro without the global parameter store."""

import weakref
from typing import Any

from pyro.poutine.runtime import am_i_wrapped, effectful
from torch import Tensor, nn
from torch.distributions import constraints

__all__ = ["declare"]


def declare(name: str, module: nn.Module) -> None:
    r"""Announce the parameters of ``module`` to the enclosing Pyro handlers, as ``param`` sites.

    ``pyro.module`` would copy them into the process-wide parameter store, where two models of the
    same name silently share weights. Here each site carries the module's own parameter, so that
    bare :class:`pyro.infer.SVI` finds it, and nothing outside the module is written or read.
    Outside any handler the call does nothing.

    Args:
        name: Prefix of the site names, as in ``"decoder"``.
        module: Owner of the parameters; those with ``requires_grad=False`` are passed over.

    Example:
        >>> import pyro
        >>> from torch import nn
        >>> trace = pyro.poutine.trace(lambda: declare("f", nn.Linear(2, 1))).get_trace()
        >>> sorted(trace.param_nodes)
        ['f.bias', 'f.weight']
    """
    if not am_i_wrapped():
        return
    for key, parameter in module.named_parameters():
        if parameter.requires_grad:
            _announce(f"{name}.{key}", parameter)


def _announce(name: str, parameter: nn.Parameter) -> None:
    def own_value(*_: Any, **__: Any) -> Tensor:
        # Pyro asks the site's value for `.unconstrained()`. The weak reference hangs on an alias,
        # because on the parameter itself it would make the module impossible to pickle.
        value = parameter.view_as(parameter)
        value.unconstrained = weakref.ref(parameter)  # type: ignore[attr-defined]
        return value

    effectful(own_value, type="param")(
        name, parameter, name=name, constraint=constraints.real, event_dim=None
    )
