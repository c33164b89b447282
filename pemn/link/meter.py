"""On-wire bytes of TCP connections, TLS and HTTP/2 included, as the Linux kernel counts them.

Source: `struct tcp_info` in linux/tcp.h, Linux 4.1 or newer. Elsewhere there is no such figure, and none is guessed.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

_OPEN_FILES = Path("/proc/self/fd")
_COUNTERS = struct.Struct("=QQ")  # tcpi_bytes_acked, tcpi_bytes_received
_COUNTERS_OFFSET = 120
_INFO_BYTES = _COUNTERS_OFFSET + _COUNTERS.size


class Peer(NamedTuple):
    """The other end of a connection: an address without its scope, and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Peer:
        """Reads what `grpc.ServicerContext.peer()` returns, as `ipv6:%5B::1%5D:5000`."""
        host, _, port = unquote(text).partition(":")[2].rpartition(":")
        return cls(host.strip("[]").partition("%")[0], int(port))


class Traffic(NamedTuple):
    """Bytes of one or more connections."""

    received: int
    sent: int
    """Only what the peer has acknowledged."""

    def __add__(self, other: object) -> Traffic:
        """Sums field by field, unlike a tuple."""
        if not isinstance(other, Traffic):
            return NotImplemented
        return Traffic(self.received + other.received, self.sent + other.sent)


class Connection(NamedTuple):
    """One TCP connection of this process; the inode tells it from a later one of the same peer."""

    peer: Peer
    inode: str


def _connections(local_port: int) -> Iterator[tuple[Connection, Traffic]]:
    for entry in os.listdir(_OPEN_FILES):  # noqa: PTH208 (a scan of every second: no Path for each)
        try:
            inode = os.readlink(f"{_OPEN_FILES}/{entry}")  # noqa: PTH115
            if not inode.startswith("socket:"):
                continue
            # Closing a duplicate leaves the owner's descriptor open.
            with socket.socket(fileno=os.dup(int(entry))) as duplicate:
                internet = duplicate.family in (socket.AF_INET, socket.AF_INET6)
                if not internet or duplicate.type != socket.SOCK_STREAM:
                    continue
                if duplicate.getsockname()[1] != local_port:
                    continue
                host, port = duplicate.getpeername()[:2]
                info = duplicate.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
                sent, received = _COUNTERS.unpack_from(info, _COUNTERS_OFFSET)
                peer = Peer(host.removeprefix("::ffff:").partition("%")[0], port)
                yield Connection(peer, inode), Traffic(received, sent)
        except OSError as error:
            # Between one call and the next the owner may close the descriptor: then it is no connection any more.
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise


def is_supported() -> bool:
    """Returns whether this system tells the bytes of a TCP connection."""
    if sys.platform != "linux" or not _OPEN_FILES.is_dir():
        return False
    with socket.socket() as probe:
        return len(probe.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)) == _INFO_BYTES


class TcpMeter:
    """Counts the bytes of every connection to one local port; what a closed connection carried stays counted.

    The kernel forgets a connection when it closes, so a connection counts as far as it was last polled: poll now and
    then, and when work on a connection ends. Every method may be called from any thread.
    """

    def __init__(self, local_port: int) -> None:
        self._local_port = local_port
        self._lock = threading.Lock()
        self._open: dict[Connection, Traffic] = {}
        self._owners: dict[Connection, int] = {}
        self._closed: defaultdict[int | None, Traffic] = defaultdict(lambda: Traffic(0, 0))

    def poll(self) -> None:
        """Reads the kernel's counters."""
        with self._lock:
            self._poll()

    def _poll(self) -> None:
        try:
            found = dict(_connections(self._local_port))
        except OSError:
            return  # no descriptor left to look with: what is known stays true, and nothing counts as closed
        for gone in self._open.keys() - found.keys():
            self._closed[self._owners.pop(gone, None)] += self._open[gone]
        self._open = found

    def assign(self, peer: str, owner: int) -> None:
        """Counts the open connection of `peer`, from its first byte, as its first owner's.

        Args:
            peer: As `grpc.ServicerContext.peer()` gives it.
            owner: Whose it is; a number that the caller chooses.
        """
        with self._lock:
            self._poll()
            for connection in self._open:
                if connection.peer == Peer.parse(peer):
                    self._owners.setdefault(connection, owner)

    def totals(self) -> dict[int | None, Traffic]:
        """Polls, and returns the bytes of all connections by owner; those without an owner stand under None."""
        with self._lock:
            self._poll()
            sums = self._closed.copy()
            for connection, traffic in self._open.items():
                sums[self._owners.get(connection)] += traffic
            return dict(sums)
