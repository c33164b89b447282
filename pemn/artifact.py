"""The .pemn file: a trained network as a seed and a mask, with all that is needed to run it.

    offset      bytes
    0           4       "PEMN"
    4           2       0x00, format version 6
    6           n       one `pemn.wire.v1.Artifact` message, in canonical form
    6 + n       32      SHA-256 of everything before

The fields of the message:

    model             the network: architecture, input contract, layers and scales, seed, strategy, shapes of floats
    mask              the coded mask (`pemn.federation.release`), a bit a weight or less
    start_edges       what the seed says of each weight's bit, for the coder
    onnx_skeleton     raw DEFLATE (RFC 1951) of an ONNX graph in which weights and floats have no data
    weights_sha256    of the weights that `pemn.rebuild.rebuild` must give, as little-endian float32
    provenance        who made it, from what: texts for people, nothing is computed from them
    floats            what else was trained or measured, little-endian float32: batch norm, biases

The last 32 bytes guard against damage, not against malice: they are no signature. `weights_sha256` says whether a
device has rebuilt the very weights that were trained.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pemn import graph
from pemn.errors import LocalError, MalformedArtifact, MalformedFrame
from pemn.federation.release import decode_mask, edges_fit, encode_mask
from pemn.mask import Mask, untied
from pemn.rebuild import named_tensors, rebuild, weights_sha256
from pemn.spec import ModelSpec
from pemn.wire import limits
from pemn.wire.checks import check, parse
from pemn.wire.model import check_bounds, model_from_proto, model_to_proto
from pemn.wire.v1 import messages_pb2 as pb

MAGIC = b"PEMN"
FORMAT_VERSION = 6
MAX_FILE_BYTES = (
    limits.MAX_SPEC_BYTES
    + limits.MAX_PARAMS // 8
    + limits.MAX_SKELETON_BYTES
    + 4 * limits.MAX_FLOATS
    + limits.MAX_PROVENANCE * (limits.MAX_TEXT_BYTES + limits.MAX_ERROR_TEXT_BYTES)
)

_HEADER = MAGIC + bytes([0, FORMAT_VERSION])
_RAW_DEFLATE = -15  # zlib's spelling: no header, a window of 2^15 bytes


@dataclass(frozen=True)
class Artifact:
    """The contents of a .pemn file.

    Attributes:
        model: The network without its mask.
        mask: Which of its values are kept; if they are tied, a bit for each tie.
        onnx_skeleton: ONNX graph without its weights and floats (`pemn.graph.check_skeleton`).
        weights_sha256: 32 bytes, of the rebuilt weights.
        provenance: Texts for people by their names.
        start_edges: Where the draws of the start levels part (`pemn.federation.release.start_edges`); none for a
            network whose training did not begin at them. They change the length of the file, not the model.
        floats: The tensors that `model.floats` names, one after the other, as little-endian float32; all finite.
    """

    model: ModelSpec
    mask: Mask
    onnx_skeleton: bytes
    weights_sha256: bytes
    provenance: dict[str, str] = field(default_factory=dict)
    start_edges: tuple[int, ...] = ()
    floats: bytes = b""

    def __post_init__(self) -> None:
        """Checks that the parts fit each other.

        Raises:
            LocalError: If they do not.
        """
        if self.mask.sizes != self.model.bit_sizes:
            raise LocalError("mask of another network", got=self.mask.sizes, wanted=self.model.bit_sizes)
        if len(self.weights_sha256) != limits.SHA256_BYTES:
            raise LocalError("hash of the weights", got=len(self.weights_sha256), wanted=limits.SHA256_BYTES)
        if len(self.onnx_skeleton) > limits.MAX_SKELETON_BYTES:
            raise LocalError("bytes of the ONNX skeleton", got=len(self.onnx_skeleton))
        if len(self.provenance) > limits.MAX_PROVENANCE:
            raise LocalError(
                "texts of provenance", got=len(self.provenance), wanted=f"<= {limits.MAX_PROVENANCE}"
            )
        for key, text in self.provenance.items():
            fits = len(text.encode()) <= limits.MAX_ERROR_TEXT_BYTES
            if not fits or not 0 < len(key.encode()) <= limits.MAX_TEXT_BYTES:
                raise LocalError("length of provenance", where=key[:60])
        if len(self.start_edges) > limits.MAX_START_EDGES or not edges_fit(self.start_edges):
            raise LocalError("start edges", got=self.start_edges, wanted="at most 31, ascending, 1 .. 65535")
        if len(self.floats) != 4 * self.model.num_floats:
            raise LocalError("bytes of floats", got=len(self.floats), wanted=4 * self.model.num_floats)
        if not np.isfinite(np.frombuffer(self.floats, "<f4")).all():
            raise LocalError("floats", got="one that is not finite")

    @classmethod
    def of(
        cls,
        model: ModelSpec,
        mask: Mask,
        onnx_skeleton: bytes,
        provenance: dict[str, str],
        start_edges: tuple[int, ...] = (),
        floats: bytes = b"",
    ) -> Artifact:
        """Puts a trained network together; rebuilds its weights once for their hash."""
        weights = weights_sha256(rebuild(model, mask))
        return cls(model, mask, onnx_skeleton, weights, provenance, start_edges, floats)

    def weights(self) -> NDArray[np.float32]:
        """Rebuilds the weights.

        Returns:
            float32 [n], layer after layer.

        Raises:
            MalformedArtifact: If they are not those that the file was made from.
        """
        weights = rebuild(self.model, self.mask)
        if (got := weights_sha256(weights)) != self.weights_sha256:
            raise MalformedArtifact(
                "hash of the rebuilt weights", got=got.hex()[:16], wanted=self.weights_sha256.hex()[:16]
            )
        return weights

    def values_mask(self) -> Mask:
        """Returns which values are kept: a bit for every one, also where several share one of `mask`."""
        return untied(self.mask, self.model.value_sizes, self.model.tie)

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Returns all tensors of the network by name: the rebuilt weights, then the floats.

        Raises:
            MalformedArtifact: If the weights are not those that the file was made from.
        """
        floats = np.frombuffer(self.floats, "<f4").astype(np.float32, copy=False)
        return named_tensors(self.model, self.weights(), floats)

    def to_bytes(self) -> bytes:
        """Returns the file.

        Raises:
            LocalError: If its network is larger than any file may have, or has a name that none may have.
        """
        try:
            check_bounds(self.model)
        except MalformedFrame as error:
            raise LocalError(f"network of a .pemn file: {error}") from error
        message = _to_proto(self).SerializeToString(deterministic=True)
        return _HEADER + message + hashlib.sha256(_HEADER + message).digest()

    @classmethod
    def from_bytes(cls, data: bytes) -> Artifact:
        """Reads a file.

        Raises:
            MalformedArtifact: If it is foreign, damaged, out of bounds or not what it says.
        """
        message = _message(data)
        proto = pb.Artifact()
        try:
            parse(proto, message)
            artifact = _from_proto(proto)
            graph.check_skeleton(graph.read(artifact.onnx_skeleton), artifact.model)
        except (MalformedFrame, LocalError) as error:
            raise MalformedArtifact(f".pemn file: {error}") from error
        return artifact


def sizes_in_file(data: bytes) -> dict[str, int]:
    """Returns how many bytes each part of a .pemn file takes; their sum is the length of the file.

    Args:
        data: A file that `Artifact.from_bytes` has read.
    """
    proto = pb.Artifact()
    parse(proto, _message(data))
    sizes = {
        "model": proto.model.ByteSize(),
        "mask": len(proto.mask),
        "onnx_skeleton": len(proto.onnx_skeleton),
        "weights_sha256": len(proto.weights_sha256),
        "provenance": pb.Artifact(provenance=proto.provenance).ByteSize(),
        "start_edges": pb.Artifact(start_edges=proto.start_edges).ByteSize(),
        "floats": len(proto.floats),
    }
    return {**sizes, "framing": len(data) - sum(sizes.values())}


def _message(data: bytes) -> bytes:
    """Checks the frame around the message and returns the message."""
    if len(data) > MAX_FILE_BYTES:
        raise MalformedArtifact("length of a .pemn file", got=len(data), wanted=f"<= {MAX_FILE_BYTES}")
    if not data.startswith(MAGIC):
        raise MalformedArtifact("not a .pemn file", got=data[:4].hex() or "no bytes", wanted=MAGIC.hex())
    if not data.startswith(_HEADER):
        raise MalformedArtifact(
            "version of a .pemn file", got=data[4:6].hex() or "no bytes", wanted=_HEADER[4:].hex()
        )
    body, digest = data[: -limits.SHA256_BYTES], data[-limits.SHA256_BYTES :]
    if len(body) < len(_HEADER) or hashlib.sha256(body).digest() != digest:
        raise MalformedArtifact(
            "checksum of a .pemn file: it is cut off or damaged", got=f"{len(data)} bytes"
        )
    return body[len(_HEADER) :]


def _to_proto(artifact: Artifact) -> pb.Artifact:
    deflate = zlib.compressobj(level=9, wbits=_RAW_DEFLATE)
    return pb.Artifact(
        model=model_to_proto(artifact.model),
        mask=encode_mask(artifact.mask, artifact.model.seed, artifact.start_edges),
        onnx_skeleton=deflate.compress(artifact.onnx_skeleton) + deflate.flush(),
        weights_sha256=artifact.weights_sha256,
        provenance=artifact.provenance,
        start_edges=artifact.start_edges,
        floats=artifact.floats,
    )


def _from_proto(proto: pb.Artifact) -> Artifact:
    model, edges = model_from_proto(proto.model), tuple(proto.start_edges)
    return Artifact(
        model=model,
        mask=decode_mask(proto.mask, model.bit_sizes, model.seed, edges),
        onnx_skeleton=_inflate(proto.onnx_skeleton),
        weights_sha256=proto.weights_sha256,
        provenance=dict(proto.provenance),
        start_edges=edges,
        floats=proto.floats,
    )


def _inflate(data: bytes) -> bytes:
    """Inflates without ever holding more than the limit: a small input can stand for gigabytes."""
    inflate = zlib.decompressobj(wbits=_RAW_DEFLATE)
    try:
        out = inflate.decompress(data, limits.MAX_SKELETON_BYTES + 1)
    except zlib.error as error:
        raise MalformedFrame(f"ONNX skeleton: {error}") from error
    check(
        len(out) <= limits.MAX_SKELETON_BYTES,
        "size of the ONNX skeleton",
        got=f"> {limits.MAX_SKELETON_BYTES}",
    )
    check(inflate.eof and not inflate.unused_data, "end of the deflated ONNX skeleton")
    return out
