"""The networks that PEMN trains, by name: plain torch modules, one family a file.

No layer has a bias: a mask cannot express it. What else a family has that no mask can express (batch norm, positions)
its file says.
"""

from pemn.training.networks.registry import build

__all__ = ["build"]
