"""HOST:PORT, as a person writes it."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import NamedTuple

from pemn.errors import ConfigError, NetworkError


class Address(NamedTuple):
    """Where a server listens; `str` gives back what `parse` reads."""

    host: str
    """A name or an IP address, without brackets."""
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads `HOST:PORT` or `[IPV6]:PORT`.

        Raises:
            ConfigError: If the text is neither.
        """
        host, _, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        bare = host.removeprefix("[").removesuffix("]") if bracketed else host
        valid = bare and (bracketed or ":" not in bare) and not set(bare) & set("/[] ,")
        if not valid or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ConfigError("address", got=repr(text), wanted="HOST:PORT or [IPV6]:PORT")
        return cls(bare, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only processes of this machine can be at the other end."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def check_free(address: Address) -> None:
    """Refuses an address that a server cannot listen on, before gRPC tries and fills the log.

    Raises:
        NetworkError: If the port is in use, or the host is not one of this machine.
    """
    failure: OSError | None = None
    free = False
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise NetworkError("cannot listen", got=error.strerror or error, where=address) from error
    for family, kind, protocol, _, place in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind(place)
                probe.listen(1)
                free = True
            except OSError as error:
                failure = error
                if error.errno == errno.EADDRINUSE:
                    free = False
                    break
    if failure is not None and not free:
        raise NetworkError("cannot listen", got=failure.strerror, where=address) from failure
