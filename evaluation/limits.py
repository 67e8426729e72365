"""Beyond what a figure is not to be trusted, or not to be had, with the source of each limit."""

from aevb.inference.evidence.psis import KHAT_LIMIT
from aevb.inference.mcmc.diagnostics import ESS_LIMIT, RHAT_LIMIT

__all__ = [
    "BYTES_AT_ONCE",
    "ESS_LIMIT",
    "FALSE_DISCOVERY_RATE",
    "KHAT_LIMIT",
    "LARGEST_JOINT",
    "RHAT_LIMIT",
]

# Share of false ones among the datapoints whose draws are called different.
FALSE_DISCOVERY_RATE = 0.05
# Dimensions of a joint posterior beyond which chains would take days.
LARGEST_JOINT = 10_000
# Of one evaluation of the model.
BYTES_AT_ONCE = 128 * 2**20
