"""Runs models: needs numpy, protobuf and onnxruntime, and neither torch nor the onnx package."""

from pemn.device.model import Model as Model
