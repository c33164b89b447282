"""What a network is described by: what it refuses, and what it says of itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pemn.errors import LocalError
from pemn.spec import FloatTensor
from tests.networks import model_spec

SPEC = model_spec((64, 9), (10, 64))


def test_floats_are_counted_and_have_shapes() -> None:
    spec = replace(SPEC, floats=(FloatTensor("gain", ()), FloatTensor("position", (1, 4, 2))))
    assert spec.num_floats == 1 + 8
    assert spec.num_params == SPEC.num_params == 576 + 640
    assert spec.shapes == {
        "layers.0.weight": (64, 9),
        "layers.1.weight": (10, 64),
        "gain": (),
        "position": (1, 4, 2),
    }
    assert spec.unique_values == SPEC.unique_values


@pytest.mark.parametrize("shape", [(0,), (3, 0), (-1,), (2, -2, -2)])
def test_floats_have_a_size(shape: tuple[int, ...]) -> None:
    with pytest.raises(LocalError, match=r"shape of floats: .* in gain"):
        FloatTensor("gain", shape)


@pytest.mark.parametrize("structure", [b"", bytes(15), bytes(17)])
def test_a_structure_has_sixteen_bytes(structure: bytes) -> None:
    with pytest.raises(LocalError, match=r"bytes of the structure: got .*; wanted 16"):
        replace(SPEC, structure=structure)


@pytest.mark.parametrize("names", [("gain", "gain"), ("layers.1.weight",)])
def test_no_two_tensors_have_one_name(names: tuple[str, ...]) -> None:
    with pytest.raises(LocalError, match="two tensors of one name"):
        replace(SPEC, floats=tuple(FloatTensor(name, ()) for name in names))


def test_the_papers_compression_ratio() -> None:
    """Upper bound: a bit of 32. A prototype of the whole network costs all of its weights again."""
    ratios = {
        strategy: model_spec((64, 9), (10, 64), strategy=strategy).paper_compression_ratio
        for strategy in ("rp:1e-5", "mp", "full")
    }
    assert ratios["rp:1e-5"] == pytest.approx(96.875 - 100 / 1216)
    assert ratios["mp"] == pytest.approx(96.875 - 100 * 640 / 1216)
    assert ratios["full"] == pytest.approx(-3.125)


@pytest.mark.parametrize(("tie", "bits"), [(1, (576, 640)), (5, (116, 128)), (256, (3, 3))])
def test_a_bit_for_several_weights(tie: int, bits: tuple[int, ...]) -> None:
    spec = replace(SPEC, tie=tie)
    assert spec.bit_sizes == bits
    assert spec.num_bits == sum(bits)
    assert (spec.sizes, spec.num_params) == ((576, 640), 1216)


@pytest.mark.parametrize("tie", [0, -1, 257])
def test_how_many_weights_may_share_a_bit(tie: int) -> None:
    with pytest.raises(LocalError, match=rf"values that share a bit: got {tie}; wanted 1 .. 256"):
        replace(SPEC, tie=tie)


def test_the_papers_compression_ratio_of_tied_masks() -> None:
    assert replace(SPEC, tie=4).paper_compression_ratio - SPEC.paper_compression_ratio == pytest.approx(
        100 * (1 / 32 - 1 / 128)
    )
