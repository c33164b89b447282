from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import verification

import pemn.link.provision as provision_module
from pemn.errors import ConfigError, FileError
from pemn.link.provision import provision
from pemn.link.tls import client_credentials, server_credentials

FILES = ["ca.key", "ca.pem", "clients.txt", "server.key", "server.pem"]


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    provision(tmp_path / "pki", ["server.example", "192.0.2.7", "localhost"], 0)
    return tmp_path / "pki"


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_only_the_owner_can_read_the_keys(pki: Path) -> None:
    assert names(pki) == FILES
    modes = {path.name: path.stat().st_mode & 0o777 for path in pki.iterdir()}
    assert modes["ca.key"] == modes["server.key"] == 0o600
    assert modes["ca.pem"] & modes["server.pem"] & 0o400


def test_the_certificate_is_signed_by_the_authority_for_the_hosts(pki: Path) -> None:
    ca = x509.load_pem_x509_certificate((pki / "ca.pem").read_bytes())
    server = x509.load_pem_x509_certificate((pki / "server.pem").read_bytes())
    server.verify_directly_issued_by(ca)
    hosts = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert hosts.get_values_for_type(x509.DNSName) == ["localhost", "server.example"]
    addresses = [ipaddress.ip_address(text) for text in ("127.0.0.1", "::1", "192.0.2.7")]
    assert hosts.get_values_for_type(x509.IPAddress) == addresses
    now = datetime.datetime.now(datetime.UTC)
    assert (ca.not_valid_after_utc - now).days >= 3649
    assert 364 < (server.not_valid_after_utc - now).days <= 825
    # The rules of the web for such a pair are stricter than gRPC's.
    policy = verification.PolicyBuilder().store(verification.Store([ca]))
    policy.build_server_verifier(x509.DNSName("server.example")).verify(server, [])


def test_two_authorities_have_different_names(pki: Path, tmp_path: Path) -> None:
    provision(tmp_path / "other", [], 0)
    one, other = (
        x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
        for directory in (pki, tmp_path / "other")
    )
    assert one.subject != other.subject


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(FileError, match=f"file exists.*{name}"):
        provision(tmp_path, [], 0)
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "precious"


def test_nothing_stays_when_the_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []

    def fail_at_third(path: Path, data: bytes, *, mode: int) -> None:
        writes.append(path)
        if len(writes) == 3:
            raise FileError("no space", where=path)
        path.write_bytes(data)

    monkeypatch.setattr(provision_module, "write_atomic", fail_at_third)
    with pytest.raises(FileError, match="no space"):
        provision(tmp_path, [], 0)
    assert names(tmp_path) == []


@pytest.mark.parametrize("host", ["", "a b", "-x.example", "http://x", "x" * 64, "x:5000"])
def test_what_is_no_host_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="host of a certificate"):
        provision(tmp_path / "pki", [host], 0)
    assert not (tmp_path / "pki").exists()


def test_credentials_are_read(pki: Path) -> None:
    assert server_credentials(pki / "server.pem", pki / "server.key") is not None
    assert client_credentials(pki / "ca.pem") is not None


def test_a_missing_or_wrong_file_is_named(pki: Path, tmp_path: Path) -> None:
    missing, wrong = tmp_path / "missing.pem", tmp_path / "wrong.pem"
    wrong.write_text("-----BEGIN CERTIFICATE-----\nbm90IG9uZQ==\n-----END CERTIFICATE-----\n")
    for path in (missing, wrong):
        with pytest.raises(ConfigError, match=str(path)):
            client_credentials(path)
        with pytest.raises(ConfigError, match=str(path)):
            server_credentials(path, pki / "server.key")
        with pytest.raises(ConfigError, match=str(path)):
            server_credentials(pki / "server.pem", path)
    with pytest.raises(ConfigError, match="not an unencrypted private key"):
        server_credentials(pki / "server.pem", pki / "server.pem")
    with pytest.raises(ConfigError, match="not a certificate"):
        client_credentials(pki / "ca.key")


def test_an_encrypted_key_is_refused_without_asking(pki: Path) -> None:
    key = serialization.load_pem_private_key((pki / "server.key").read_bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (pki / "server.key").write_bytes(encrypted)
    with pytest.raises(ConfigError, match="not an unencrypted private key"):
        server_credentials(pki / "server.pem", pki / "server.key")


def test_the_key_of_another_certificate_is_refused(pki: Path) -> None:
    with pytest.raises(ConfigError, match="the key is not the certificate's"):
        server_credentials(pki / "server.pem", pki / "ca.key")


def test_a_certificate_out_of_date_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pemn.link.certificates.SERVER_DAYS", -0.5)
    provision(tmp_path, [], 0)
    with pytest.raises(ConfigError, match="out of date"):
        server_credentials(tmp_path / "server.pem", tmp_path / "server.key")


def test_what_is_no_file_is_named(pki: Path) -> None:
    with pytest.raises(ConfigError, match=str(pki)):
        server_credentials(pki / "server.pem", pki)
