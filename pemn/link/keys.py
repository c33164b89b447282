"""A client's key: who it is, and what it signs (Ed25519, RFC 8032).

Source: docs/wire.md, "Enrolment".
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pemn.errors import ConfigError, FileError
from pemn.files import read_bytes
from pemn.link.v1 import link_pb2 as pb
from pemn.wire.limits import CLIENT_ID_BYTES
from pemn.wire.messages import Update

PUBLIC_KEY_BYTES = 32
NONCE_BYTES = 32
_MAX_PEM_BYTES = 1 << 16


class ClientKey:
    """The private half, which never leaves the client.

    Args:
        key: As cryptography holds it.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> ClientKey:
        """Makes a new one."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, path: Path) -> ClientKey:
        """Reads a key that `to_pem` has made.

        Raises:
            ConfigError: If the file is missing, unreadable or no such key.
        """
        try:
            pem = read_bytes(path, max_bytes=_MAX_PEM_BYTES, what="client's key")
        except FileError as error:
            raise ConfigError(str(error)) from error
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError) as error:
            raise ConfigError("not an unencrypted private key in PEM form", where=path) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError("client's key", got=type(key).__name__, wanted="Ed25519", where=path)
        return cls(key)

    def to_pem(self) -> bytes:
        """Returns it unencrypted, PKCS #8 in PEM form."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def client_id(self) -> bytes:
        """The id that goes with it."""
        return client_id_of(self.public)

    def sign(self, text: bytes) -> bytes:
        """Returns 64 bytes."""
        return self._key.sign(text)

    def sign_update(self, update: Update, num_bits: int) -> Update:
        """Returns a vote with this client's signature.

        Args:
            update: The vote.
            num_bits: Of the network's mask.
        """
        return replace(update, signature=self.sign(update.signed(self.client_id, num_bits)))


def client_id_of(public_key: bytes) -> bytes:
    """Returns the id of the client that has a key: 16 bytes of its SHA-256."""
    return hashlib.sha256(public_key).digest()[:CLIENT_ID_BYTES]


def is_signed(public_key: bytes, signature: bytes, text: bytes) -> bool:
    """Returns whether a signature is of a text, and by a key."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


def signed_hello(hello: pb.Hello, nonce: bytes) -> bytes:
    """Returns what a client signs to enter.

    Args:
        hello: What it has said.
        nonce: 32 bytes that the server has drawn for this session.
    """
    numbers = (hello.protocol_version, hello.slot, hello.num_slots)
    return b"".join(
        (b"pemn hello", nonce, hello.client_id, *(number.to_bytes(4, "little") for number in numbers))
    )
