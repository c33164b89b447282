"""Local training: masked networks in torch."""

from pemn.errors import ConfigError

try:
    import torch as torch
except ImportError as error:
    raise ConfigError("torch is missing", wanted="pip install 'pemn[train]'") from error
