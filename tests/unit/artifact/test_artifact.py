"""The .pemn file: what went in comes out, and nothing else is taken."""

from __future__ import annotations

import dataclasses
import hashlib
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pemn.artifact import MAGIC, Artifact, sizes_in_file
from pemn.distribution import Distribution
from pemn.errors import LocalError, MalformedArtifact
from pemn.federation.levels import HALF, Levels, normal_start_levels
from pemn.federation.release import start_edges
from pemn.mask import Mask, untied
from pemn.rebuild import frozen_weights, rebuild
from pemn.schedule import Schedule
from pemn.wire import limits
from pemn.wire.protocols import MaskProtocol
from pemn.wire.v1 import messages_pb2 as pb
from tests.models import make_artifact, make_normed, skeleton_of
from tests.networks import model_spec

HEADER = MAGIC + b"\x00\x06"


def seal(message: bytes) -> bytes:
    """Frames a message as a file whose checksum is right."""
    return HEADER + message + hashlib.sha256(HEADER + message).digest()


def message_of(data: bytes) -> pb.Artifact:
    return pb.Artifact.FromString(data[6:-32])


def deflate(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(data) + coder.flush()


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return make_artifact()


@pytest.fixture(scope="module")
def data(artifact: Artifact) -> bytes:
    return artifact.to_bytes()


def test_round_trip(artifact: Artifact, data: bytes) -> None:
    back = Artifact.from_bytes(data)
    assert back == artifact
    assert back.to_bytes() == data
    np.testing.assert_array_equal(back.weights(), rebuild(artifact.model, artifact.mask))


@pytest.mark.parametrize("tie", [2, 3, 9, 256])
def test_round_trip_of_a_tied_mask(tie: int) -> None:
    artifact = make_artifact(tie=tie)
    data = artifact.to_bytes()
    back = Artifact.from_bytes(data)
    assert back == artifact
    assert back.to_bytes() == data
    model, mask = back.model, back.values_mask()
    assert mask.sizes == model.sizes
    assert abs(mask.density - 0.5) < 0.05
    np.testing.assert_array_equal(back.weights(), np.where(mask.bits(), frozen_weights(model), 0))
    assert sizes_in_file(data)["mask"] <= model.num_bits / 8 + 2
    assert dataclasses.replace(back, model=model).values_mask() == untied(back.mask, model.sizes, tie)


def test_a_mask_with_a_bit_a_weight_does_not_fit_a_tie(artifact: Artifact) -> None:
    tied = dataclasses.replace(artifact.model, tie=2)
    with pytest.raises(LocalError, match="mask of another network"):
        dataclasses.replace(artifact, model=tied)
    with pytest.raises(LocalError, match="mask of another network"):
        dataclasses.replace(make_artifact(tie=2), model=artifact.model)


@pytest.mark.parametrize("distribution", Distribution)
def test_round_trip_with_floats(distribution: Distribution) -> None:
    artifact = make_normed(distribution)
    back = Artifact.from_bytes(artifact.to_bytes())
    assert back == artifact
    assert back.to_bytes() == artifact.to_bytes()
    tensors = back.tensors()
    assert list(tensors) == [*(v.name for v in back.model.layers), *(v.name for v in back.model.floats)]
    whole = np.concatenate([array.ravel() for array in tensors.values()]).astype("<f4").tobytes()
    assert whole == back.weights().astype("<f4").tobytes() + artifact.floats


def test_the_file_is_as_documented(artifact: Artifact, data: bytes) -> None:
    assert data.startswith(b"PEMN\x00\x06")
    assert data[-32:] == hashlib.sha256(data[:-32]).digest()
    proto = message_of(data)
    assert zlib.decompress(proto.onnx_skeleton, wbits=-15) == artifact.onnx_skeleton
    assert proto.weights_sha256 == hashlib.sha256(artifact.weights().astype("<f4").tobytes()).digest()


def test_the_file_is_little_more_than_its_mask(data: bytes) -> None:
    sizes = sizes_in_file(data)
    assert sum(sizes.values()) == len(data)
    assert sizes["mask"] <= make_artifact().model.num_params / 8 + 2
    assert sizes["framing"] < 64


def test_the_parts_of_a_file_with_floats() -> None:
    artifact = make_normed()
    data = artifact.to_bytes()
    sizes = sizes_in_file(data)
    assert sum(sizes.values()) == len(data)
    assert sizes["floats"] == 4 * artifact.model.num_floats == len(artifact.floats)
    assert sizes["framing"] < 64


def test_floats_are_in_no_hash_of_weights() -> None:
    artifact = make_normed()
    other = dataclasses.replace(artifact, floats=bytes(len(artifact.floats)))
    back = Artifact.from_bytes(other.to_bytes())
    assert back.weights_sha256 == artifact.weights_sha256
    np.testing.assert_array_equal(back.weights(), artifact.weights())


def test_sparse_masks_are_coded_shorter() -> None:
    sizes = [len(make_artifact(density=density).to_bytes()) for density in (0.5, 0.1, 0.01)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_a_mask_that_follows_the_start_of_training_is_coded_shorter() -> None:
    artifact, protocol = make_artifact(), MaskProtocol(16384, Schedule.always(1), 1, normal_start_levels(3.0))
    levels = Levels(protocol, artifact.model.seed, artifact.model.sizes)
    kept = levels.at(np.zeros(levels.num_params, np.int8)) > HALF
    near = dataclasses.replace(artifact, mask=Mask.from_bits(kept, levels.sizes))
    informed = dataclasses.replace(near, start_edges=start_edges(protocol))
    assert Artifact.from_bytes(informed.to_bytes()) == informed
    assert sizes_in_file(informed.to_bytes())["mask"] < 0.5 * sizes_in_file(near.to_bytes())["mask"]


@pytest.mark.parametrize("edges", [(0,), (5, 5), (9, 3), (65536,), tuple(range(1, 33))])
def test_start_edges_are_checked(edges: tuple[int, ...]) -> None:
    with pytest.raises(LocalError, match="start edges"):
        dataclasses.replace(make_artifact(), start_edges=edges)


def test_every_truncation_is_refused(data: bytes) -> None:
    for length in range(len(data)):
        with pytest.raises(MalformedArtifact):
            Artifact.from_bytes(data[:length])


def test_every_flipped_bit_is_refused(data: bytes) -> None:
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(MalformedArtifact):
            Artifact.from_bytes(bytes(damaged))


@given(st.data())
def test_a_forger_gets_a_clear_refusal_or_a_whole_file(draw: st.DataObject) -> None:
    message = bytearray(make_artifact().to_bytes()[6:-32])
    for _ in range(draw.draw(st.integers(1, 3))):
        message[draw.draw(st.integers(0, len(message) - 1))] = draw.draw(st.integers(0, 255))
    try:
        forged = Artifact.from_bytes(seal(bytes(message)))
        forged.weights()
    except MalformedArtifact:
        return
    assert forged.model.layers == make_artifact().model.layers


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda data: b"", "not a .pemn file: got no bytes"),
        (lambda data: b"PK\x03\x04" + data[4:], "not a .pemn file: got 504b0304"),
        (lambda data: b"PEMN\x00\x05" + data[6:], "version of a .pemn file: got 0005; wanted 0006"),
        (lambda data: data + b"\x00", "cut off or damaged"),
        (lambda data: data[:-1], "cut off or damaged"),
        (lambda data: seal(b""), "empty architecture"),
        (lambda data: seal(b"\xff" * 40), "varint"),
    ],
)
def test_foreign_files_are_refused_with_the_reason(
    data: bytes, damage: Callable[[bytes], bytes], complaint: str
) -> None:
    with pytest.raises(MalformedArtifact, match=complaint):
        Artifact.from_bytes(damage(data))


def changed(data: bytes, **fields: bytes) -> bytes:
    proto = message_of(data)
    for name, value in fields.items():
        setattr(proto, name, value)
    return seal(proto.SerializeToString(deterministic=True))


def test_parts_that_lie_are_refused(artifact: Artifact, data: bytes) -> None:
    proto = message_of(data)
    for fields, complaint in (
        ({"weights_sha256": b"\x00" * 31}, "hash of the weights: got 31"),
        ({"mask": proto.mask[:-1]}, "mask|bits"),
        ({"mask": proto.mask + b"\x00"}, "mask|bits"),
        ({"onnx_skeleton": proto.onnx_skeleton[:-1]}, "end of the deflated"),
        ({"onnx_skeleton": proto.onnx_skeleton + b"\x00"}, "end of the deflated"),
        ({"onnx_skeleton": b"\xff\xff"}, "ONNX skeleton"),
        ({"onnx_skeleton": deflate(b"no graph")}, "not an ONNX file"),
        ({"onnx_skeleton": deflate(skeleton_of("mlp-16-13"))}, "weight of an ONNX skeleton"),
        ({"onnx_skeleton": deflate(skeleton_of("mlp-16"))}, "weights of an ONNX skeleton"),
    ):
        with pytest.raises(MalformedArtifact, match=complaint):
            Artifact.from_bytes(changed(data, **fields))


def float32s(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


def test_floats_that_lie_are_refused() -> None:
    artifact = make_normed()
    data, floats = artifact.to_bytes(), artifact.floats
    for wrong, complaint in (
        (b"", "bytes of floats: got 0; wanted 884"),
        (floats[:-1], "bytes of floats: got 883; wanted 884"),
        (floats + bytes(4), "bytes of floats: got 888; wanted 884"),
        (float32s(np.inf) + floats[4:], "floats: got one that is not finite"),
        (floats[:-4] + float32s(-np.inf), "floats: got one that is not finite"),
        (floats[:400] + float32s(np.nan) + floats[404:], "floats: got one that is not finite"),
    ):
        with pytest.raises(MalformedArtifact, match=complaint):
            Artifact.from_bytes(changed(data, floats=wrong))
        with pytest.raises(LocalError, match=complaint):
            dataclasses.replace(artifact, floats=wrong)


def test_a_file_without_floats_gets_none(data: bytes) -> None:
    with pytest.raises(MalformedArtifact, match="bytes of floats: got 4; wanted 0"):
        Artifact.from_bytes(changed(data, floats=bytes(4)))


def test_another_mask_seed_or_hash_does_not_pass_for_the_trained_weights(
    artifact: Artifact, data: bytes
) -> None:
    bits = artifact.mask.bits()
    bits[5] ^= True
    others = (
        dataclasses.replace(artifact, mask=Mask.from_bits(bits, artifact.model.sizes)),
        dataclasses.replace(artifact, model=dataclasses.replace(artifact.model, seed=8)),
        dataclasses.replace(
            artifact, model=dataclasses.replace(artifact.model, distribution=Distribution.NORMAL)
        ),
        dataclasses.replace(artifact, weights_sha256=bytes(32)),
    )
    for other in others:
        with pytest.raises(MalformedArtifact, match="hash of the rebuilt weights"):
            Artifact.from_bytes(other.to_bytes()).weights()


def test_a_deflate_bomb_is_not_inflated(data: bytes) -> None:
    bomb = deflate(bytes(4 * limits.MAX_SKELETON_BYTES))
    assert len(bomb) < 300_000
    file = changed(data, onnx_skeleton=bomb)
    tracemalloc.start()
    try:
        with pytest.raises(MalformedArtifact, match="size of the ONNX skeleton"):
            Artifact.from_bytes(file)
        assert tracemalloc.get_traced_memory()[1] < 2.5 * limits.MAX_SKELETON_BYTES
    finally:
        tracemalloc.stop()


def test_parts_that_do_not_fit_are_the_callers_bug(artifact: Artifact) -> None:
    with pytest.raises(LocalError, match="mask of another network"):
        Artifact.of(model_spec((4, 4)), artifact.mask, artifact.onnx_skeleton, {})
    for provenance in ({"": "x"}, {"k" * 300: "x"}, {"k": "x" * 2000}):
        with pytest.raises(LocalError, match="length of provenance"):
            dataclasses.replace(artifact, provenance=provenance)
    with pytest.raises(LocalError, match="texts of provenance"):
        dataclasses.replace(artifact, provenance={str(i): "" for i in range(65)})
