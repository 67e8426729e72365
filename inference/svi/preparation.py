"""What has to be known of a program before its first step, and what is refused."""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from torch import nn

from aevb.inference.graphs.tracing import NotTraceableError, untraceable_site
from aevb.inference.process import randomness
from aevb.inference.programs.arguments import Arguments, num_rows
from aevb.inference.programs.guide_checks import point_masses
from aevb.inference.programs.layouts import plate_nesting
from aevb.inference.programs.program import data_plate_size, prepare
from aevb.inference.programs.protocol import (
    has_latent_weights,
    own_check,
    standing_for,
)
from aevb.inference.svi.feeds import Data, Feed, evaluation_batches
from aevb.inference.svi.loss import StepLoss, weight_penalty
from aevb.inference.svi.objectives import Objective
from aevb.inference.svi.requirements import (
    check_enumeration,
    check_guided,
    check_particles,
)
from aevb.inference.svi.subsampling import Minibatch, read_minibatch, refuse_overridden_subsamples

__all__ = ["Reading", "prepare_training", "read_program"]

Traces = tuple[poutine.Trace, poutine.Trace]


@dataclass(frozen=True)
class Reading:
    """What the traces of a program say about its training.

    Attributes:
        plate: Size and full size of the plate ``"data"``, or None.
        is_point: Whether the guide has point masses, so that its bound is a log joint.
        refusal: Why its steps have no graph, if that shows already.
    """

    plate: tuple[int, int] | None
    is_point: bool
    refusal: NotTraceableError | None


def read_program(
    program: Any,
    traces: Traces,
    arguments: Arguments,
    objective: Objective,
    estimator: Any,
    seed: int,
    device: Any,
) -> Reading:
    """Refuse what would train something else, and fit the estimator to the program.

    Raises:
        ValueError: Says what the objective or the guide cannot have.
    """
    model, guide = traces
    nesting = max(map(plate_nesting, traces))
    check_guided(model, guide, estimator)
    objective.check(model, guide)
    is_guess = estimator.max_plate_nesting == math.inf
    if is_guess:
        # Pyro would find it by an extra run of the programs at the first step, whose draws a
        # resumed run would make once more
        outer = estimator.vectorize_particles and estimator.num_particles > 1
        estimator.max_plate_nesting = nesting + outer
    enumerates = isinstance(estimator, TraceEnum_ELBO)
    with randomness.stream(seed, "checks", device):
        refuse_overridden_subsamples(program, arguments)
        check_particles(program, arguments, estimator, nesting)
        if enumerates:
            check_enumeration(program, arguments, estimator, traces if is_guess else None)
    if getattr(estimator, "buffers", None):
        estimator.buffers = [buffer.to(device) for buffer in estimator.buffers]
    is_point = bool(point_masses(model, guide))
    # a sum over values is made of the program's own operations
    refusal = None if enumerates else untraceable_site(model, guide)
    return Reading(data_plate_size(model), is_point, refusal)


def prepare_training(
    program: Any,
    feed: Feed,
    validation: Data | None,
    objective: Objective,
    weight_prior_scale: float | None,
    precision: str,
    seed: int,
) -> tuple[StepLoss, Reading]:
    """Create lazy parameters, and check program and data against each other, before any step.

    Raises:
        ValueError: If something does not fit.
    """
    if weight_prior_scale is not None and not weight_prior_scale > 0:
        raise ValueError(f"weight_prior_scale: must be positive; got {weight_prior_scale}")
    estimator: Any = objective.estimator()
    minibatch = Minibatch()

    check = own_check(program)
    with standing_for(program, feed.num_datapoints):
        for number, arguments in enumerate(feed.examples(feed.batch_size)):
            if check is not None:
                check(*arguments.args, **arguments.kwargs)
            if number == 0 or check is None:
                traces = prepare(program, arguments)
            if number == 0:
                model = traces[0]
                reading = read_program(
                    program, traces, arguments, objective, estimator, seed, feed.device
                )
                if feed.batch_size is not None:
                    num = num_rows(arguments)
                    other = next(feed.examples(num // 2 or 2))
                    with randomness.stream(seed, "checks", feed.device):
                        minibatch = read_minibatch(
                            program, traces, num, (other, num_rows(other)), feed.num_datapoints
                        )
                    if minibatch.scaling is not None:
                        with minibatch.scaling:
                            objective.check(*prepare(program, next(feed.examples(num))))
        if check is not None and validation is not None:
            for arguments in evaluation_batches(validation, feed.batch_size, feed.device):
                check(*arguments.args, **arguments.kwargs)

    parameters = [p for p in program.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("program: has no trainable parameters")
    size, full_size = reading.plate or (None, None)
    # a subsampled plate scales the bound to all the datapoints that it stands for
    by_rows = feed.batch_size is not None and size == full_size
    counted = minibatch.total or (None if by_rows else float(full_size or 1))
    penalty = None
    if weight_prior_scale is not None:
        whole = feed.num_datapoints if feed.batch_size is not None else full_size or 1
        penalized = _penalized(program, parameters, model)
        penalty = partial(weight_penalty, penalized, weight_prior_scale, float(whole))
    loss = StepLoss(
        program, estimator, parameters, feed.present, feed.others, counted,
        replace(minibatch, told=feed.num_datapoints), penalty, precision,
    )  # fmt: skip
    return loss, reading


def _penalized(
    program: Any, parameters: list[nn.Parameter], model: poutine.Trace
) -> list[nn.Parameter]:
    """The parameters that a model announces."""
    if has_latent_weights(program):
        raise ValueError(
            "weight_prior_scale: the weights are latent here, with a prior of their own; it "
            "would pull at the parameters of their posterior"
        )
    values = [model.nodes[name]["value"] for name in model.param_nodes]
    # the parameter behind a constrained value, or a PyroModule's ordinary parameter itself
    behind = [getattr(value, "unconstrained", lambda: None)() for value in values]
    announced = {id(found) for found in (*values, *behind)}
    penalized = [p for p in parameters if id(p) in announced]
    if not penalized:
        raise ValueError(
            "weight_prior_scale: the model announces no trainable parameter to Pyro, by "
            "pyro.param, pyro.module or PyroModule"
        )
    return penalized
