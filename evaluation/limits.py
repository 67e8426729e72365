"""Beyond what a figure is not to be trusted, or not to be had, with the source of each limit."""

from aevb.inference.mcmc.diagnostics import ESS_LIMIT, RHAT_LIMIT

__all__ = [
    "BYTES_AT_ONCE",
    "ESS_LIMIT",
    "FALSE_DISCOVERY_RATE",
    "LARGEST_JOINT",
    "RHAT_LIMIT",
    "check_at_least",
]

# Share of false ones among the datapoints whose draws are called different.
FALSE_DISCOVERY_RATE = 0.05
# Dimensions of a joint posterior beyond which chains would take days.
LARGEST_JOINT = 10_000
# Of one evaluation of the model.
BYTES_AT_ONCE = 128 * 2**20


def check_at_least(least: int, **numbers: int | None) -> None:
    """Refuse numbers below ``least``, by name; None is passed over.

    Raises:
        ValueError: Names the argument, what it must be and what it is.
    """
    for name, value in numbers.items():
        if value is not None and value < least:
            raise ValueError(f"{name}: must be at least {least}; got {value}")
