"""Networks that come from outside: how large they may be."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest

from pemn.distribution import Distribution
from pemn.errors import MalformedFrame
from pemn.spec import FloatTensor
from pemn.wire.limits import MAX_FLOATS, MAX_PARAMS
from pemn.wire.model import model_from_proto, model_to_proto
from pemn.wire.v1 import messages_pb2 as pb
from tests.networks import model_spec


def network(shapes: list[tuple[int, ...]], image: tuple[int, int, int] = (1, 8, 8)) -> pb.ModelSpec:
    proto = model_to_proto(model_spec((1, 1)))
    del proto.layers[:]
    for number, shape in enumerate(shapes):
        proto.layers.add(name=f"layer {number}", shape=shape, scale=1.0, terms=1)
    proto.input.shape[:] = image
    return proto


@pytest.mark.parametrize(
    "shapes",
    [
        [(1 << 28,)],
        [(1 << 14, 1 << 14)],
        [(1 << 27, 2, 1, 1)],
        [(1 << 27,), (1 << 27,)],
        [((1 << 28) - 1,), (1,)],
        [(1 << 16, 1 << 10)] * 4,
    ],
)
def test_a_network_may_have_just_so_many_weights_and_is_not_built(shapes: list[tuple[int, ...]]) -> None:
    proto = network(shapes)
    tracemalloc.start()
    try:
        model = model_from_proto(proto)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert model.num_params == MAX_PARAMS == 1 << 28
    assert [layer.shape for layer in model.layers] == shapes
    assert peak < 1 << 16


@pytest.mark.parametrize(
    "shapes",
    [
        [((1 << 28) + 1,)],
        [(17, 15_790_321)],  # 2^28 + 1
        [(1 << 28,), (1,)],
        [(1,), (1 << 28,)],
        [(1 << 27,), ((1 << 27) + 1,)],
        [(1 << 26,)] * 4 + [(1,)],
        [((1 << 32) - 1,) * 8],
    ],
)
def test_one_weight_more_is_refused(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(MalformedFrame, match="number of values: wanted <= 268435456"):
        model_from_proto(network(shapes))


def test_each_term_counts() -> None:
    proto = network([(1 << 14, 1 << 10), (1,)])
    proto.layers[0].terms = 16
    with pytest.raises(MalformedFrame, match="number of values: wanted <= 268435456"):
        model_from_proto(proto)
    del proto.layers[1]
    assert model_from_proto(proto).num_values == 16 * model_from_proto(proto).num_params == MAX_PARAMS


@pytest.mark.parametrize("terms", [0, 65, (1 << 32) - 1])
def test_how_many_terms_a_weight_may_have(terms: int) -> None:
    proto = network([(1, 1)])
    proto.layers[0].terms = terms
    with pytest.raises(MalformedFrame, match=r"terms of a weight: got|number of values: wanted"):
        model_from_proto(proto)


@pytest.mark.parametrize("distribution", Distribution)
def test_a_network_with_floats_reads_back(distribution: Distribution) -> None:
    floats = (FloatTensor("norm.bias", (5,)), FloatTensor("gain", ()), FloatTensor("position", (1, 4, 2)))
    model = replace(model_spec((2, 3)), distribution=distribution, floats=floats)
    proto = pb.ModelSpec.FromString(model_to_proto(model).SerializeToString())
    assert model_from_proto(proto) == model


def with_floats(*floats: tuple[str, list[int]]) -> pb.ModelSpec:
    proto = network([(1, 1)])
    for name, shape in floats:
        proto.floats.add(name=name, shape=shape)
    return proto


@pytest.mark.parametrize(
    ("floats", "complaint"),
    [
        ([("", [1])], "empty name of floats"),
        ([("x", [0])], r"shape of floats: got \(0,\); wanted sizes >= 1; in x"),
        ([("x", [1]), ("x", [2])], "two tensors of one name"),
        ([("layer 0", [1])], "two tensors of one name"),
        ([("x", [1 << 24]), ("y", [])], "number of floats: wanted <= 16777216"),
        ([("x", [(1 << 32) - 1] * 8)], "number of floats: wanted <= 16777216"),
    ],
)
def test_floats_that_cannot_be_are_refused(floats: list[tuple[str, list[int]]], complaint: str) -> None:
    with pytest.raises(MalformedFrame, match=complaint):
        model_from_proto(with_floats(*floats))


def test_a_network_may_have_just_so_many_floats() -> None:
    assert model_from_proto(with_floats(("x", [1 << 23]), ("y", [1 << 23]))).num_floats == MAX_FLOATS


@pytest.mark.parametrize("image", [(1, 1 << 14, 1 << 14), (64, 1 << 11, 1 << 11), (1, 1 << 28, 1)])
def test_an_image_may_be_just_so_large(image: tuple[int, int, int]) -> None:
    proto = network([(1, 1)], image)
    proto.input.mean[:] = proto.input.std[:] = [0.5] * image[0]
    assert model_from_proto(proto).input.shape == image


@pytest.mark.parametrize("image", [(1, (1 << 28) + 1, 1), (1, 17, 15_790_321), (64, 1 << 11, (1 << 11) + 1)])
def test_a_larger_image_is_refused(image: tuple[int, int, int]) -> None:
    with pytest.raises(MalformedFrame, match="input size: got"):
        model_from_proto(network([(1, 1)], image))
