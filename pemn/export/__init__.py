"""ONNX files: the skeleton of a network, and from an artifact the packed and the dense file.

`skeleton` needs torch; `packed` and `dense` make their files with the onnx package alone.
"""

from pemn.errors import ConfigError

try:
    import onnx as onnx
except ModuleNotFoundError as error:
    raise ConfigError("missing package", got="no module onnx", wanted="pip install 'pemn[server]'") from error
