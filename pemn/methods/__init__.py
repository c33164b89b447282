"""Federated methods, and the two halves of a run.

A `Method` is a frozen value of pure functions. `Server` and `Client` are the halves that every method shares: they are
fed messages and give messages back, without a socket, a file or a clock.

Source: docs/algorithm.md.
"""

from pemn.methods.ballot import Ballot, Vote
from pemn.methods.client import Client
from pemn.methods.method import Memory, Method, Trainer
from pemn.methods.registry import method_of
from pemn.methods.server import Server, ServerState
from pemn.methods.snapshot import decode_state, encode_state

__all__ = [
    "Ballot",
    "Client",
    "Memory",
    "Method",
    "Server",
    "ServerState",
    "Trainer",
    "Vote",
    "decode_state",
    "encode_state",
    "method_of",
]
