"""Bytes <-> checked messages. The generated protobuf code lives here and nowhere else."""
