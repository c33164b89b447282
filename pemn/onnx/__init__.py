"""The part of the ONNX format that `pemn.graph` reads."""
