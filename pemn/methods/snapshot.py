"""What a server has learnt, as bytes: with the spec it is enough to go on, bit for bit.

It is the server's own file and never travels. All integers are little-endian; one state has one form.

    bytes     what
    8         "PEMNSV", 0, version 1
    8         run id
    4, 4      number of slots; number of public states
    12 each   by slot: slot; 1 + the round that it is known to have, or 0; the round that it last voted for, or 0
    ...       by round, from 0, which follows from the spec, to the public state of now: round (4), length (4), the
              change since the state before it
    ...       private arrays of one dimension: dtype as numpy spells it (4), number of values (8), values
    32        SHA-256 of all bytes before
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pemn.errors import FileError, RemoteError
from pemn.federation.public import PublicState
from pemn.methods.method import Private
from pemn.methods.server import Server, ServerState
from pemn.wire.limits import SHA256_BYTES

_MAGIC = b"PEMNSV\x00\x01"
_HEAD = struct.Struct("<8sQII")
_SLOT = struct.Struct("<III")
_STATE = struct.Struct("<II")
_ARRAY = struct.Struct("<4sQ")


def encode_state(server: Server, state: ServerState) -> bytes:
    """Returns a server's state as bytes.

    Args:
        server: Whose state it is.
        state: After any round.
    """
    slots = sorted(state.known.keys() | state.voted.keys())
    states = [*(state.past[round_] for round_ in sorted(state.past)), state.public]
    parts = [_HEAD.pack(_MAGIC, server.spec.run_id, len(slots), len(states))]
    parts += (_SLOT.pack(slot, state.known.get(slot, -1) + 1, state.voted.get(slot, 0)) for slot in slots)
    before, _ = server.method.start()
    for each in states:
        change = server.method.encode_change(before, each, state.private)
        parts += (_STATE.pack(each.round, len(change)), change)
        before = each
    body = b"".join([*parts, *map(_to_bytes, state.private)])
    return body + hashlib.sha256(body).digest()


def decode_state(server: Server, data: bytes) -> ServerState:
    """Reads what `encode_state` wrote.

    Args:
        server: Of the same run.
        data: All bytes of the file.

    Raises:
        FileError: If they are damaged, no state of this run, or not what `encode_state` writes for it.
    """
    body = data[:-SHA256_BYTES]
    if hashlib.sha256(body).digest() != data[-SHA256_BYTES:]:
        raise FileError("state of a server is damaged or cut off", got=f"{len(data)} bytes")
    try:
        return _read(server, body)
    except (struct.error, ValueError, RemoteError) as error:
        raise FileError(f"state of a server makes no sense: {error}") from error


def _read(server: Server, body: bytes) -> ServerState:
    magic, run_id, num_slots, num_states = _HEAD.unpack_from(body)
    if magic != _MAGIC:
        raise FileError("not a state of a server", got=magic.hex(), wanted=_MAGIC.hex())
    if run_id != server.spec.run_id:
        raise FileError("state of another run", got=f"{run_id:016x}", wanted=f"{server.spec.run_id:016x}")
    at = _HEAD.size + num_slots * _SLOT.size
    slots = [_SLOT.unpack_from(body, entry) for entry in range(_HEAD.size, at, _SLOT.size)]
    known = {slot: known_and_1 - 1 for slot, known_and_1, _ in slots if known_and_1}
    voted = {slot: round_ for slot, _, round_ in slots if round_}
    # An entry that says nothing, or a second one of a slot, would be another form of the same state.
    if [slot for slot, _, _ in slots] != sorted(known.keys() | voted.keys()):
        raise ValueError("entries of its slots")
    first, private = server.method.start()
    states, before = [], first
    for _ in range(num_states):
        round_, num_bytes = _STATE.unpack_from(body, at)
        at += _STATE.size + num_bytes
        before = PublicState(round_, server.method.decode_change(before, body[at - num_bytes : at]))
        states.append(before)
    *past, now = states
    if [state.round for state in states] != sorted({0, *(state.round for state in states)}):
        raise ValueError("rounds of its public states")
    if not np.array_equal(states[0].values, first.values):
        raise ValueError("a change before round 1")
    if max([0, *known.values(), *voted.values()]) > now.round:
        raise ValueError("a slot is ahead of the public state")
    learnt = _arrays(body[at:], private)
    server.method.check_private(learnt)
    return ServerState(now, learnt, known, voted, {state.round: state for state in past})


def _to_bytes(array: NDArray[Any]) -> bytes:
    return (
        _ARRAY.pack(array.dtype.str.encode().replace(b">", b"<"), array.size)
        + array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    )


def _arrays(data: bytes, like: Private) -> Private:
    """Reads arrays of the dtypes of others, and of one dimension."""
    arrays, at = [], 0
    for array in like:
        dtype, size = _ARRAY.unpack_from(data, at)
        at += _ARRAY.size
        if dtype.rstrip(b"\0") != array.dtype.newbyteorder("<").str.encode():
            raise ValueError(f"dtype of a private array, {dtype!r}")
        if size * array.itemsize > len(data) - at:
            raise ValueError("a private array ends too early")
        read = np.frombuffer(data, array.dtype.newbyteorder("<"), size, at)
        arrays.append(read.astype(array.dtype))
        at += read.nbytes
    if at != len(data):
        raise ValueError("bytes after the private arrays")
    return tuple(arrays)
