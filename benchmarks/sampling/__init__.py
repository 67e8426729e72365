"""Effective samples per second beside NumPyro and Pyro."""
