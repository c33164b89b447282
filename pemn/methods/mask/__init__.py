"""The `mask` method: a seed once, then only binary masks in both directions.

`MaskServer` and `MaskClient` are the two halves. Each is a frozen value that holds what does not change in a run;
what changes is passed in and returned. They are fed messages and give messages back: no socket, file or clock.

Source: docs/algorithm.md.
"""

from pemn.methods.mask.ballot import Ballot, Vote
from pemn.methods.mask.client import MaskClient, Trainer
from pemn.methods.mask.server import MaskServer, ServerState
from pemn.methods.mask.snapshot import decode_state, encode_state

__all__ = [
    "Ballot",
    "MaskClient",
    "MaskServer",
    "ServerState",
    "Trainer",
    "Vote",
    "decode_state",
    "encode_state",
]
