"""The coded sequences inside frames, as a mutator sees them: values that can be read, changed and written again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from pemn import codec
from pemn.codec import Coder, Reader
from pemn.codec.bits import pack, unpack
from pemn.federation.flips import Draw, Flips, decode_flips, encode_flips
from pemn.federation.levels import Levels
from pemn.federation.moves import decode_moves, encode_moves
from pemn.federation.release import decode_mask, encode_mask
from pemn.mask import Mask


class Code(Protocol):
    """One coded sequence and what both ends know about it."""

    @property
    def size(self) -> int:
        """n."""
        ...

    def read(self, data: bytes) -> NDArray[np.int8]:
        """Returns the values that canonical bytes stand for: int8 [n]."""
        ...

    def write(self, values: NDArray[np.int8]) -> bytes:
        """Returns the canonical bytes."""
        ...


@dataclass(frozen=True)
class FlipsCode:
    """A vote: 0 and 1."""

    draw: Draw

    @property
    def size(self) -> int:
        return self.draw.k.size

    def read(self, data: bytes) -> NDArray[np.int8]:
        return unpack(decode_flips(data, self.draw).mask, 0, self.draw.k.size).view(np.int8)

    def write(self, values: NDArray[np.int8]) -> bytes:
        return encode_flips(Flips(self.draw, pack(values.astype(np.bool_))))


@dataclass(frozen=True, eq=False)
class MovesCode:
    """The public state after a broadcast: -127 .. 127."""

    before: NDArray[np.int8]
    levels: Levels

    @property
    def size(self) -> int:
        return self.before.size

    def read(self, data: bytes) -> NDArray[np.int8]:
        return decode_moves(data, self.before, self.levels)

    def write(self, values: NDArray[np.int8]) -> bytes:
        return encode_moves(self.before, values, self.levels)


@dataclass(frozen=True)
class MaskCode:
    """A released mask: 0 and 1."""

    sizes: tuple[int, ...]
    seed: int
    edges: tuple[int, ...]

    @property
    def size(self) -> int:
        return sum(self.sizes)

    def read(self, data: bytes) -> NDArray[np.int8]:
        return decode_mask(data, self.sizes, self.seed, self.edges).bits().view(np.int8)

    def write(self, values: NDArray[np.int8]) -> bytes:
        return encode_mask(Mask.from_bits(values.astype(np.bool_), self.sizes), self.seed, self.edges)


@contextmanager
def lenient() -> Iterator[None]:
    """Reading does not ask whether the bytes are canonical, so that damaged ones can be given right hashes."""
    with mock.patch.object(Reader, "finish"):
        yield


@contextmanager
def forced(coder: Coder, lanes: int) -> Iterator[None]:
    """Writing takes this coder and so many lanes, not those that are right."""
    with mock.patch.object(codec._Sequence, "choose", return_value=(coder, lanes)):
        yield
