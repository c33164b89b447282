"""Interleaved binary rANS: decisions with known probabilities <-> words, within a fraction of a percent of the bound.

A lane is a 32-bit state that takes every K-th decision. Encoding goes backwards and pushes 16-bit words; decoding
goes forwards and pulls them. Who decodes ends with every lane in its first state and no word left, so each accepted
string is the one that the encoder writes: decoding is a bijection (docs/wire.md, "rANS").

All K lanes of a step are one numpy operation each; with few lanes a loop over plain integers is faster; with numba
there is one loop for all. The three give the same words.

Source: J. Duda, arXiv:1311.2540; F. Giesen, arXiv:1402.3392 (interleaving).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pemn.codec.bits import read_varint, write_varint
from pemn.codec.fast import kernels
from pemn.codec.model import BITS, SCALE
from pemn.errors import MalformedFrame

LOW = 1 << 16
"""A lane's state is LOW .. 2^32 - 1; it begins (in decoding: ends) at LOW."""

MAX_LANES = 4096
LANE_BYTES = 3
"""What a lane costs: its four bytes hold on average one byte of the message."""

_BITS_A_LANE = 6400  # so lanes cost 24 / 6400 = 0.375 %
_ENOUGH_LANES = 32  # for numpy's fixed cost a step not to show
# Codes that have fewer get more, one for so many bits beyond the first, until they have enough.
_BITS_ONE_LANE_IS_ENOUGH_FOR, _BITS_A_FURTHER_LANE = 1 << 15, 3072
_PIECE_DECISIONS = 4096
_FEW_LANES = 16  # below it a loop over integers is faster than numpy

# Arrays without dimensions: numpy would have to convert scalars in every operation, which takes as long as the rest.
_LOW, _BITS, _WORD = np.array(LOW, np.uint32), np.array(BITS, np.uint32), np.array(16, np.uint32)
_SLOT, _EMIT = np.array(SCALE - 1, np.uint32), np.array(32 - BITS, np.uint32)


# Bound once: in a step with few lanes, looking nine functions up in numpy takes a tenth of the time.
_greater_equal, _less, _bitwise_and, _right_shift = np.greater_equal, np.less, np.bitwise_and, np.right_shift
_add, _subtract, _multiply, _floor_divide, _putmask = (
    np.add,
    np.subtract,
    np.multiply,
    np.floor_divide,
    np.putmask,
)


def num_lanes(cost_bits: int) -> int:
    """Returns K for a message of about so many bits: as many as cost less than half a percent, or up to 32.

    Messages of 16 KiB, which may be long runs of zeros, get 32 though they cost 0.6 % there; the shortest do not.
    """
    further = (cost_bits - _BITS_ONE_LANE_IS_ENOUGH_FOR) // _BITS_A_FURTHER_LANE
    enough = min(max(further, 1), _ENOUGH_LANES)
    return min(max(cost_bits // _BITS_A_LANE, enough), MAX_LANES)


class Encoder:
    """Takes decisions from the last to the first.

    Args:
        lanes: K.
    """

    def __init__(self, lanes: int) -> None:
        self._states = np.full(lanes, LOW, np.uint32)
        self._words: list[NDArray[np.uint16]] = []

    def put(
        self, decisions: NDArray[np.bool_], contexts: NDArray[np.uint16], table: NDArray[np.uint16]
    ) -> None:
        """Codes decisions that stand before all that were put so far.

        Args:
            decisions: bool [m].
            contexts: Of each, uint16 [m].
            table: Frequency of a 1 in each context, uint16, 1 .. 32767, in 1/32768.
        """
        fast = kernels()
        if fast is not None:
            words = fast.encode(decisions, contexts, table, self._states)
        elif self._states.size < _FEW_LANES:
            words = _encode_by_one(decisions, table.take(contexts), self._states)
        else:
            words = _encode_by_lanes(decisions, table.take(contexts), self._states)
        self._words.append(words)

    def to_bytes(self) -> bytes:
        """Returns K, the states and the words."""
        words = np.concatenate([*self._words[::-1], np.empty(0, np.uint16)])
        states = self._states.astype("<u4").tobytes()
        return write_varint(self._states.size) + states + words.astype("<u2").tobytes()


class Decoder:
    """Gives decisions back from the first to the last.

    Args:
        data: What `Encoder.to_bytes` returned.

    Raises:
        MalformedFrame: If there cannot be so many lanes, or a state is out of range.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        lanes, position = read_varint(data, 0, MAX_LANES)
        stop = position + 4 * lanes
        if lanes == 0 or len(data) < stop or (len(data) - stop) % 2:
            raise MalformedFrame("coded mask: lanes", got=f"{lanes} in {len(data)} bytes")
        self._states = np.frombuffer(data, "<u4", lanes, position).astype(np.uint32)
        self._words = np.frombuffer(data, "<u2", offset=stop)
        if int(self._states.min()) < LOW:
            raise MalformedFrame(
                "coded mask: state of a lane", got=int(self._states.min()), wanted=f">= {LOW}"
            )

    @property
    def lanes(self) -> int:
        """K."""
        return self._states.size

    def read(self, contexts: NDArray[np.uint16], table: NDArray[np.uint16]) -> NDArray[np.bool_]:
        """Returns the next decisions, bool [m].

        Args:
            contexts: As the encoder had them, uint16 [m].
            table: As the encoder had it.

        Raises:
            MalformedFrame: If the words end too early.
        """
        out, states = np.empty(contexts.size, np.bool_), self._states
        # A decision takes one word at most. As wide as the states, they need not be widened in every step.
        words = self._words[: contexts.size].astype(np.uint32)
        fast = kernels()
        if fast is not None:
            used = fast.decode(contexts, table, states, words, out)
        elif states.size < _FEW_LANES:
            used = _decode_by_one(table.take(contexts), states, words, out)
        else:
            used = _decode_by_lanes(table.take(contexts), states, words, out)
        if used < 0:
            raise MalformedFrame("coded mask ends too early")
        self._words = self._words[used:]
        return out

    def finish(self) -> None:
        """Checks that nothing is left.

        Raises:
            MalformedFrame: If words are left, or a lane is not where the encoder began.
        """
        if self._words.size:
            raise MalformedFrame("coded mask: words left", got=self._words.size)
        if (self._states != _LOW).any():
            raise MalformedFrame("coded mask: last state of a lane")


def _encode_by_one(
    decisions: NDArray[np.bool_], frequencies: NDArray[np.uint16], states: NDArray[np.uint32]
) -> NDArray[np.uint16]:
    x, words = states.tolist(), []
    lanes = len(x)
    lane = decisions.size % lanes
    for one, f in zip(decisions[::-1].tolist(), frequencies[::-1].tolist(), strict=True):
        lane = (lane or lanes) - 1
        state, start = x[lane], 0
        if not one:
            f, start = SCALE - f, f
        if state >= f << 32 - BITS:
            words.append(state & 0xFFFF)
            state >>= 16
        x[lane] = state + state // f * (SCALE - f) + start  # = (state // f << 15) + state % f + start
    states[:] = x
    return np.array(words[::-1], np.uint16)


def _decode_by_one(
    frequencies: NDArray[np.uint16],
    states: NDArray[np.uint32],
    words: NDArray[np.uint32],
    out: NDArray[np.bool_],
) -> int:
    x, last, position = states.tolist(), words.size, 0
    # Pieces, as integers of Python take much room; each begins with lane 0.
    piece = _PIECE_DECISIONS // len(x) * len(x)
    for begin in range(0, out.size, piece):
        decisions = []
        for lane, f in zip(
            itertools.cycle(range(len(x))), frequencies[begin : begin + piece].tolist(), strict=False
        ):
            state = x[lane]
            low, slot = (state >> BITS) * f, state & SCALE - 1
            one = slot < f
            state = low + slot if one else state - low - f
            decisions.append(one)
            if state < LOW:
                if position == last:
                    return -1
                state = state << 16 | int(words[position])
                position += 1
            x[lane] = state
        out[begin : begin + piece] = decisions
    states[:] = x
    return position


def _encode_by_lanes(
    decisions: NDArray[np.bool_], frequencies: NDArray[np.uint16], states: NDArray[np.uint32]
) -> NDArray[np.uint16]:
    starts = frequencies * ~decisions  # products, as numpy.where waits for every guess of a branch
    others = starts + (np.uint16(SCALE) - frequencies) * decisions
    all_starts, all_others = starts.astype(np.uint32), others.astype(np.uint32)
    all_f = np.uint32(SCALE) - all_others
    arrays = (all_f, all_f << _EMIT, all_others, all_starts)
    lanes, words = states.size, np.empty(decisions.size, np.uint16)
    whole = decisions.size // lanes * lanes
    first = _encode_steps([part[whole:][None] for part in arrays], states[: words.size - whole], words)
    steps = [part[:whole].reshape(-1, lanes)[::-1] for part in arrays]
    return words[_encode_steps(steps, states, words[:first]) :].copy()


def _encode_steps(
    arrays: Sequence[NDArray[np.uint32]], x: NDArray[np.uint32], words: NDArray[np.uint16]
) -> int:
    """Codes steps, the rows of f, its limit, SCALE - f and start: changes `x`, and fills `words` from its end.

    Returns:
        Where the words begin.
    """
    quotient, full, first = np.empty_like(x), np.empty(x.size, np.bool_), words.size
    for f, limit, other, start in zip(*arrays, strict=True):
        which = _greater_equal(x, limit, full).nonzero()[0]
        if which.size:
            pushed = x[which]
            words[first - which.size : first] = pushed
            first -= which.size
            x[which] = pushed >> _WORD
        _floor_divide(x, f, quotient)
        _multiply(quotient, other, quotient)
        _add(x, quotient, x)  # = (quotient << 15) + x % f
        _add(x, start, x)
    return first


def _decode_by_lanes(
    frequencies: NDArray[np.uint16],
    states: NDArray[np.uint32],
    words: NDArray[np.uint32],
    out: NDArray[np.bool_],
) -> int:
    ones, lanes = frequencies.astype(np.uint32), states.size
    whole = ones.size // lanes * lanes
    used = _decode_steps(ones[:whole].reshape(-1, lanes), states, words, out[:whole].reshape(-1, lanes))
    if used < 0 or whole == ones.size:
        return used
    more = _decode_steps(ones[whole:][None], states[: ones.size - whole], words[used:], out[whole:][None])
    return used + more if more >= 0 else more


def _decode_steps(
    ones: NDArray[np.uint32], x: NDArray[np.uint32], words: NDArray[np.uint32], out: NDArray[np.bool_]
) -> int:
    """Reads steps, the rows of `out`; returns how many words it took, or -1."""
    slot, low, position = np.empty_like(x), np.empty_like(x), 0
    short = np.empty(x.size, np.bool_)
    for f, one in zip(ones, out, strict=True):
        _bitwise_and(x, _SLOT, slot)
        _less(slot, f, one)
        _right_shift(x, _BITS, low)
        _multiply(low, f, low)
        _add(slot, low, slot)  # the next state after a 1
        _subtract(x, low, x)  # after a 0: (SCALE - f) * (x >> BITS) + slot - f = x - low - f
        _subtract(x, f, x)
        _putmask(x, one, slot)
        which = _less(x, _LOW, short).nonzero()[0]
        if which.size:
            more = words[position : position + which.size]
            if more.size < which.size:
                return -1
            x[which] = (x[which] << _WORD) + more
            position += which.size
    return position
