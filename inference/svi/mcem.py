"""Monte Carlo expectation maximization: the model learns from chains of its own posteriors."""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.infer.elbo import ELBO as Estimator
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from aevb.data.seeds import fresh_if_none
from aevb.inference.graphs.compile import graph_function
from aevb.inference.graphs.tracing import NotTraceableError
from aevb.inference.mcmc import kernel
from aevb.inference.mcmc.adaptation import first_step_size
from aevb.inference.mcmc.integrators import Point
from aevb.inference.mcmc.metrics import Diagonal
from aevb.inference.process import randomness
from aevb.inference.process.devices import pick_device
from aevb.inference.process.switches import argument_checks
from aevb.inference.programs.arguments import Arguments
from aevb.inference.programs.log_density import LogDensity
from aevb.inference.programs.protocol import ProgramPair, as_module, evaluation_mode, own_check
from aevb.inference.svi.feeds import Data, Feed
from aevb.inference.svi.fit import fit
from aevb.inference.svi.objectives import Objective
from aevb.inference.svi.run import Run

__all__ = ["mcem"]

# By how much the log of the step size follows an acceptance rate that is off its target.
_GAIN = 0.05
# Below it, chains stand still for most of the time.
_LEAST_ACCEPTANCE = 0.5


def mcem(
    program: ProgramPair,
    data: Data,
    *,
    num_steps: int = 10,
    target_accept: float = 0.9,
    updates_per_draw: int = 5,
    batch_size: int | None = None,
    seed: int | None = 0,
    device: str | torch.device = "auto",
    **settings: Any,
) -> Run:
    r"""Train a model by Monte Carlo expectation maximization, whose E-step is HMC.

    Every datapoint keeps one chain. When its minibatch comes, the chain makes one transition
    under :math:`p_\theta(z|x)` of the present weights, and these then ascend

    .. math:: \tfrac1M \sum_i \log p_\theta(x_i, z_i)

    a few times at the draws. The guide is not trained.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2013), section 5 and appendix E,
        https://arxiv.org/abs/1312.6114; A Monte Carlo Implementation of the EM Algorithm and the
        Poor Man's Data Augmentation Algorithms (Wei & Tanner, 1990),
        https://doi.org/10.1080/01621459.1990.10474930

    Args:
        program: One of our models, or ``Program(model, guide)``, with continuous latents.
        data: As for :func:`fit`, without keyword arguments.
        num_steps: Leapfrog steps of a transition.
        target_accept: Acceptance rate that the step size, one for all datapoints, is tuned to.
        updates_per_draw: Updates of the weights after each transition.
        batch_size: As for :func:`fit`; None where the latents have one joint posterior.
        seed: As for :func:`fit`.
        device: As for :func:`fit`.
        settings: Others of :func:`fit`, without ``objective``, ``validation`` and ``patience``.
            An epoch has ``updates_per_draw`` times the steps of one of ``fit``.

    Returns:
        The run. Its objective is the mean of log p(x, z) at the chains, in nats, and no bound.

    Raises:
        ValueError: As :func:`fit`, and if latents are discrete, or local without minibatches.

    Example:
        >>> from aevb.models import FactorAnalysis
        >>> run = mcem(FactorAnalysis((5,), 2), torch.randn(100, 5), epochs=2, batch_size=50)
        >>> run.step
        20
    """
    seed = fresh_if_none(seed)
    objective = _CompleteData(num_steps, target_accept, updates_per_draw)
    for name in ("objective", "validation", "patience"):
        if settings.pop(name, None) is not None:
            raise ValueError(f"{name}: has no meaning where no guide is trained; leave it out")
    module, target = as_module(program), pick_device(device)
    with randomness.stream(seed, "chains", target):
        module.to(target).eval()
        traced = settings.get("compile") != "eager"
        feed = _ChainFeed(module, data, batch_size, seed, target, objective, traced)
    given = _GivenLatents(module, feed.names)
    run = fit(given, feed, objective=objective, batch_size=batch_size, seed=seed, device=target,
              **settings)  # fmt: skip
    if feed.rate < _LEAST_ACCEPTANCE:
        warnings.warn(
            f"mcem: at the end the chains accepted {feed.rate:.0%} of their proposals, and the "
            "weights learned from draws that hardly move: train longer, or rescale the latents",
            stacklevel=2,
        )
    return replace(run, program=module.eval())


@dataclass(frozen=True)
class _CompleteData(Objective):
    """Log p(x, z) at given latents: the ELBO of a program that has none left."""

    num_steps: int
    target_accept: float
    updates_per_draw: int

    def __post_init__(self) -> None:
        for name in ("num_steps", "updates_per_draw"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1; got {getattr(self, name)}")
        if not 0 < self.target_accept < 1:
            raise ValueError(f"target_accept: must be in (0, 1); got {self.target_accept}")

    def estimator(self) -> Estimator:
        return Trace_ELBO()


class _GivenLatents(nn.Module):
    """A program whose latents are its last arguments; its state is the program's own."""

    def __init__(self, program: Any, names: list[str]) -> None:
        super().__init__()
        self.program, self.names = program, names

    def model(self, *args: Any) -> Any:
        latents = dict(zip(self.names, args[-len(self.names) :], strict=True))
        return poutine.condition(self.program.model, data=latents)(*args[: -len(latents)])

    def guide(self, *args: Any) -> None:
        """Nothing is left to draw."""

    def check_data(self, *args: Any) -> None:
        check = own_check(self.program)
        if check is not None:
            check(*args[: -len(self.names)])

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.program.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.program.load_state_dict(*args, **kwargs)


class _ChainFeed(Feed):
    """Minibatches with one draw of their latents, each handed out several times.

    Args:
        program: Model and guide.
        data: As for :class:`Feed`, like the next three.
        batch_size: The same.
        seed: The same.
        device: The same.
        objective: Says how the chains move.
        traced: Whether their density is evaluated as a graph.
    """

    def __init__(
        self,
        program: Any,
        data: Data,
        batch_size: int | None,
        seed: int,
        device: torch.device,
        objective: _CompleteData,
        traced: bool,
    ) -> None:
        super().__init__(data, batch_size, seed, device)
        self.program, self.objective, self.traced = program, objective, traced
        self._densities: dict[int, LogDensity] = {}
        self._evaluations: dict[int, Callable[..., Any]] = {}
        self._left = 0  # times that the present minibatch is still to be handed out
        self._inputs: tuple[Tensor, ...] = ()
        starts = [
            self._density(arguments).prior_draws(1)[0]
            for arguments in super().examples(batch_size)
        ]
        self.chains = torch.cat(starts)  # (N, dim), unconstrained
        # NaN until the first minibatch has shown what its chains accept
        self.log_step = torch.full((), math.nan, dtype=self.chains.dtype, device=self.device)
        self.rate = objective.target_accept  # running mean of acceptance rates
        self._example = next(super().examples(1 if batch_size else None))
        self.names = list(self._values(self._densities[max(self._densities)], starts[0]))

    def _density(self, arguments: Arguments) -> LogDensity:
        if arguments.kwargs:
            raise ValueError(f"data: expected no keyword arguments; got {[*arguments.kwargs]}")
        leaves = [leaf for leaf in tree_flatten(arguments.args)[0] if isinstance(leaf, Tensor)]
        size = len(leaves[0]) if leaves and leaves[0].ndim else 0
        if size not in self._densities:
            density = LogDensity(self.program.model, *arguments.args)
            if discrete := sorted(density.layout.summed_out):
                raise ValueError(
                    f"mcem: chains do not move discrete latents, {discrete}: use fit with "
                    "objective=EnumeratedELBO(), which sums them out, wake_sleep with a guide "
                    "that draws them, or a mixture written as MixtureSameFamily"
                )
            if density.is_local != (self.batch_size is not None):
                raise ValueError(
                    "batch_size: chains need minibatches where each datapoint has latents of its "
                    f"own, and the whole data where they share them; got {self.batch_size}"
                )
            self._densities[size] = density
        return self._densities[size].at(*arguments.args)

    @staticmethod
    def _values(density: LogDensity, u: Tensor) -> dict[str, Tensor]:
        """The latents by name, ``(*plates, *event)``, at positions ``(batch, dim)``."""
        return {name: value[0] for name, value in density.constrain(u.unsqueeze(0)).items()}

    def next(self) -> tuple[Tensor, ...]:
        """The tensors of the programs' arguments, and the values of the latents."""
        if self._left == 0:
            positions = super().next()
            # in evaluation mode: dropout would change the density in the middle of a trajectory
            with torch.no_grad(), argument_checks(False), evaluation_mode(self.program):
                self._inputs = self._drawn(super().present(*positions), positions)
            self._left = self.objective.updates_per_draw
        self._left -= 1
        return self._inputs

    def _drawn(self, arguments: Arguments, positions: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """One transition of the chains of a minibatch."""
        density = self._density(arguments)
        flat, self._structure = tree_flatten(arguments.args)
        u = self.chains[positions[0]] if positions else self.chains
        evaluate = self._evaluation(density, flat, u.unsqueeze(0))
        state = kernel.init(u.unsqueeze(0), evaluate)
        if bool(self.log_step.isnan()):
            steps_of_one = first_step_size(evaluate, state, Diagonal(torch.ones_like(u)))
            self.log_step = steps_of_one.min().log().to(u.dtype)
        step = self.log_step.exp().expand(len(u))
        steps = torch.full((len(u),), self.objective.num_steps, device=self.device)
        state, info = kernel.step(state, evaluate, step, Diagonal(torch.ones_like(u)), steps)
        if positions:
            self.chains[positions[0]] = state.u[0]
        else:
            self.chains = state.u[0]
        rate = info.acceptance_rate.mean().to(self.log_step.dtype)
        self.rate += _GAIN * (float(rate) - self.rate)
        self.log_step = self.log_step + _GAIN * (rate - self.objective.target_accept)
        tensors = [leaf for leaf in flat if isinstance(leaf, Tensor)]
        return (*tensors, *self._values(density, state.u[0]).values())

    def _evaluation(
        self, density: LogDensity, flat: list[Any], u: Tensor
    ) -> Callable[[Tensor], Point]:
        """The density and its gradient at the present arguments and weights."""
        tensors = [leaf for leaf in flat if isinstance(leaf, Tensor)]
        structure = self._structure

        def log_density(u: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
            given = iter(tensors)
            args = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in flat]
            at = density.at(*tree_unflatten(args, structure))
            with torch.enable_grad(), argument_checks(False):
                u = u.detach().requires_grad_()
                value = at.joint(u)
                (gradient,) = torch.autograd.grad(value.sum(), u)
            return value.detach(), gradient

        size = u.shape[1]
        if size not in self._evaluations:
            self._evaluations[size] = log_density
            if self.traced:
                try:
                    self._evaluations[size] = graph_function(log_density, u, *tensors)
                except NotTraceableError:
                    self._evaluations[size] = log_density
        function = self._evaluations[size]

        def evaluate(u: Tensor) -> Point:
            value, gradient = function(u.contiguous(), *tensors)
            return Point(u, value, gradient, torch.zeros_like(value))

        return evaluate

    def present(self, *inputs: Tensor) -> Arguments:
        """The arguments of :class:`_GivenLatents`."""
        given = iter(inputs[: -len(self.names)])
        leaves, structure = tree_flatten(self._example.args)
        args = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return Arguments((*tree_unflatten(args, structure), *inputs[-len(self.names) :]))

    def examples(self, batch_size: int | None) -> Iterator[Arguments]:
        """The evaluation copy of the data with the chains as they are."""
        start = 0
        for arguments in super().examples(batch_size):
            density = self._density(arguments)
            u = self.chains[start : start + density.batch]
            start += density.batch
            yield Arguments((*arguments.args, *self._values(density, u).values()))

    @property
    def epoch(self) -> int:
        """Completed passes."""
        return super().epoch - (self._left > 0 and super().at_epoch_end)

    @property
    def steps_per_epoch(self) -> int:
        """Updates of the weights in one pass."""
        return super().steps_per_epoch * self.objective.updates_per_draw

    @property
    def equal_steps_ahead(self) -> int:
        """See :class:`Feed`; blocks of steps would hide the transitions between them."""
        return 1

    @property
    def at_epoch_end(self) -> bool:
        """Whether the last step completed a pass."""
        return self._left == 0 and super().at_epoch_end

    def state_dict(self) -> dict[str, Any]:
        """The minibatches' state, the chains and the draws in use."""
        return {
            "feed": super().state_dict(), "chains": self.chains, "log_step": self.log_step,
            "left": self._left, "rate": self.rate, "inputs": list(self._inputs),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict` of an equal feed."""
        super().load_state_dict(state["feed"])
        self.chains = state["chains"].to(self.device).clone()
        self.log_step = state["log_step"].to(self.device)
        self._left, self.rate = state["left"], state["rate"]
        self._inputs = tuple(value.to(self.device) for value in state["inputs"])
