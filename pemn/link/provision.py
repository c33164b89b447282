"""What an operator gives out: the server's credentials, and a bundle for each client.

Source: docs/operate.md, "Credentials".
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pemn.errors import ConfigError, FileError
from pemn.files import read_bytes, write_atomic
from pemn.link.certificates import make_certificates
from pemn.link.enrolment import Enrolled, Enrolment
from pemn.link.keys import ClientKey

_MAX_PEM_BYTES = 1 << 20


@dataclass(frozen=True)
class ServerFiles:
    """The files of a folder that `provision` has made, for the server."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """The server's, PEM."""
        return self.folder / "server.pem"

    @property
    def key(self) -> Path:
        """The certificate's, PEM."""
        return self.folder / "server.key"

    @property
    def clients(self) -> Path:
        """Who may take part (`Enrolment`)."""
        return self.folder / "clients.txt"


@dataclass(frozen=True)
class ClientFiles:
    """The files of a client's bundle."""

    folder: Path

    @property
    def authority(self) -> Path:
        """Certificate of the authority that the server's is signed by, PEM."""
        return self.folder / "ca.pem"

    @property
    def key(self) -> Path:
        """The client's own, PEM."""
        return self.folder / "client.key"


def provision(folder: Path, hosts: Sequence[str], num_clients: int) -> None:
    """Makes a private authority, a server certificate that it signs, and a bundle for each client.

    Keys are readable by their owner only. The bundles, `client-0/` and so on, go to the clients, each to its own;
    `ca.key` is best kept offline; the rest is the server's.

    Args:
        folder: Where to; created if missing.
        hosts: Names and IP addresses by which clients reach the server, beside `localhost`, `127.0.0.1`, `::1`.
        num_clients: How many to enrol: slots 0 .. num_clients-1.

    Raises:
        ConfigError: If a host is neither a name nor an IP address.
        FileError: If one of the files exists or cannot be written; none is written then.
    """
    certificates = make_certificates(hosts)
    files = {folder / name: data for name, data in certificates.items()}
    clients = ServerFiles(folder).clients
    if clients.exists():
        raise FileError("file exists; remove it to make a new one", where=clients)
    enrolment = Enrolment(clients, [])
    for slot in range(num_clients):
        enrolment, bundle = _enrol(enrolment, folder, slot, f"client-{slot}", certificates["ca.pem"])
        files |= bundle
    _write_new(files, enrolment)


def enrol(folder: Path, slot: int, name: str | None = None) -> Path:
    """Makes a bundle for one more client; returns its folder.

    Args:
        folder: That `provision` has made.
        slot: The client's number, of nobody else who may take part.
        name: What to call it; `client-SLOT` if not given.

    Raises:
        ConfigError: If the folder is none of `provision`, or slot or name are wrong or taken.
        FileError: If a file exists or cannot be written; nothing has changed then.
    """
    name = name or f"client-{slot}"
    enrolment = Enrolment.read(ServerFiles(folder).clients)
    ca = read_bytes(folder / "ca.pem", max_bytes=_MAX_PEM_BYTES, what="certificate of the authority")
    enrolment, bundle = _enrol(enrolment, folder, slot, name, ca)
    _write_new(bundle, enrolment)
    return folder / name


def _enrol(
    enrolment: Enrolment, folder: Path, slot: int, name: str, ca: bytes
) -> tuple[Enrolment, dict[Path, bytes]]:
    key = ClientKey.generate()
    try:
        client = Enrolled.parse(str(Enrolled(slot, name, key.public)))
    except ValueError as error:
        raise ConfigError(
            "client",
            got=f"slot {slot}, name {name}",
            wanted="a slot from 0, and a name of letters, digits, . _ -",
        ) from error
    bundle = ClientFiles(folder / name)
    return enrolment.enrol(client), {bundle.authority: ca, bundle.key: key.to_pem()}


def _write_new(files: Mapping[Path, bytes], enrolment: Enrolment) -> None:
    """Writes all files, the list of clients last, or none."""
    for path in files:
        if path.exists():
            raise FileError("file exists; remove it to make a new one", where=path)
    made = []
    try:
        for path, data in files.items():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise FileError(f"cannot make directory, {error.strerror}", where=path.parent) from error
            made.append(path)
            write_atomic(path, data, mode=0o600 if path.suffix == ".key" else 0o644)
        enrolment.write()
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):
                path.unlink()
        raise
