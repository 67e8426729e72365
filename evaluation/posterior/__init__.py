"""A guide against chains, simulated data and its own best."""
