"""Stochastic variational inference: objectives, steps, training, checkpoints, validation."""
