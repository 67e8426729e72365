"""Estimates of log p(x): importance sampling, annealing, posterior draws."""
