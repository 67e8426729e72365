"""How much each estimator of a Gaussian expectation's gradient varies.

f is linear plus quadratic plus a sine in ten dimensions; figures are the summed variances of one
draw's gradient, over 20,000 draws, with respect to μ and to the parameters of C.

Run: ``python -m experiments.gradient_variance``; takes seconds.

References:
    Stochastic Backpropagation and Approximate Inference in Deep Generative Models (Rezende et
    al., 2014), sections 3 and 4, https://arxiv.org/abs/1401.4082
"""

from collections.abc import Callable

import torch
from torch import Tensor

from aevb.inference.svi import gaussian_gradients as gg

__all__ = ["main", "table"]

SIZE = 10
DRAWS = 20_000
SEED = 0


def main() -> None:
    """Print the table."""
    print(table())  # noqa: T201


def table(draws: int = DRAWS) -> str:
    """Variances as Markdown.

    Args:
        draws: For each figure.
    """
    generator = torch.Generator().manual_seed(SEED)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    linear, wave, root = normal(SIZE), normal(SIZE), normal(SIZE, SIZE)
    quadratic = normal(SIZE, SIZE) / SIZE

    def function(z: Tensor) -> Tensor:
        return linear @ z + z @ quadratic @ z + torch.sin(wave @ z)

    covariances: list[gg.Covariance] = [
        gg.DiagonalCovariance(normal(SIZE).exp()),
        gg.RankOneCovariance(normal(SIZE).exp(), normal(SIZE)),
        gg.FullCovariance(root @ root.T / SIZE + 0.5 * torch.eye(SIZE, dtype=torch.float64)),
    ]
    estimators: dict[str, Callable[..., gg.GaussianGradients]] = {
        "reparameterization": gg.reparameterization,
        "Bonnet and Price": gg.bonnet_price,
        "score function": gg.score_function,
    }
    loc = normal(SIZE)
    lines = ["| covariance | estimator | μ | C |", "| --- | --- | --: | --: |"]
    for covariance in covariances:
        for name, estimator in estimators.items():
            estimate = estimator(function, loc, covariance, draws, generator)
            spread = sum(float(v.var(0).sum()) for v in estimate.covariance.values())
            lines.append(
                f"| {type(covariance).__name__} | {name} | "
                f"{float(estimate.loc.var(0).sum()):.3g} | {spread:.3g} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
