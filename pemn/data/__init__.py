"""Data sets and partitions as numpy arrays; each foreign library has its own module."""
