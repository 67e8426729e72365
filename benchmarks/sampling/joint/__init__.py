"""Six joint posteriors, written once for Pyro and once for NumPyro."""
