"""PEMN: a neural network as a seed and a binary mask."""

__version__ = "0.1.0"
