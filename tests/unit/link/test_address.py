from __future__ import annotations

import socket

import pytest

from pemn.errors import ConfigError, NetworkError
from pemn.link.address import Address, check_free


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051),
        ("server.example:1", "server.example", 1),
        ("[::1]:65535", "::1", 65535),
        ("[::]:0", "::", 0),
    ],
)
def test_an_address_is_read_and_written_back(text: str, host: str, port: int) -> None:
    address = Address.parse(text)
    assert (address.host, address.port) == (host, port)
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        ":1",
        "host:",
        "host:x",
        "host:65536",
        "host:-1",
        "::1:80",
        "[]:1",
        "http://host:1",
        "a b:1",
    ],
)
def test_what_is_no_address_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError, match="wanted HOST:PORT"):
        Address.parse(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_port_in_use_is_named(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            NetworkError, match=rf"cannot listen: got Address already in use; in {host}:{port}"
        ):
            check_free(Address(host, port))
    check_free(Address(host, port))


def test_a_foreign_address_cannot_be_listened_on() -> None:
    with pytest.raises(NetworkError, match=r"cannot listen: got .*; in 192\.0\.2\.1:5000"):
        check_free(Address("192.0.2.1", 5000))
    with pytest.raises(NetworkError, match="cannot listen"):
        check_free(Address("no-such-host.invalid", 5000))
