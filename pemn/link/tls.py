"""The credentials that gRPC wants, from PEM files."""

from __future__ import annotations

import datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pemn.errors import ConfigError, FileError
from pemn.files import read_bytes

_MAX_PEM_BYTES = 1 << 20


def server_credentials(cert: Path, key: Path) -> grpc.ServerCredentials:
    """Reads the server's certificate, with any chain after it, and its key.

    Raises:
        ConfigError: If a file is missing, unreadable or not PEM, the key is not the certificate's, or the
            certificate is out of date.
    """
    cert_pem, key_pem = _read(cert, "certificate"), _read(key, "key")
    certificate = _certificates(cert_pem, cert)[0]
    try:
        private_key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError("not an unencrypted private key in PEM form", where=key) from error
    if private_key.public_key() != certificate.public_key():
        raise ConfigError("the key is not the certificate's", got=key, where=cert)
    if certificate.not_valid_after_utc < datetime.datetime.now(datetime.UTC):
        raise ConfigError(
            "certificate is out of date", got=f"{certificate.not_valid_after_utc:%Y-%m-%d}", where=cert
        )
    return grpc.ssl_server_credentials([(key_pem, cert_pem)])


def client_credentials(ca: Path) -> grpc.ChannelCredentials:
    """Reads the certificates of the authorities that a client trusts.

    Raises:
        ConfigError: If the file is missing, unreadable or not PEM.
    """
    pem = _read(ca, "certificate of the authority")
    _certificates(pem, ca)
    return grpc.ssl_channel_credentials(root_certificates=pem)


def _certificates(pem: bytes, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ConfigError("not a certificate in PEM form", where=path) from error


def _read(path: Path, what: str) -> bytes:
    try:
        return read_bytes(path, max_bytes=_MAX_PEM_BYTES, what=what)
    except FileError as error:
        raise ConfigError(str(error)) from error
