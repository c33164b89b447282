"""Inputs that a corpus starts from: `python -m tests.fuzz.corpus` writes them to the committed one."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

import numpy as np

from tests.fuzz.codes import MovesCode
from tests.fuzz.ends import FileEnd, StoreEnd
from tests.fuzz.seals import FILE_HEAD, body, read
from tests.fuzz.sequences import bomb, damage, respell
from tests.fuzz.targets import CORPUS, flips_code, mask_code, moves_code
from tests.fuzz.worlds import frames

_LONGEST = 1200
_SHARES = 0.0, 0.003, 0.05, 0.5


def seeds() -> Iterator[tuple[str, bytes]]:
    """Yields targets and inputs for them: valid ones, ones in another spelling, damaged ones and bombs."""
    draw = random.Random("corpus")
    for frame in frames("tiny", "tied"):
        inside = body(frame)
        if isinstance(frame.end, FileEnd):
            yield "file", inside[len(FILE_HEAD) :]
        elif isinstance(frame.end, StoreEnd):
            yield "spec", inside
        else:
            yield "content", inside
            proto = read(frame, inside)
            for coded in (proto.update.vote, proto.broadcast.change):
                yield "sequence", b"\0\x32\0" + coded
    for name, code in (("flips", flips_code()), ("moves", moves_code()), ("mask", mask_code())):
        for share in _SHARES:
            values = code.before.copy() if isinstance(code, MovesCode) else np.zeros(code.size, np.int8)
            random_ = np.random.default_rng(draw.getrandbits(32))
            where = random_.random(code.size) < share
            values[where] = random_.integers(-100, 100, int(where.sum())) if name == "moves" else 1
            coded = code.write(values)
            yield name, coded
            yield name, damage(coded, draw)
            if coded:
                yield name, respell(code, coded, draw)
        for _ in range(4):
            yield name, bomb(code.size, draw)
    for coded in (b"\0", b"\x7f", b"\xff\x7f", b"\x80\0", b"\xff" * 5, b"\xff\xff\xff\xff\x0f"):
        yield "number", coded
    for coded in (
        b"\0",
        b"\x03\x03\xc3\xf9",
        b"\x02\x08\x11\xc0\x1c",
        b"\x81\0\0\1",
        b"\1\x1f\1\0\0\0\0",
        b"\1\x20\1",
    ):
        yield "ones", coded
        yield "sequence", b"\1\xe8\3\1" + coded


def add(target: str, data: bytes) -> None:
    """Puts an input into the corpus, if it is short."""
    if len(data) <= _LONGEST:
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)


def main() -> None:
    for target, data in seeds():
        add(target, data)


if __name__ == "__main__":
    main()
