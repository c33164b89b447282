"""What gRPC is told: both ends notice a dead peer within a minute, keep a silent stream for hours, and stay small.

Source: gRPC's guide to keepalive and its proposal A18 (TCP_USER_TIMEOUT).
"""

from __future__ import annotations

PING_INTERVAL_S = 30
PING_TIMEOUT_S = 20
"""Unanswered for this long, a connection is dead; also the user timeout of its TCP socket."""

MIN_PING_INTERVAL_S = 10
"""A client that pings more often is cut off."""

CONNECT_TIMEOUT_S = 10

MAX_FRAME_BYTES = 1 << 20
"""Of a message on the stream; parts are shorter (`MAX_PART_BYTES`)."""

Options = list[tuple[str, int]]


def _options() -> Options:
    return [
        ("grpc.keepalive_time_ms", int(PING_INTERVAL_S * 1000)),
        # The first sets the user timeout of the socket; a peer whose kernel lives on while it does not is only
        # noticed by the second, a minute unless set.
        ("grpc.keepalive_timeout_ms", int(PING_TIMEOUT_S * 1000)),
        ("grpc.http2.ping_timeout_ms", int(PING_TIMEOUT_S * 1000)),
        # Training takes minutes without a byte: any number of pings may pass meanwhile.
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
    ]


def client_options() -> Options:
    """Returns the options of a client's channel."""
    return [
        *_options(),
        # One connection a client, also when many clients share a process: its bytes are the slot's.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.min_reconnect_backoff_ms", int(CONNECT_TIMEOUT_S * 1000)),
        # The client reconnects by itself, after telling why.
        ("grpc.enable_retries", 0),
    ]


def server_options() -> Options:
    """Returns the options of the server."""
    return [
        *_options(),
        ("grpc.http2.min_ping_interval_without_data_ms", int(MIN_PING_INTERVAL_S * 1000)),
        # Otherwise a second server would silently share the port.
        ("grpc.so_reuseport", 0),
        ("grpc.server_handshake_timeout_ms", int(CONNECT_TIMEOUT_S * 1000)),
        # A connection without a session costs a descriptor and memory.
        ("grpc.max_connection_idle_ms", 60_000),
        ("grpc.max_concurrent_streams", 4),
        # Windows that grow with the speed of the peer would be memory for strangers: 24 of them took 19 MB, not 2.
        ("grpc.http2.bdp_probe", 0),
    ]
