"""Masked networks in torch: trained on one machine, or as a client's share of a federation."""

from pemn.errors import ConfigError

try:
    import torch as torch
except ImportError as error:
    raise ConfigError("torch is missing", wanted="pip install 'pemn[train]'") from error
