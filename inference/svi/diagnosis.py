"""Which site of a program made its loss NaN or infinite."""

from pathlib import Path

import torch
from pyro import poutine
from pyro.infer import ELBO

from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.arguments import Arguments
from aevb.inference.programs.program import ProgramPair

__all__ = ["NonFiniteLossError", "find_non_finite", "non_finite_parameter"]


class NonFiniteLossError(ArithmeticError):
    """Training met a NaN or infinite loss and stopped.

    Attributes:
        step: Number of the step, counted from 1.
        site: The parameter or sample site where the first such value stood.
        checkpoint: The last good checkpoint, or None if the run keeps none.
    """

    def __init__(self, step: int, site: str, checkpoint: Path | None) -> None:
        self.step = step
        self.site = site
        self.checkpoint = checkpoint
        saved = f"last good checkpoint: {checkpoint}" if checkpoint else "no checkpoint was kept"
        super().__init__(f"loss is not finite at step {step}: {site}; {saved}")


def find_non_finite(program: ProgramPair, estimator: ELBO, arguments: Arguments) -> str:
    """Name the first parameter or site that is not finite.

    The caller puts the random state back to that of the failing step, so that the same draws are
    made again.

    Args:
        program: Model and guide.
        estimator: Pyro loss of the failing step, which knows how many draws it makes and how.
        arguments: Of the failing step.

    Returns:
        Words such as ``"site 'x' of the model has log-probability nan"``.
    """
    parameter = non_finite_parameter(program)
    if parameter:
        return parameter
    with torch.no_grad(), argument_checks(False):
        for model, guide in estimator._get_traces(
            program.model, program.guide, arguments.args, dict(arguments.kwargs)
        ):
            found = _first_site(guide, "guide") or _first_site(model, "model")
            if found:
                return found
    return "no single site: every one is finite by itself"


def non_finite_parameter(program: ProgramPair) -> str | None:
    """Words for the first parameter with a NaN or infinite entry, or None."""
    named = getattr(program, "named_parameters", None)
    for name, parameter in named() if named else ():
        if not bool(torch.isfinite(parameter).all()):
            return f"parameter {name!r} is not finite"
    return None


def _first_site(trace: poutine.Trace, program: str) -> str | None:
    trace.compute_log_prob()
    for name, site in trace.nodes.items():
        if site["type"] != "sample":
            continue
        value = site["value"]
        if isinstance(value, torch.Tensor) and not bool(torch.isfinite(value).all()):
            return f"site {name!r} of the {program} has a value that is not finite"
        if not bool(torch.isfinite(site["log_prob_sum"])):
            return f"site {name!r} of the {program} has log-probability {site['log_prob_sum']:g}"
    return None
