"""Why a connection failed, found out with a plain socket: gRPC says little more than UNAVAILABLE."""

from __future__ import annotations

import datetime
import socket
import ssl
from pathlib import Path

from cryptography import x509

from pemn.errors import TlsError
from pemn.link.address import Address

_TIMEOUT_S = 5
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What a client of HTTP/2 says first: the preface and an empty SETTINGS frame (RFC 9113, section 3.4)."""

# X509_V_ERR_* of OpenSSL's x509_vfy.h.
_NOT_YET_VALID = 9
_HAS_EXPIRED = 10
_HOSTNAME_MISMATCH = 62
_IP_ADDRESS_MISMATCH = 64


def diagnose(server: Address, ca: Path | None) -> str | None:
    """Returns why the server cannot be reached, for a failure that time may mend; None if it can be.

    Args:
        server: Where it should be.
        ca: Certificates that the client trusts; None: it wants no TLS.

    Raises:
        TlsError: If client and server will never understand each other.
    """
    try:
        if ca is None:
            if _peer_certificate(server) is not None:
                raise TlsError(
                    "the server speaks TLS", got="--insecure", wanted="--credentials DIR", where=server
                )
        else:
            _check_tls(server, ca)
    except OSError as error:
        return _reason(error)
    return None


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    return (error.strerror or str(error)).lower()


def _connect(server: Address) -> socket.socket:
    return socket.create_connection(server, timeout=_TIMEOUT_S)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    return context


def _peer_certificate(server: Address) -> x509.Certificate | None:
    """Returns whatever certificate the server shows, unchecked, or None if it speaks no TLS.

    Raises:
        OSError: If there is no connection.
    """
    context = _context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with _connect(server) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=server.host) as secure:
                shown = secure.getpeercert(binary_form=True)
        except ssl.SSLError:
            return None
    return x509.load_der_x509_certificate(shown) if shown else None


def _check_tls(server: Address, ca: Path) -> None:
    context = _context()
    context.load_verify_locations(ca)
    with _connect(server) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=server.host):
                return
        except ssl.SSLCertVerificationError as error:
            failure = error
        except ssl.SSLError as error:
            if _speaks_plain_http2(server):
                raise TlsError(
                    "the server speaks no TLS", got=f"TLS with {ca}", wanted="--insecure", where=server
                ) from error
            raise
    raise _untrusted(server, ca, failure) from failure


def _speaks_plain_http2(server: Address) -> bool:
    with _connect(server) as plain:
        plain.sendall(_HTTP2_PREFACE)
        header = plain.recv(9)  # of its first frame, which must be SETTINGS (type 4) on stream 0
    return len(header) == 9 and header[3] == 4 and not any(header[5:])


def _untrusted(server: Address, ca: Path, failure: ssl.SSLCertVerificationError) -> TlsError:
    certificate = _peer_certificate(server)
    if certificate is None:
        return TlsError(f"the server's certificate: {failure.verify_message}", where=ca)
    if failure.verify_code in (_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH):
        return TlsError(
            "the server's certificate is for other hosts",
            got=", ".join(_hosts(certificate)) or "none",
            wanted=server.host,
            where=f"a certificate trusted by {ca}",
        )
    if failure.verify_code in (_NOT_YET_VALID, _HAS_EXPIRED):
        first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        return TlsError(
            "the server's certificate is out of date",
            got=f"{first:%Y-%m-%d} .. {last:%Y-%m-%d}",
            wanted=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, which this machine's clock says",
            where=f"a certificate trusted by {ca}",
        )
    return TlsError(
        f"the server's certificate is not trusted, {failure.verify_message}",
        got=f"issuer {certificate.issuer.rfc4514_string()}",
        wanted=f"one of {ca}",
        where=server,
    )


def _hosts(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]
