"""Measurements of speed whose results are kept in docs/results."""
