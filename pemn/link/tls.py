"""Certificates: a private authority and a server certificate made here, and the credentials that gRPC wants."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pemn.errors import ConfigError, FileError
from pemn.files import read_bytes, write_atomic

CA_DAYS = 3650
SERVER_DAYS = 825
"""About two years: the most that strict clients take."""

_ALWAYS_NAMED = ("localhost", "127.0.0.1", "::1")
_CLOCK_SLACK = datetime.timedelta(days=1)
"""A device whose clock is a little behind can use a certificate of today."""

_MAX_PEM_BYTES = 1 << 20


def provision(directory: Path, hosts: Sequence[str]) -> None:
    """Makes a private authority and a server certificate that it signs.

    Writes `ca.pem`, which clients need, `server.pem` and `server.key`, which the server needs, and `ca.key`, which
    nobody needs until the server certificate is to be replaced. Keys are readable by their owner only.

    Args:
        directory: Where to; created if missing.
        hosts: Names and IP addresses by which clients reach the server, beside `localhost`, `127.0.0.1`, `::1`.

    Raises:
        ConfigError: If a host is neither a name nor an IP address.
        FileError: If one of the files exists or cannot be written; none is written then.
    """
    names = [_general_name(host) for host in dict.fromkeys((*_ALWAYS_NAMED, *hosts))]
    ca_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = _ca_certificate(ca_key)
    server = _server_certificate(server_key, names, ca, ca_key)
    files = {
        "ca.key": _key_pem(ca_key),
        "server.key": _key_pem(server_key),
        "ca.pem": ca.public_bytes(serialization.Encoding.PEM),
        "server.pem": server.public_bytes(serialization.Encoding.PEM),
    }
    paths = {directory / name: data for name, data in files.items()}
    for path in paths:
        if path.exists():
            raise FileError("file exists; remove it to make new certificates", where=path)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make directory, {error.strerror}", where=directory) from error
    try:
        for path, data in paths.items():
            write_atomic(path, data, mode=0o600 if path.suffix == ".key" else 0o644)
    except BaseException:
        for path in paths:
            with contextlib.suppress(OSError):
                path.unlink()
        raise


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    labels = host.removeprefix("*.").split(".")
    valid = all(label.replace("-", "").isalnum() and label[0] != "-" and len(label) < 64 for label in labels)
    if not (valid and host.isascii() and len(host) < 254):
        raise ConfigError("host of a certificate", got=repr(host), wanted="a name or an IP address")
    return x509.DNSName(host)


def _builder(name: str, issuer: str, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SLACK)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _ca_certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    # The name tells two authorities apart when the wrong one is in use.
    name = f"PEMN authority {x509.random_serial_number() & 0xFFFFFFFF:08x}"
    return (
        _builder(name, name, key, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_ca=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _server_certificate(
    key: ec.EllipticCurvePrivateKey,
    names: list[x509.GeneralName],
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    (issuer,) = ca.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return (
        _builder("PEMN server", str(issuer.value), key, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


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
