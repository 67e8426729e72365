"""Decoder evaluations per second beside the matrix products they are made of."""
