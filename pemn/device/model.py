"""A model file -> predictions, with onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pemn import graph
from pemn.artifact import MAGIC, MAX_FILE_BYTES, Artifact
from pemn.errors import FileError, MalformedArtifact
from pemn.spec import InputContract

_BATCH = 256  # images a run; bounds the memory of the activations
_ONLY_FATAL = 4  # errors come as exceptions, and warnings are about the exporter's habits


class Model:
    """A network that is ready to run.

    Attributes:
        contract: What it is fed.
    """

    contract: InputContract

    def __init__(self, data: bytes, num_threads: int = 0) -> None:
        """Opens the contents of a model file; see `load`."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ONLY_FATAL
        options.intra_op_num_threads = num_threads
        self._weights: list[NDArray[np.float32]] = []
        if data.startswith(MAGIC):
            artifact = Artifact.from_bytes(data)
            self.contract = artifact.model.input
            # The session computes with these very arrays and does not hold them: they must live as long as it does.
            self._weights = _inject(options, artifact)
            data = artifact.onnx_skeleton
        else:
            self.contract = graph.contract_of(graph.read(data))
        try:
            self._session = onnxruntime.InferenceSession(
                data,
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=0,  # it prints, and tries the same again
                read_config_from_model=0,  # whatever the environment says
            )
        except Exception as error:  # its errors have no common base of their own
            raise MalformedArtifact(f"onnxruntime cannot open the network, {error}") from error

    @classmethod
    def load(cls, source: Path | str | bytes, *, num_threads: int = 0) -> Model:
        """Opens a .pemn file or an ONNX file that PEMN has exported, packed or dense.

        Args:
            source: The file or its contents. Nothing else is read, whatever the file says.
            num_threads: Threads that one run uses; 0 for one a processor core.

        Raises:
            FileError: If the file cannot be read.
            MalformedArtifact: If it is foreign, damaged, or does not rebuild the weights that it promises.
        """
        return cls(source if isinstance(source, bytes) else _read(Path(source)), num_threads)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each output, in order."""
        return self.contract.class_names

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Runs the network.

        Args:
            images: uint8 [N, channels, height, width], as the contract says.

        Returns:
            Logits, float32 [N, number of classes].

        Raises:
            DataError: If the images have another shape or dtype.
            MalformedArtifact: If the network cannot be run.
        """
        starts = range(0, max(len(images), 1), _BATCH)
        return np.concatenate(
            [self._run(self.contract.normalise(images[start : start + _BATCH])) for start in starts]
        )

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            logits: Any = self._session.run([graph.OUTPUT_NAME], {graph.INPUT_NAME: batch})[0]
        except Exception as error:  # see above
            raise MalformedArtifact(f"onnxruntime cannot run the network, {error}") from error
        wanted = (len(batch), len(self.class_names))
        if logits.dtype != np.float32 or logits.shape != wanted:
            raise MalformedArtifact(
                "logits", got=f"{logits.dtype} {logits.shape}", wanted=f"float32 {wanted}"
            )
        checked: NDArray[np.float32] = logits
        return checked


def _inject(options: Any, artifact: Artifact) -> list[NDArray[np.float32]]:
    """Hands a session weights and floats in place of those that the skeleton only declares; returns them."""
    used = graph.read(artifact.onnx_skeleton).used  # it does not take what no node reads
    tensors = {name: array for name, array in artifact.tensors().items() if name in used}
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in tensors.values()]
    options.add_external_initializers(list(tensors), values)
    return list(tensors.values())


def _read(path: Path) -> bytes:
    limit = max(MAX_FILE_BYTES, graph.MAX_FILE_BYTES)
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise FileError(
            f"cannot read a model, {(error.strerror or str(error)).lower()}", where=path
        ) from error
    if len(data) > limit:
        raise FileError("a model is too large", wanted=f"at most {limit} bytes", where=path)
    return data
