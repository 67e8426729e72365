"""The truths of `tests/helpers/plain_programs` against Pyro's own sampler and density.

Each program is run by Pyro's NUTS, one draw at a time, and the draws' moments make a Student-t
proposal in Pyro's unconstrained coordinates; importance sampling with it, whose weights come from
Pyro's own potential, gives the evidence, means and standard deviations with their errors. Neither
this package's densities nor the closed forms have a part in it.

Run: ``python -m experiments.plain_program_references``; some minutes, ``--programs NAME ...`` for
some of them.
"""

import argparse
import math
import warnings
from typing import Any

import pyro
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.mcmc.util import initialize_model
from torch import Tensor

from experiments.plain_programs import plain_programs

__all__ = ["main", "row"]

SEED = 0
NUTS_DRAWS = 400
PROPOSALS = 4000
DEGREES = 6.0
INFLATION = 1.2  # of the proposal's scale, so that weights are bounded


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", nargs="*", default=[], help="names; all if left out")
    options = parser.parse_args()
    plain = plain_programs()
    print(  # noqa: T201
        "| program | log evidence | by Pyro | ± | largest error of means (SE) | of sds (SE) "
        "| effective draws |\n| --- | --: | --: | --: | --: | --: | --: |"
    )
    for record in plain.PROGRAMS:
        if record.known is not None and (not options.programs or record.name in options.programs):
            with plain.float64():
                print(row(record), flush=True)  # noqa: T201


def row(record: Any) -> str:
    """One line of the table.

    Args:
        record: A program whose truth is known.
    """
    truth = record.truth()
    pyro.clear_param_store()
    pyro.set_rng_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        latents, log_weights = _weighed(record.model, record.args)
    count = len(log_weights)
    share = torch.softmax(log_weights, 0)
    ess = 1 / float(share.square().sum())
    evidence = float(torch.logsumexp(log_weights, 0)) - math.log(count)
    error = float((share - 1 / count).square().sum().sqrt())
    mean_error = sd_error = 0.0
    for name, mean in truth.means.items():
        values = latents[name].reshape(count, -1)
        centre = (share.unsqueeze(-1) * values).sum(0)
        spread = (values - centre).square()
        variance = (share.unsqueeze(-1) * spread).sum(0)
        noise = (share.square().unsqueeze(-1) * spread).sum(0).sqrt() + 1e-9
        squares = (share.square().unsqueeze(-1) * (spread - variance).square()).sum(0).sqrt()
        sd_noise = squares / (2 * variance.sqrt() + 1e-12) + 1e-9
        mean_error = max(mean_error, float(((centre - mean).abs() / noise).max()))
        off = (variance.sqrt() - truth.sds[name]).abs() / sd_noise
        sd_error = max(sd_error, float(off.max()))
    exact = float(truth.log_evidence.sum())
    return (
        f"| {record.name} | {exact:.4f} | {evidence:.4f} | {error:.4f} | {mean_error:.1f} | "
        f"{sd_error:.1f} | {ess:.0f} |"
    )


def _weighed(model: Any, args: tuple[Any, ...]) -> tuple[dict[str, Tensor], Tensor]:
    """Proposals as values of the sites, and their log-weights."""
    kernel = NUTS(model, max_tree_depth=6)
    chain = MCMC(kernel, NUTS_DRAWS, warmup_steps=NUTS_DRAWS // 2, disable_progbar=True)
    chain.run(*args)
    _, potential, transforms, trace = initialize_model(model, args)
    names = [
        name
        for name, site in trace.nodes.items()
        if site["type"] == "sample"
        and not site["is_observed"]
        and type(site["fn"]).__name__ != "_Subsample"
    ]
    drawn = chain.get_samples()
    unconstrained = {
        name: transforms[name](drawn[name]) if name in transforms else drawn[name]
        for name in names
    }
    shapes = {name: value.shape[1:] for name, value in unconstrained.items()}
    flat = torch.cat([unconstrained[name].reshape(NUTS_DRAWS, -1) for name in names], -1)
    u, log_q = _student(flat)
    log_p = torch.empty_like(log_q)
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    for number, point in enumerate(u):
        split = point.split([math.prod(shapes[name]) for name in names])
        params = {name: v.reshape(shapes[name]) for name, v in zip(names, split, strict=True)}
        log_p[number] = -potential(params)
        for name, value in params.items():
            kept[name].append(transforms[name].inv(value) if name in transforms else value)
    return {name: torch.stack(values) for name, values in kept.items()}, log_p - log_q


def _student(flat: Tensor) -> tuple[Tensor, Tensor]:
    """Draws of a multivariate Student-t of the draws' moments, and their log-densities."""
    dim = flat.shape[-1]
    covariance = torch.cov(flat.T).reshape(dim, dim) + 1e-10 * torch.eye(dim)
    law = pyro.distributions.MultivariateStudentT(
        torch.tensor(DEGREES), flat.mean(0), INFLATION * torch.linalg.cholesky(covariance)
    )
    u = law.sample((PROPOSALS,))
    return u, law.log_prob(u)


if __name__ == "__main__":
    main()
