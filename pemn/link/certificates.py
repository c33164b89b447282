"""Certificates: a private authority, and the server certificates that it signs."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pemn.errors import ConfigError

CA_DAYS = 3650
SERVER_DAYS = 825
"""About two years: the most that strict clients take."""

ALWAYS_NAMED = ("localhost", "127.0.0.1", "::1")
_CLOCK_SLACK = datetime.timedelta(days=1)
"""A device whose clock is a little behind can use a certificate of today."""


def make_certificates(hosts: Sequence[str]) -> dict[str, bytes]:
    """Makes a private authority and a server certificate that it signs.

    Args:
        hosts: Names and IP addresses by which clients reach the server, beside `ALWAYS_NAMED`.

    Returns:
        PEM files by their names: `ca.pem`, which clients need, `server.pem` and `server.key`, which the server needs,
        and `ca.key`, which nobody needs until the server certificate is to be replaced.

    Raises:
        ConfigError: If a host is neither a name nor an IP address.
    """
    names = [_general_name(host) for host in dict.fromkeys((*ALWAYS_NAMED, *hosts))]
    ca_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = _ca_certificate(ca_key)
    server = _server_certificate(server_key, names, ca, ca_key)
    return {
        "ca.key": _key_pem(ca_key),
        "server.key": _key_pem(server_key),
        "ca.pem": ca.public_bytes(serialization.Encoding.PEM),
        "server.pem": server.public_bytes(serialization.Encoding.PEM),
    }


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
