"""PEMN's coder against the second one: the same bytes, and the same bytes refused."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pemn import codec
from pemn.codec import log2, rans
from tests.golden import reference_codes
from tests.golden.forgery import accepts, damage, same_fate
from tests.golden.reference_codes import RANS, Context, Decoder, Model, Rans, encode_decisions, encode_rans


def test_logarithms() -> None:
    draw = random.Random(1)
    values = [*range(1, 5000), *(draw.randint(1, 1 << draw.randint(1, 30)) for _ in range(2000)), 1 << 30]
    assert log2.log2(np.array(values)).tolist() == [reference_codes.log2(value) for value in values]


@given(st.integers(1, 500_000))
def test_blocks(num_weights: int) -> None:
    told = [(block.start, block.stop) for block in reference_codes.blocks(num_weights)]
    assert list(codec.blocks(num_weights)) == told


def test_the_number_of_lanes() -> None:
    around = (6400, 12_800, 32_768, 38_912, 58_100, 131_072, 204_800, 211_200, 6400 * 4096)
    for cost in (0, *(edge + d for edge in around for d in (-1, 0, 1)), 10**10):
        plain = Model()
        plain.cost = 65536 * cost + 65535
        assert rans.num_lanes(cost) == plain.lanes()


def test_codes_with_one_lane_and_with_two() -> None:
    draw = random.Random(4)
    bits = [int(draw.random() < 0.3) for _ in range(15_000)]
    lanes = set()
    for size in range(14_000, 15_000, 100):  # of about 12,300 to 13,200 bits
        code, plain = one_digit(bits[:size])
        assert code == plain
        lanes.add(code[1])
    assert lanes == {1, 2}


def number(digits: Context, shape: tuple[int, ...]) -> int:
    """A context as PEMN has it: digits in mixed radix."""
    out = 0
    for digit, values in zip(digits, shape, strict=True):
        out = out * values + digit
    return out


class Asked:
    """Decisions with contexts of 0 to 3 digits, one a weight or several lists of them.

    Where the lists are a chain, each asks again about the weights whose last decision was 1.
    """

    def __init__(self, draw: random.Random, num_weights: int, chain: int) -> None:
        self.shape = tuple(draw.choice([1, 2, 5, 40]) for _ in range(draw.randint(0, 3)))
        # How likely a 1 is: of each first digit, so that every coder is the shortest for some sequences.
        shares = [draw.choice([0, 0.002, 0.02, 0.3, 0.5, 0.97, 1]) for _ in range(40)]
        self.contexts = [tuple(draw.randrange(values) for values in self.shape) for _ in range(num_weights)]
        self.bits = [
            [int(draw.random() < shares[context[0] if context else 0]) for context in self.contexts]
            for _ in range(chain)
        ]

    def lists(self, block: range) -> list[list[tuple[Context, int]]]:
        inside, out = list(block), []
        for bits in self.bits:
            out.append([(self.contexts[i], bits[i]) for i in inside])
            inside = [i for i in inside if bits[i]]
        return out

    def encode(self) -> tuple[bytes, bytes]:
        """By PEMN, and by the second implementation."""

        def decide(start: int, stop: int) -> list[codec.Decisions]:
            lists = self.lists(range(start, stop))
            return [
                (
                    np.array([decision for _, decision in pairs], np.bool_),
                    np.array([number(context, self.shape) for context, _ in pairs], np.uint16),
                )
                for pairs in lists
            ]

        blocks = reference_codes.blocks(len(self.contexts))
        plain = encode_decisions([self.lists(block) for block in blocks])
        return codec.encode(len(self.contexts), decide, self.shape), plain

    def decode(self, data: bytes) -> list[list[int]]:
        reader, out = codec.Reader(data, self.shape), []
        for start, stop in codec.blocks(len(self.contexts)):
            inside = list(range(start, stop))
            for _ in self.bits:
                ids = [number(self.contexts[i], self.shape) for i in inside]
                out.append(reader.read(np.array(ids, np.uint16)).astype(int).tolist())
                inside = [i for i, decision in zip(inside, out[-1], strict=True) if decision]
            reader.end_block()
        reader.finish()
        return out

    def decode_plainly(self, data: bytes) -> list[list[int]]:
        reader, out = Decoder(data), []
        for block in reference_codes.blocks(len(self.contexts)):
            inside = list(block)
            for _ in self.bits:
                out.append(reader.read([self.contexts[i] for i in inside]))
                inside = [i for i, decision in zip(inside, out[-1], strict=True) if decision]
            reader.end_block()
        reader.finish()
        return out


@settings(max_examples=100)
@given(
    st.randoms(use_true_random=False),
    st.sampled_from([0, 1, 7, 8, 9, 63, 64, 65, 200, 700]),
    st.integers(1, 3),
)
def test_coded_decisions(draw: random.Random, num_weights: int, chain: int) -> None:
    asked = Asked(draw, num_weights, chain)
    code, plain = asked.encode()
    assert code == plain
    told = [
        [decision for _, decision in pairs]
        for block in reference_codes.blocks(num_weights)
        for pairs in asked.lists(block)
    ]
    assert asked.decode(code) == asked.decode_plainly(code) == told
    forged = damage(code, draw)
    same_fate(lambda: asked.decode(forged), lambda: asked.decode_plainly(forged))


def one_digit(bits: list[int]) -> tuple[bytes, bytes]:
    """A code without contexts, by PEMN and by the second implementation."""
    array = np.array(bits, np.bool_)

    def decide(start: int, stop: int) -> list[codec.Decisions]:
        return [(array[start:stop], np.zeros(stop - start, np.uint16))]

    blocks = reference_codes.blocks(len(bits))
    return (
        codec.encode(len(bits), decide, ()),
        encode_decisions([[[((), bits[i]) for i in block]] for block in blocks]),
    )


def test_every_short_sequence_has_the_same_code() -> None:
    for size in range(1, 10):
        for value in range(1 << size):
            code, plain = one_digit([value >> i & 1 for i in range(size)])
            assert code == plain


@pytest.mark.parametrize(("num_ones", "coder"), [(4096, 1), (4097, 2)])
def test_rice_ends_at_4096_ones(num_ones: int, coder: int) -> None:
    # Four bits each as gaps of 7, which is less than their entropy where only their number is known.
    bits = [int(i % 8 == 7) for i in range(8 * num_ones)]
    code, plain = one_digit(bits)
    assert code == plain
    assert code[0] == coder


def forged_rans(bits: list[int]) -> dict[str, bytes]:
    """Codes of the same decisions, without contexts, that an encoder of the document does not write."""
    priced, model = [], Model()
    for block in reference_codes.blocks(len(bits)):
        priced.append([(model.frequency(()), bits[i]) for i in block])
        model.end_block([((), bits[i]) for i in block])
    code = encode_rans(priced, 1)
    lanes, state, words = code[:1], code[1:5], code[5:]
    # The first decision is taken back without a word. A state that is too small gives the same, but takes one.
    before = Rans(code)
    assert before.read([16384]) == bits[:1]
    assert before.reader.data == words
    small, word = divmod(before.states[0], 65536)
    small = 32768 * (small // 16384) + small % 16384 + (0 if bits[0] else 16384)
    forged = {
        "small state": lanes + small.to_bytes(4, "little") + word.to_bytes(2, "little") + words,
        "another state": lanes + (int.from_bytes(state, "little") ^ 1 << 20).to_bytes(4, "little") + words,
        "two lanes": encode_rans(priced, 2),
        "no lane": b"\x00" + code[1:],
        "lanes in a long form": b"\x81\x00" + code[1:],
        "a word left": code + b"\x00\x00",
        "half a word left": code + b"\x00",
        "a word too few": code[:-2],
    }
    return {name: bytes([RANS]) + data for name, data in forged.items()}


def test_forged_rans_is_refused() -> None:
    draw = random.Random(3)
    asked = Asked(draw, 0, 1)
    asked.shape, asked.contexts = (), [()] * 600
    asked.bits = [[int(draw.random() < 0.8) for _ in range(600)]]
    code, _ = asked.encode()
    assert code[0] == RANS
    assert asked.decode(code) == asked.decode_plainly(code)
    for data in forged_rans(asked.bits[0]).values():
        assert not accepts(lambda: asked.decode(data))  # noqa: B023
        assert not accepts(lambda: asked.decode_plainly(data))  # noqa: B023
