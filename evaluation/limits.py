"""Beyond what a figure is not to be trusted, with the source of each limit."""

from aevb.inference.evidence.psis import KHAT_LIMIT
from aevb.inference.mcmc.diagnostics import ESS_LIMIT, RHAT_LIMIT

__all__ = ["ESS_LIMIT", "FALSE_DISCOVERY_RATE", "KHAT_LIMIT", "RHAT_LIMIT"]

# Share of false ones among the datapoints whose draws are called different.
FALSE_DISCOVERY_RATE = 0.05
