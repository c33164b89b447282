"""What is fed arbitrary bytes: by hypothesis, by atheris, and, in every run of the tests, from the corpus.

A target is a function of bytes that raises where something is wrong: an error that may not be, or bytes that were
accepted and are not what would have been written. The first bytes of some inputs choose a context.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from pemn.artifact import Artifact
from pemn.codec import Decisions, Reader, blocks, encode, rice
from pemn.codec.bits import read_varint, write_varint
from pemn.errors import MalformedArtifact, MalformedFrame, RemoteError
from pemn.federation.flips import Draw
from pemn.federation.levels import Levels
from pemn.wire.messages import decode
from pemn.wire.messages import encode as encode_content
from pemn.wire.spec import Spec
from pemn.wire.v1 import messages_pb2 as pb
from tests.fuzz.codes import Code, FlipsCode, MaskCode, MovesCode
from tests.fuzz.ends import LARGEST_STATE, OpenedFile
from tests.fuzz.seals import FILE_HEAD, params_of, seal_content, seal_file
from tests.fuzz.worlds import SPECS

CORPUS = Path(__file__).parent / "corpus"

Target = Callable[[bytes], None]

_SHAPES = (), (2,), (3, 2), (4, 3, 2), (1, 1, 64)
_MOST_WEIGHTS = 1 << 13


def number(data: bytes) -> None:
    """A variable-length integer."""
    with suppress(MalformedFrame):
        value, stop = read_varint(data, 0, (1 << 32) - 1)
        assert write_varint(value) == data[:stop]


def ones(data: bytes) -> None:
    """A Rice code by itself; whether it is canonical, only a reader knows."""
    with suppress(MalformedFrame):
        places = rice.decode(data)
        assert places.size <= rice.MAX_ONES
        assert (np.diff(places, prepend=-1) > 0).all()
        again = rice.encode(places)
        assert np.array_equal(rice.decode(again), places)
        assert len(again) <= len(data)


def sequence(data: bytes) -> None:
    """A coded sequence of two decisions a weight, the second where the first is a 1.

    Byte 0 is the shape of the contexts; bytes 1 and 2 the number of weights.
    """
    shape, num_weights = (
        _SHAPES[sum(data[:1]) % len(_SHAPES)],
        int.from_bytes(data[1:3], "little") % _MOST_WEIGHTS,
    )
    contexts = (np.arange(num_weights) * 7919 % int(np.prod(shape))).astype(np.uint16)
    read: list[list[Decisions]] = []
    with suppress(MalformedFrame):
        reader = Reader(data[3:], shape)
        for start, stop in blocks(num_weights):
            first = reader.read(contexts[start:stop])
            second = reader.read(contexts[start:stop][first])
            read.append([(first, contexts[start:stop]), (second, contexts[start:stop][first])])
            reader.end_block()
        reader.finish()
        starts = [start for start, _ in blocks(num_weights)]
        again = encode(num_weights, lambda start, stop: read[starts.index(start)], shape)
        assert again == data[3:]


def _coded(make: Callable[[], Code]) -> Target:
    def target(data: bytes) -> None:
        code = make()
        with suppress(MalformedFrame):
            values = code.read(data)
            assert code.write(values) == data

    return target


_LEVELS = Levels.of(SPECS["small"][0])


@functools.cache
def flips_code() -> Code:
    """A vote of 1,200 weights."""
    k = (np.arange(_LEVELS.num_params) % 5 - 2).astype(np.int8)
    return FlipsCode(Draw(_LEVELS, k, 3, 1))


@functools.cache
def moves_code() -> Code:
    """Moves of 1,200 weights."""
    return MovesCode((np.arange(_LEVELS.num_params) % 255 - 127).astype(np.int8), _LEVELS)


@functools.cache
def mask_code() -> Code:
    """A released mask of 1,200 weights."""
    return MaskCode(_LEVELS.sizes, _LEVELS.seed, (100, 9000, 32768, 60000))


def content(data: bytes) -> None:
    """A content without its check, which is put there."""
    sealed = seal_content(data)
    with suppress(RemoteError):
        assert encode_content(decode(sealed)) == sealed


def spec(data: bytes) -> None:
    """A spec."""
    with suppress(RemoteError):
        assert Spec.from_bytes(data).to_bytes() == data


def file(data: bytes) -> None:
    """A .pemn file without its first six bytes and its SHA-256, which are put there."""
    sealed = seal_file(FILE_HEAD + data)
    with suppress(DecodeError):
        if params_of(pb.Artifact.FromString(data).model) > LARGEST_STATE:
            return  # reading it is proportional to what it says
    with suppress(MalformedArtifact):
        assert OpenedFile(Artifact.from_bytes(sealed), sealed).canonical() == sealed


TARGETS: dict[str, Target] = {
    "number": number,
    "ones": ones,
    "sequence": sequence,
    "flips": _coded(flips_code),
    "moves": _coded(moves_code),
    "mask": _coded(mask_code),
    "content": content,
    "spec": spec,
    "file": file,
}
"""By the name of their folder in the corpus."""
