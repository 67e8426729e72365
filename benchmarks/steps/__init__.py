"""Time of a training step beside Pyro, PyTorch and NumPyro."""
