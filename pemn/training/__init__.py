"""Local training: masked networks in torch."""
