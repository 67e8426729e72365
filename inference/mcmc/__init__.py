"""Hamiltonian Monte Carlo over every chain and every datapoint at once."""
