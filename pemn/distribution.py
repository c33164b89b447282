"""What the generated values look like: random words -> binary16 values of mean 0 and variance 1.

    signed     +1 or -1, one bit a value: the signed constant of Ramanujan et al. 2020
    uniform    between -sqrt(3) and sqrt(3), 16 bits a value
    normal     one of 65,536 quantiles of the normal distribution, 16 bits a value

A value is binary16 by definition, and every step to it is an integer operation, a look-up or one rounding of IEEE 754,
so all machines have the same.

Source: docs/wire.md, "Weights".
"""

from __future__ import annotations

import base64
import zlib
from enum import StrEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pemn.generator import uint8s, uint16s

# Row b holds, for each of the 8 bits of byte b, -1 where it is set and 1 where it is not.
_SIGNS_OF_BYTES = 1 - 2 * np.unpackbits(
    np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"
).astype(np.float32)

# The upper half of the quantiles (i + 1/2) / 65536 of the normal distribution, rounded to binary16: differences of
# their 16-bit codes, deflated. They are a constant of the format; tests/unit/core/test_distribution.py says whence.
# fmt: off
_NORMAL_STEPS = (
    'c-rlqU2fAr5XZ-En$i{_6;ULf=pzM*E1=w<T!MSRNy<%Y@<HPyw%3k#cV_mdmF?Zx`G3shA&x4$tLjhvyZ&6Ss#W#9dX~TPESvK$'
    'd0LO32iGV0Dqr@-V{3If@*p32#(nQ@c-EcVOdhvqU}G>{%VpqL24|)lOUI5bq*ip`Mza%K{5z^<Y|go^sG^D*DzMvO56#{T*&h4n'
    'q4hLW8dlBT%BvU_SkU&M?G=?$o6h5?WNsW#^Bg|q|GB;DI+Hani+)f;8Seb(!U!YkR@LbMxl?oLMu|?S6F(q8XhY!5h7y&PiNmdD'
    'bWYEu_FTiKzCR0_k4Mah#s^FunWz+2SW)n-fSP?Z9m=@S>;iYVE~x@4rbEp6RGBlU3w(-nhpKRI!zFGsIPk9OMG1ENQYkEXS?ual'
    'bIG4d**YFvk!?F0b@+5E+VterH5v0{;I8klqQ~q0`1w(o(etjS*@ZoCUK~>$9VY5GN*Cy^|H^Psngc4Z#EL8M`tUflp=8?=b$ZIA'
    'O5cub=ul&NG}XYEi_yCZ%2wP^2^}QX7o!7Zbq^;M3JMfpE5QdyocVM?MftL*$C?LR*~a1A3KQHG)b#0l@ksSVx*}ALznt1-^1?D7'
    '3m8opU#xm{Jylm$PyKe(YVBSTrD|%Z0!AB(`W*Oo%v#eLw_4R<%Yhz>hwY!Un-dK;zNjhHF4dx%ir14PKS)b{EOo%Y8}>@vE7ge>'
    'M%zBhL&2v>$)7uRrtFlVZ%@U)dQOB7?f6Xj6!a-qMmj-%ysFw|(XW|4+omG_nTe>+DDSK1E!O!md5^4KM&2lBGv+}Rq~|Q}Z;<i)'
    'PL7h_%HYwB|EI4@e}>lUGmjRYvg27PPtV8LLFdc1q2!B68!`@$X2sYmdukd{RvB{aq`}9^N{xumq}fHDx^lD3%^fdeUYvz!98~yz'
    '45sv$)Qov%TG(`DjoV9`9X}Ea9cO0_Y|PAf3_7nV(W!USM91gET;=?YZS!}f#@}L^eu1RE*SB*&oPsCaeO}BvtbF$<IqntmeV2~G'
    '#Q)w3%?QPg-=Bt_&N+T>`Z{E%Yc@9HcoiDyj*iP1KF03$MTX;tv*GB_Ib?Nw9h$Z0hpW?(siW>()hDm}tGZ+MdK}Jn=k~07TpXM?'
    '$L{=kU9_%?^>wiwm)rAhEZ4_UuGYtuylKXDGj5u3D{tjpGw$TQe3Vb}Adm7*e#i^)6gpl'
)
# fmt: on


class Distribution(StrEnum):
    """Which values a prototype is made of."""

    SIGNED = "signed"
    UNIFORM = "uniform"
    NORMAL = "normal"


def draw(distribution: Distribution, key: int, start: int, count: int) -> NDArray[np.float32]:
    """Returns values `start .. start + count - 1` of a stream.

    Args:
        distribution: Which values.
        key: Stream key (`pemn.generator.child`).
        start: First value.
        count: How many.

    Returns:
        float32 [count], each of them a binary16: processors are many times faster with the wider type.
    """
    if distribution is Distribution.SIGNED:
        octets = uint8s(key, start // 8, -(-(start + count) // 8) - start // 8)
        return _SIGNS_OF_BYTES.take(octets, axis=0, mode="clip").reshape(-1)[start % 8 :][:count]
    table = normal_table() if distribution is Distribution.NORMAL else uniform_table()
    return table.take(uint16s(key, start, count))


@cache
def uniform_table() -> NDArray[np.float32]:
    """Returns the values that 0 .. 65535 stand for, float32 [65536], ascending, each of them a binary16.

    Entry u is sqrt(3) * (2 u - 65535) / 65536: the middle of a 65,536th of the range.
    """
    step = np.float32(np.sqrt(3.0) / 65536)
    table = (np.arange(-65535, 65536, 2, dtype=np.float32) * step).astype(np.float16).astype(np.float32)
    table.setflags(write=False)
    return table


@cache
def normal_table() -> NDArray[np.float32]:
    """Returns the quantiles (i + 1/2) / 65536 of the normal distribution, float32 [65536], each of them a binary16."""
    steps = np.frombuffer(zlib.decompress(base64.b85decode(_NORMAL_STEPS)), "<u2")
    upper = np.cumsum(steps, dtype=np.uint16).view(np.float16).astype(np.float32)
    table = np.concatenate([-upper[::-1], upper])
    table.setflags(write=False)
    return table
