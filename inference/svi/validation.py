"""The ELBO of held-out data during training."""

from typing import Any

import torch
from pyro import poutine
from pyro.infer import Trace_ELBO

from aevb.inference.process import randomness
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.arguments import num_rows
from aevb.inference.programs.enumeration import is_enumerable
from aevb.inference.programs.guide_checks import is_factor, sites
from aevb.inference.programs.layouts import plate_nesting
from aevb.inference.programs.program import data_plate_size, prepare
from aevb.inference.programs.protocol import ProgramPair, evaluation_mode, stands_for
from aevb.inference.svi.enumeration import EnumerationEstimator, refuse_other_sums
from aevb.inference.svi.feeds import Data, evaluation_batches
from aevb.inference.svi.subsampling import Minibatch

__all__ = ["mean_elbo"]


def mean_elbo(
    program: ProgramPair,
    data: Data,
    *,
    batch_size: int | None = 1000,
    seed: int = 0,
    device: torch.device | None = None,
    minibatch: Minibatch = Minibatch(),
    is_checked: bool = False,
) -> float:
    """The ELBO of the evaluation copy of ``data``, with one draw of the latents per datapoint.

    Discrete latents that the guide leaves out, or marks as enumerated, are summed out. A
    ``pyro.factor`` of the guide, as the loss of a classifier, is no part of the ELBO.

    Args:
        program: Model and guide.
        data: As for :func:`fit`.
        batch_size: Datapoints at once; None for programs that take all data together.
        seed: Of the draws; torch's global state outside is left as it was.
        device: Where the program is; by default the CPU.
        minibatch: How training counts the datapoints of one.
        is_checked: Whether training has found the program to be the same summed out.

    Raises:
        ValueError: If the program is another where all values of its discrete latents are there
            at once, as one that sums over a plate of them.

    Returns:
        Nats per datapoint, for programs with a ``"data"`` plate or minibatches; else nats.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> fa, x = FactorAnalysis((5,), 2).double(), torch.zeros(3, 5).double()
        >>> abs(mean_elbo(fa, x) - fa.log_evidence(x).mean().item()) < 1e-9  # its guide is exact
        True
    """
    target = device or torch.device("cpu")
    estimator: Any = None
    guide = poutine.block(program.guide, hide_fn=is_factor)
    total, rows = 0.0, 0
    plate: tuple[int, int] | None = None
    with (
        randomness.stream(seed, "validation", target),
        torch.no_grad(),
        argument_checks(False),
        evaluation_mode(program),
        minibatch.counted(program),
    ):
        for arguments in evaluation_batches(data, batch_size, target):
            if plate is None:
                traces = prepare(program, arguments)
                plate = data_plate_size(traces[0]) or (1, 1)
                estimator = _estimator(*traces)
                if isinstance(estimator, EnumerationEstimator) and not is_checked:
                    refuse_other_sums(program, arguments, estimator, target)
            bound = -estimator.loss(program.model, guide, *arguments.args, **arguments.kwargs)
            size = num_rows(arguments)
            # a subsampled plate scales the bound to all the datapoints that it stands for
            scaled = batch_size is None or plate[0] != plate[1]
            counted = plate[1] if scaled else size
            number = minibatch.total or stands_for(program) or counted
            total += bound / number * size
            rows += size
    return total / rows


def _estimator(model_trace: poutine.Trace, guide_trace: poutine.Trace) -> Any:
    """What sums out discrete latents where there are some to be."""
    drawn = dict(sites(guide_trace))
    left_out = any(is_enumerable(s) for name, s in sites(model_trace) if name not in drawn)
    marked = any(is_enumerable(s) and s["infer"].get("enumerate") for s in drawn.values())
    if not (left_out or marked):
        return Trace_ELBO()
    nesting = max(map(plate_nesting, (model_trace, guide_trace)))
    return EnumerationEstimator(max_plate_nesting=nesting, strict_enumeration_warning=False)
