"""Which keys may take part: one for each slot, in a file of a line a client.

Source: docs/wire.md, "Enrolment".
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pemn.errors import ConfigError, FileError, NotEnrolled
from pemn.files import read_bytes, write_atomic
from pemn.link.keys import PUBLIC_KEY_BYTES, client_id_of, is_signed
from pemn.link.v1 import link_pb2 as pb
from pemn.wire.limits import MAX_SLOTS
from pemn.wire.messages import Update

_HEAD = "# slot, name and Ed25519 public key of every client; `revoked` after those that may no longer take part\n"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REVOKED = "revoked"
_MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Enrolled:
    """A client that was enrolled.

    Attributes:
        slot: Its number in a run.
        name: What people call it: letters, digits, `.`, `_` and `-`.
        public_key: Ed25519, 32 bytes.
        is_revoked: Whether it may no longer take part.
    """

    slot: int
    name: str
    public_key: bytes
    is_revoked: bool = False

    @classmethod
    def parse(cls, line: str) -> Enrolled:
        """Reads a line of the file.

        Raises:
            ValueError: If it is none.
        """
        slot, name, key, *rest = line.split()
        public_key = base64.b64decode(key, validate=True)
        if len(public_key) != PUBLIC_KEY_BYTES or rest not in ([], [_REVOKED]) or not is_name(name):
            raise ValueError(line)
        return cls(check_slot(int(slot)), name, public_key, bool(rest))

    def __str__(self) -> str:
        words = [str(self.slot), self.name, base64.b64encode(self.public_key).decode()]
        return " ".join([*words, _REVOKED] if self.is_revoked else words)


def is_name(text: str) -> bool:
    """Returns whether a client may be called so; no number, or it would be taken for a slot."""
    return bool(_NAME.fullmatch(text)) and not text.isdecimal()


def check_slot(slot: int) -> int:
    """Returns a slot's number.

    Raises:
        ValueError: If there can be no such slot.
    """
    if not 0 <= slot < MAX_SLOTS:
        raise ValueError(slot)
    return slot


class Enrolment:
    """Who may take part. Any thread may ask and revoke.

    Args:
        path: The file; it is replaced whole with every change.
        clients: What is in it.

    Raises:
        ConfigError: If two clients have the same name, the same key, or, neither revoked, the same slot.
    """

    def __init__(self, path: Path, clients: Iterable[Enrolled]) -> None:
        self._path, self._clients = path, tuple(clients)
        self._active = {client.slot: client for client in self._clients if not client.is_revoked}
        self._changing = threading.Lock()
        for what, values in (
            ("slot", Counter(client.slot for client in self._clients if not client.is_revoked)),
            ("name", Counter(client.name for client in self._clients)),
            ("key", Counter(client.public_key.hex() for client in self._clients)),
        ):
            for value, count in values.most_common(1):
                if count > 1:
                    raise ConfigError(f"two clients with one {what}", got=value, where=path)

    @classmethod
    def read(cls, path: Path) -> Enrolment:
        """Reads the file.

        Raises:
            ConfigError: If it is missing, unreadable or not what it should be.
        """
        try:
            text = read_bytes(path, max_bytes=_MAX_BYTES, what="list of clients").decode()
        except FileError as error:
            raise ConfigError(str(error)) from error
        except UnicodeDecodeError as error:
            raise ConfigError("list of clients is no text", where=path) from error
        clients = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.startswith("#"):
                try:
                    clients.append(Enrolled.parse(line))
                except (ValueError, binascii.Error) as error:
                    wanted = f"SLOT NAME KEY, and perhaps {_REVOKED}"
                    raise ConfigError(
                        "list of clients", got=line[:80], wanted=wanted, where=f"{path}, line {number}"
                    ) from error
        return cls(path, clients)

    def write(self) -> None:
        """Writes the file.

        Raises:
            FileError: If it cannot be written.
        """
        text = _HEAD + "".join(f"{client}\n" for client in self._clients)
        write_atomic(self._path, text.encode())

    @property
    def clients(self) -> tuple[Enrolled, ...]:
        """All that were ever enrolled."""
        return self._clients

    def of(self, slot: int) -> Enrolled:
        """Returns who may take part in a slot.

        Raises:
            NotEnrolled: If nobody may.
        """
        client = self._active.get(slot)
        if client is None:
            raise NotEnrolled("no client is enrolled", where=f"slot {slot}")
        return client

    def check_hello(self, hello: pb.Hello) -> Enrolled:
        """Returns who a client says it is.

        Raises:
            NotEnrolled: If its slot is not its own.
        """
        client = self.of(hello.slot)
        if client_id_of(client.public_key) != hello.client_id:
            raise NotEnrolled("the key is not the one enrolled", where=f"slot {hello.slot}")
        return client

    def check_update(self, slot: int, update: Update, num_bits: int) -> None:
        """Refuses a vote that its slot's client has not signed.

        Args:
            slot: From whom it has come.
            update: The vote.
            num_bits: Of the network's mask.

        Raises:
            NotEnrolled: If nobody is enrolled there, or the signature is not that client's of that update.
        """
        key = self.of(slot).public_key
        if not is_signed(key, update.signature, update.signed(client_id_of(key), num_bits)):
            raise NotEnrolled("update without its client's signature", where=f"slot {slot}")

    def enrol(self, client: Enrolled) -> Enrolment:
        """Returns an enrolment with one more client.

        Raises:
            ConfigError: If its slot, name or key is another's.
        """
        return Enrolment(self._path, (*self._clients, client))

    def revoke(self, who: str) -> Enrolled:
        """Takes a client's right to take part, here and in the file.

        Args:
            who: Its name, or its slot.

        Raises:
            ConfigError: If there is no such client, or it was revoked before.
            FileError: If the file cannot be written; nothing has changed then.
        """
        with self._changing:
            for client in self._active.values():
                if who in (client.name, str(client.slot)):
                    revoked = replace(client, is_revoked=True)
                    after = Enrolment(self._path, [revoked if c == client else c for c in self._clients])
                    after.write()
                    self._clients, self._active = after._clients, after._active
                    return revoked
        raise ConfigError("client to revoke", got=who, wanted="name or slot of one that may take part")
