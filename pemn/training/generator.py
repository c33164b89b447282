"""The random words and values of `pemn.generator` and `pemn.distribution`, made by torch where they are needed.

SplitMix64 in counter mode, in int64: torch multiplies modulo 2^64 as uint64 would, and its arithmetic shift to the
right becomes a logical one by an AND. The bits are those of `pemn.generator.words` on every device.

Source: docs/wire.md, "Random words" and "Weights".
"""

from __future__ import annotations

import torch
from torch import Tensor

from pemn.distribution import Distribution, normal_table, uniform_table
from pemn.generator import GAMMA, MIX_1, MIX_2

_CPU_BLOCK_WORDS = 1 << 14  # two blocks of 128 KiB stay in the second-level cache
_BLOCK_WORDS = 1 << 24  # elsewhere launching a kernel costs more than memory; 128 MiB of scratch


def words(key: int, start: int, count: int, device: torch.device) -> Tensor:
    """Returns `count` words of the stream `key` from position `start` on.

    Args:
        key: Stream key, 0 .. 2^64-1.
        start: First position, 0 .. 2^64-1.
        count: How many.
        device: Where to make them.

    Returns:
        int64 [count] on `device`, with the bits of the uint64 that `pemn.generator.words` returns.
    """
    out = torch.empty(count, dtype=torch.int64, device=device)
    block = min(count, _CPU_BLOCK_WORDS if device.type == "cpu" else _BLOCK_WORDS)
    steps = torch.arange(1, block + 1, dtype=torch.int64, device=device).mul_(_signed(GAMMA))
    scratch = torch.empty_like(steps)
    for begin in range(0, count, max(block, 1)):
        z = out[begin : begin + block]
        t = scratch[: len(z)]
        torch.add(steps[: len(z)], _signed(key + (start + begin) * GAMMA), out=z)
        for shift, factor in ((30, MIX_1), (27, MIX_2)):
            z.bitwise_xor_(_shift_right(z, shift, t)).mul_(_signed(factor))
        z.bitwise_xor_(_shift_right(z, 31, t))
    return out


def draw(distribution: Distribution, key: int, start: int, count: int, device: torch.device) -> Tensor:
    """Returns values `start .. start + count - 1` of a stream.

    Args:
        distribution: Which values.
        key: Stream key.
        start: First value.
        count: How many.
        device: Where to make them.

    Returns:
        float32 [count] on `device`, with the bits of what `pemn.distribution.draw` returns.
    """
    num_bits = 1 if distribution is Distribution.SIGNED else 16
    per_word = 64 // num_bits
    first, last = start // per_word, -(-(start + count) // per_word)
    shifts = torch.arange(0, 64, num_bits, device=device)  # lowest first
    codes = words(key, first, last - first, device)[:, None] >> shifts & (1 << num_bits) - 1
    codes = codes.reshape(-1)[start - per_word * first :][:count]
    if distribution is Distribution.SIGNED:
        return 1.0 - 2.0 * codes.float()
    table = normal_table() if distribution is Distribution.NORMAL else uniform_table()
    return torch.from_numpy(table.copy()).to(device)[codes]


def _signed(value: int) -> int:
    """Returns the int64 with the bits of `value` modulo 2^64."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _shift_right(z: Tensor, num_bits: int, out: Tensor) -> Tensor:
    """Writes `z >> num_bits` with zeros at the top."""
    torch.bitwise_right_shift(z, num_bits, out=out)
    return out.bitwise_and_((1 << 64 - num_bits) - 1)
