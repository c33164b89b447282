"""Binary masks: which weights are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pemn.errors import LocalError

_PIECE_BYTES = 1 << 16  # what is shifted at once: a decoder has no room for a second mask


def packed_bytes(sizes: Sequence[int]) -> int:
    """Returns the length of a packed mask: every layer starts on a byte."""
    return sum(-(-size // 8) for size in sizes)


@dataclass(frozen=True, eq=False)
class Mask:
    """One bit a weight, or a tie of weights (`untied`), packed.

    Bit `i % 8` of byte `i // 8` of a layer (lowest bit first) says whether weight `i` is kept. Every layer starts on
    a byte; the bits that fill up its last byte are 0.

    Attributes:
        sizes: Number of weights of each layer.
        packed: uint8 [sum of ceil(size / 8)], read-only.
    """

    sizes: tuple[int, ...]
    packed: NDArray[np.uint8]

    def __post_init__(self) -> None:
        """Checks length and padding, and freezes the bytes.

        Raises:
            LocalError: If the bytes do not fit the sizes or a padding bit is set.
        """
        wanted = packed_bytes(self.sizes)
        if self.packed.dtype != np.uint8 or self.packed.shape != (wanted,):
            got = f"{self.packed.dtype} {self.packed.shape}"
            raise LocalError("packed mask", got=got, wanted=f"uint8 ({wanted},)")
        for size, part in zip(self.sizes, self._parts(), strict=True):
            if size % 8 and part[-1] >> (size % 8):
                raise LocalError("packed mask has padding bits set")
        self.packed.setflags(write=False)

    @classmethod
    def from_bits(cls, bits: NDArray[np.bool_], sizes: Sequence[int]) -> Mask:
        """Packs one bit a weight.

        Args:
            bits: bool [n], layer after layer without padding.
            sizes: Number of weights of each layer; their sum is n.
        """
        if bits.shape != (sum(sizes),):
            raise LocalError("mask bits", got=bits.shape, wanted=(sum(sizes),))
        ends = np.cumsum(sizes)[:-1]
        parts = [np.packbits(part, bitorder="little") for part in np.split(bits, ends)]
        return cls(tuple(sizes), np.concatenate(parts))

    def bits(self) -> NDArray[np.bool_]:
        """Returns bool [n], layer after layer without padding."""
        out, start = np.empty(sum(self.sizes), np.uint8), 0
        for size, part in zip(self.sizes, self._parts(), strict=True):
            out[start : start + size] = np.unpackbits(part, bitorder="little", count=size)
            start += size
        return out.view(np.bool_)

    @classmethod
    def from_flat(cls, flat: NDArray[np.uint8], sizes: Sequence[int]) -> Mask:
        """Takes bits that are packed in one piece, as `flat` returns them.

        Args:
            flat: uint8 [ceil(n / 8)]; bits behind the last weight count for nothing.
            sizes: Number of weights of each layer; their sum is n.
        """
        num_params = sum(sizes)
        if flat.dtype != np.uint8 or flat.shape != (-(-num_params // 8),):
            wanted = f"uint8 ({-(-num_params // 8)},)"
            raise LocalError("flat mask", got=f"{flat.dtype} {flat.shape}", wanted=wanted)
        packed, start, begin = np.empty(packed_bytes(sizes), np.uint8), 0, 0
        for size in sizes:
            layer = packed[begin : begin + -(-size // 8)]
            _shift_down(flat[start // 8 : -(-(start + size) // 8)], start % 8, layer)
            if size % 8:
                layer[-1] &= (1 << size % 8) - 1
            start, begin = start + size, begin + layer.size
        return cls(tuple(sizes), packed)

    def flat(self) -> NDArray[np.uint8]:
        """Returns the bits of all layers packed in one piece, with no padding between them: uint8 [ceil(n / 8)]."""
        out, start = np.zeros(-(-sum(self.sizes) // 8), np.uint8), 0
        for size, layer in zip(self.sizes, self._parts(), strict=True):
            _shift_up(layer, start % 8, out[start // 8 : -(-(start + size) // 8)])
            start += size
        return out

    def layer(self, index: int) -> NDArray[np.uint8]:
        """Returns the packed bytes of one layer."""
        return self._parts()[index]

    @property
    def num_kept(self) -> int:
        """Number of weights that are kept."""
        return int(np.bitwise_count(self.packed).sum(dtype=np.int64))

    @property
    def density(self) -> float:
        """Share of weights that are kept, 0 .. 1."""
        return self.num_kept / sum(self.sizes)

    @cached_property
    def sha256(self) -> bytes:
        """Hash of the packed bytes."""
        return hashlib.sha256(self.packed.tobytes()).digest()

    def __xor__(self, other: Mask) -> Mask:
        """Returns the mask of the weights in which two masks differ."""
        if self.sizes != other.sizes:
            raise LocalError("masks of two networks", got=other.sizes, wanted=self.sizes)
        return Mask(self.sizes, self.packed ^ other.packed)

    def __eq__(self, other: object) -> bool:
        """Two masks are equal if every bit is."""
        if not isinstance(other, Mask):
            return NotImplemented
        return self.sizes == other.sizes and bool(np.array_equal(self.packed, other.packed))

    __hash__ = None  # type: ignore[assignment]

    def _parts(self) -> list[NDArray[np.uint8]]:
        ends = np.cumsum([-(-size // 8) for size in self.sizes])[:-1]
        return np.split(self.packed, ends)


def untied(mask: Mask, sizes: Sequence[int], tie: int) -> Mask:
    """Returns a bit for every value, where several share one.

    Of a layer with L bits, value i has bit `i % L`, inverted if `i // L` is odd: of the values that share a bit, half
    are kept whatever it is.

    Args:
        mask: `ceil(size / tie)` bits a layer.
        sizes: Number of values of each layer.
        tie: How many share a bit; 1 leaves the mask as it is.

    Raises:
        LocalError: If the mask has another number of bits.

    Source: docs/wire.md, "Tied masks".
    """
    wanted = tuple(-(-size // tie) for size in sizes)
    if mask.sizes != wanted:
        raise LocalError("mask of another network", got=mask.sizes, wanted=wanted)
    if tie == 1:
        return mask
    parts = []
    for index, size in enumerate(sizes):
        bits = np.unpackbits(mask.layer(index), bitorder="little", count=wanted[index])
        rows = bits ^ (np.arange(tie, dtype=np.uint8) & 1)[:, None]
        parts.append(np.packbits(rows.reshape(-1)[:size], bitorder="little"))
    return Mask(tuple(sizes), np.concatenate(parts))


def _shift_down(data: NDArray[np.uint8], num_bits: int, out: NDArray[np.uint8]) -> None:
    """Writes packed bits without the first `num_bits`, 0 .. 7, as many as there is room for."""
    np.right_shift(data[: out.size], np.uint8(num_bits), out=out)
    if num_bits:
        for here, after in _pieces(data.size):
            out[here] |= data[after] << np.uint8(8 - num_bits)


def _shift_up(data: NDArray[np.uint8], num_bits: int, out: NDArray[np.uint8]) -> None:
    """Adds packed bits from bit `num_bits`, 0 .. 7, of `out` on, whose bits there are 0."""
    first = data[: out.size]
    for begin in range(0, first.size, _PIECE_BYTES):
        piece = slice(begin, begin + _PIECE_BYTES)
        out[: first.size][piece] |= first[piece] << np.uint8(num_bits)
    if num_bits:
        for here, after in _pieces(out.size):
            out[after] |= data[here] >> np.uint8(8 - num_bits)


def _pieces(num_bytes: int) -> Iterator[tuple[slice, slice]]:
    """Yields pieces of all bytes but the last, and with each the bytes one further on."""
    for begin in range(0, num_bytes - 1, _PIECE_BYTES):
        end = min(begin + _PIECE_BYTES, num_bytes - 1)
        yield slice(begin, end), slice(begin + 1, end + 1)
