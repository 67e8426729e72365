"""The figures and tables of the papers: a file for each, found by ``aevb reproduce``."""
