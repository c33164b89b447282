"""The public state: the model that server and clients share.

Source: docs/wire.md, "Public state".
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pemn.wire.limits import STATE_HASH_BYTES


@dataclass(frozen=True, eq=False)
class PublicState:
    """What server and clients share after a round.

    Attributes:
        round: How many rounds it holds; 0 follows from the spec alone.
        values: One a weight, [n]; nobody can write to it from then on. Of `mask` they are k, int8: how many steps each
            weight has moved. Of other methods the method says what they are.
    """

    round: int
    values: NDArray[Any]
    _hashes: dict[int, bytes] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Closes the array: its hash is computed once."""
        self.values.setflags(write=False)

    def hash(self, run_id: int) -> bytes:
        """Returns 16 bytes by which two ends know that they have the same state of the same run."""
        if run_id not in self._hashes:  # a server compares it with every vote's
            digest = hashlib.sha256(b"pemn state" + struct.pack("<QI", run_id, self.round))
            digest.update(np.ascontiguousarray(self.values).data)
            self._hashes[run_id] = digest.digest()[:STATE_HASH_BYTES]
        return self._hashes[run_id]
