"""Pyro programs at their data: layouts, joint log-densities, bijections, simulation."""
