"""The public state: the only model that is ever shared, and it is all integers.

Source: docs/wire.md, "Public state".
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pemn.errors import MissingSpec, OutOfSync
from pemn.federation.levels import HALF, Levels
from pemn.federation.moves import decode_moves, encode_moves
from pemn.mask import Mask
from pemn.wire.limits import STATE_HASH_BYTES
from pemn.wire.messages import Broadcast
from pemn.wire.spec import Spec


@dataclass(frozen=True, eq=False)
class PublicState:
    """What server and clients share after a round.

    Attributes:
        round: How many rounds it holds; 0 follows from the spec alone.
        k: int8 [n], how many steps each weight has moved; nobody can write to it from then on.
    """

    round: int
    k: NDArray[np.int8]
    _hashes: dict[int, bytes] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Closes the array: its hash is computed once."""
        self.k.setflags(write=False)

    @classmethod
    def start(cls, num_params: int) -> PublicState:
        """Returns the state before the first round."""
        return cls(0, np.zeros(num_params, np.int8))

    def hash(self, run_id: int) -> bytes:
        """Returns 16 bytes by which two ends know that they have the same state of the same run."""
        if run_id not in self._hashes:  # a server compares it with every vote's
            digest = hashlib.sha256(b"pemn state" + struct.pack("<QI", run_id, self.round))
            digest.update(np.ascontiguousarray(self.k).data)
            self._hashes[run_id] = digest.digest()[:STATE_HASH_BYTES]
        return self._hashes[run_id]

    def mask(self, levels: Levels) -> Mask:
        """Returns the mask that everybody shares: the weights that are rather kept than not."""
        return Mask.from_bits(levels.at(self.k) > HALF, levels.sizes)


def broadcast(run_id: int, levels: Levels, base: PublicState, now: PublicState) -> Broadcast:
    """Returns the message that takes a client from `base` to `now`."""
    return Broadcast(run_id, base.round, now.round, now.hash(run_id), encode_moves(base.k, now.k, levels))


def apply(spec: Spec, levels: Levels, state: PublicState, message: Broadcast) -> PublicState:
    """Returns the state after a broadcast; a broadcast that was applied before changes nothing.

    Raises:
        MissingSpec: If it is of another run.
        OutOfSync: If the broadcast starts from another state than `state`, or leads to another hash.
        MalformedFrame: If its moves are no canonical moves.
    """
    if message.run_id != spec.run_id:
        raise MissingSpec(
            "run", got=f"{message.run_id:016x}", wanted=f"{spec.run_id:016x}", where="broadcast"
        )
    if message.round == state.round and message.state_hash == state.hash(spec.run_id):
        return state
    if message.base_round == 0:
        state = PublicState.start(state.k.size)
    if message.base_round != state.round:
        raise OutOfSync("base round", got=message.base_round, wanted=state.round, where="broadcast")
    after = PublicState(message.round, decode_moves(message.moves, state.k, levels))
    if after.hash(spec.run_id) != message.state_hash:
        raise OutOfSync("hash of the public state", where=f"broadcast of round {message.round}")
    return after
