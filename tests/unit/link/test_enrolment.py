"""Who may take part: keys, the list of clients, bundles, and what is signed."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pemn.link.session as session_module
from pemn.errors import ConfigError, FileError, MalformedFrame, NotEnrolled
from pemn.link.enrolment import Enrolled, Enrolment
from pemn.link.keys import ClientKey, client_id_of, is_signed, signed_hello
from pemn.link.provision import ClientFiles, ServerFiles, enrol, provision
from pemn.link.v1 import link_pb2 as pb
from pemn.wire.limits import PROTOCOL_VERSION
from pemn.wire.messages import Metrics, Update
from tests.link_rig import Client, Server, serving

UPDATE = Update(0x1234, 7, 1, bytes(16), b"flips", bytes(8), Metrics(5, 6, 7))
NUM_BITS = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    provision(tmp_path / "tls", [], 2)
    return tmp_path / "tls"


def key_of(folder: Path, name: str) -> ClientKey:
    return ClientKey.read(ClientFiles(folder / name).key)


def enrolment_of(folder: Path) -> Enrolment:
    return Enrolment.read(ServerFiles(folder).clients)


def test_every_client_has_a_bundle_with_its_own_key(folder: Path) -> None:
    enrolment = enrolment_of(folder)
    assert [(c.slot, c.name, c.is_revoked) for c in enrolment.clients] == [
        (0, "client-0", False),
        (1, "client-1", False),
    ]
    for client in enrolment.clients:
        files = ClientFiles(folder / client.name)
        assert ClientKey.read(files.key).public == client.public_key
        assert files.key.stat().st_mode & 0o777 == 0o600
        assert files.authority.read_bytes() == (folder / "ca.pem").read_bytes()
    assert b"PRIVATE" not in ServerFiles(folder).clients.read_bytes()


def test_one_more_client_and_one_that_is_replaced(folder: Path) -> None:
    assert enrol(folder, 5, "lab") == folder / "lab"
    with pytest.raises(ConfigError, match="two clients with one slot: got 0"):
        enrol(folder, 0, "other")
    assert not (folder / "other/client.key").exists()
    assert enrolment_of(folder).revoke("client-0").slot == 0
    enrol(folder, 0, "other")
    assert enrolment_of(folder).of(0).public_key == key_of(folder, "other").public
    (folder / "made").mkdir()
    (folder / "made/client.key").write_text("precious")
    with pytest.raises(FileError, match="file exists"):
        enrol(folder, 6, "made")
    assert (folder / "made/client.key").read_text() == "precious"
    for slot, name in ((-1, "x"), (2**40, "x"), (7, "a b"), (7, "7"), (7, "../x")):
        with pytest.raises(ConfigError, match="client: got slot"):
            enrol(folder, slot, name)
    assert [client.slot for client in enrolment_of(folder).clients] == [0, 1, 5, 0]


@pytest.mark.parametrize(
    "line",
    [
        "0 a",
        "x a AAAA",
        "0 a AAAA",
        "0 a !",
        "0 a {key} gone",
        "0 b/c {key}",
        "-1 a {key}",
        "0 a {key} revoked 1",
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    good = str(Enrolled(3, "good", ClientKey.generate().public))
    path = tmp_path / "clients.txt"
    path.write_text(f"# who\n\n{good}\n{line.format(key=good.split()[2])}\n")
    with pytest.raises(ConfigError, match=r"list of clients: got .*clients.txt, line 4"):
        Enrolment.read(path)


def test_nobody_is_enrolled_twice(tmp_path: Path) -> None:
    one, two = (ClientKey.generate().public for _ in range(2))
    for what, clients in (
        ("slot", [Enrolled(0, "a", one), Enrolled(0, "b", two)]),
        ("name", [Enrolled(0, "a", one), Enrolled(1, "a", two)]),
        ("key", [Enrolled(0, "a", one), Enrolled(1, "b", one)]),
        ("key", [Enrolled(0, "a", one, is_revoked=True), Enrolled(1, "b", one)]),
    ):
        with pytest.raises(ConfigError, match=f"two clients with one {what}"):
            Enrolment(tmp_path / "clients.txt", clients)


def test_whoever_is_revoked_stays_so(folder: Path) -> None:
    enrolment = enrolment_of(folder)
    enrolment.revoke("1")
    for known in (enrolment, enrolment_of(folder)):
        with pytest.raises(NotEnrolled):
            known.of(1)
        assert known.of(0).name == "client-0"
    for who in ("1", "client-1", "nobody"):
        with pytest.raises(ConfigError, match="client to revoke"):
            enrolment.revoke(who)


def test_a_list_that_cannot_be_written_revokes_nobody(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, data: bytes) -> None:
        raise FileError("no space", where=path)

    enrolment = enrolment_of(folder)
    monkeypatch.setattr("pemn.link.enrolment.write_atomic", fail)
    with pytest.raises(FileError):
        enrolment.revoke("client-1")
    assert enrolment.of(1).name == "client-1"


@pytest.mark.parametrize(
    "pem", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_key_file_that_is_none(tmp_path: Path, pem: bytes) -> None:
    (tmp_path / "client.key").write_bytes(pem)
    with pytest.raises(ConfigError, match="not an unencrypted private key in PEM form"):
        ClientKey.read(tmp_path / "client.key")


def test_another_kind_of_key(folder: Path) -> None:
    with pytest.raises(ConfigError, match="wanted Ed25519"):
        ClientKey.read(folder / "server.key")


def test_a_signed_vote_is_taken_from_its_client_alone(folder: Path) -> None:
    enrolment, key = enrolment_of(folder), key_of(folder, "client-1")
    signed = key.sign_update(UPDATE, NUM_BITS)
    assert len(signed.signature) == 64
    enrolment.check_update(1, signed, NUM_BITS)
    assert key.sign_update(signed, NUM_BITS) == signed
    for slot, update, num_bits in (
        (0, signed, NUM_BITS),
        (1, UPDATE, NUM_BITS),
        (1, key_of(folder, "client-0").sign_update(UPDATE, NUM_BITS), NUM_BITS),
        (1, signed, NUM_BITS + 1),
    ):
        with pytest.raises(NotEnrolled):
            enrolment.check_update(slot, update, num_bits)
    enrolment.revoke("client-1")
    with pytest.raises(NotEnrolled):
        enrolment.check_update(1, signed, NUM_BITS)


@settings(max_examples=300)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "run_id": st.integers(0, 2**64 - 1),
            "round": st.integers(0, 2**20),
            "slot": st.integers(0, 2**20 - 1),
            "state_hash": st.binary(min_size=16, max_size=16),
            "vote": st.binary(min_size=1, max_size=40),
            "vote_hash": st.binary(min_size=8, max_size=8),
            "metrics": st.builds(Metrics, *[st.integers(0, 2**32 - 1)] * 3),
            "signature": st.binary(min_size=64, max_size=64),
        },
    )
)
def test_no_field_of_a_signed_vote_can_be_another(changes: dict[str, object]) -> None:
    key = _KEY
    signed = key.sign_update(UPDATE, NUM_BITS)
    changed = replace(signed, **changes)  # type: ignore[arg-type]
    wanted = changed == signed
    assert is_signed(key.public, changed.signature, changed.signed(key.client_id, NUM_BITS)) == wanted


_KEY = ClientKey.generate()


def test_votes_of_other_rounds_runs_and_clients_are_never_taken(folder: Path) -> None:
    """Ten thousand replays: a signature that was seen once, with a vote for something else."""
    enrolment, key = enrolment_of(folder), key_of(folder, "client-1")
    signed = key.sign_update(UPDATE, NUM_BITS)
    taken = 0
    for number in range(1, 3334):
        for replay in (
            replace(signed, round=signed.round + number),
            replace(signed, run_id=signed.run_id ^ number),
            replace(signed, slot=signed.slot + number),
        ):
            try:
                enrolment.check_update(1, replay, NUM_BITS)
                taken += 1
            except NotEnrolled:
                pass
    assert taken == 0


class TestTheDoor:
    """Who gets a session."""

    @pytest.fixture
    def server(self, folder: Path) -> object:
        with serving(enrolment=enrolment_of(folder)) as server:
            yield server

    def test_the_clients_that_are_enrolled(self, server: Server, folder: Path) -> None:
        clients = [Client(server.address, client=key_of(folder, f"client-{s}"), slot=s) for s in range(2)]
        server.wait_for(0, 1)
        assert server.ask(1, 9, b"hello").content == b"hello"
        server.link.finish(timeout_s=10)
        assert [client.wait() for client in clients] == [None, None]

    def test_nobody_else(self, server: Server, folder: Path) -> None:
        for client, slot, says in (
            (ClientKey.generate(), 0, "the key is not the one enrolled"),
            (key_of(folder, "client-1"), 0, "the key is not the one enrolled"),
            (secrets.token_bytes(16), 0, "the key is not the one enrolled"),
            (key_of(folder, "client-0").client_id, 0, "takes enrolled clients only"),
        ):
            error = Client(server.address, client=client, slot=slot).wait()
            assert isinstance(error, NotEnrolled)
            assert says in str(error)
        assert server.events == []

    def test_a_thousand_keys_that_nobody_knows(self, folder: Path) -> None:
        enrolment = enrolment_of(folder)
        for _ in range(1000):
            key = ClientKey.generate()
            hello = pb.Hello(protocol_version=PROTOCOL_VERSION, client_id=key.client_id, slot=0, num_slots=2)
            with pytest.raises(NotEnrolled):
                enrolment.check_hello(hello)

    def test_a_proof_for_another_session_is_none(
        self, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A client that signs another nonce, slot or version than its session's."""
        real = signed_hello
        key = key_of(folder, "client-0")
        for change in (
            lambda hello, nonce: real(hello, bytes(32)),
            lambda hello, nonce: real(pb.Hello(slot=1, num_slots=2, client_id=hello.client_id), nonce),
            lambda hello, nonce: real(hello, nonce)[1:],
        ):
            monkeypatch.setattr("pemn.link.client.signed_hello", change)
            error = Client(server.address, client=key).wait()
            assert isinstance(error, NotEnrolled)
            assert "a signature that is not the client's" in str(error)
        assert server.events == []

    def test_whoever_is_revoked_is_shown_the_door(self, folder: Path) -> None:
        enrolment = enrolment_of(folder)
        with serving(enrolment=enrolment) as server:
            client = Client(server.address, client=key_of(folder, "client-0"))
            server.wait_for(0)
            enrolment.revoke("client-0")
            server.link.expel(0, NotEnrolled("revoked"))
            error = client.wait()
            assert isinstance(error, NotEnrolled)
            assert "revoked" in str(error)
            again = Client(server.address, client=key_of(folder, "client-0")).wait()
            assert isinstance(again, NotEnrolled)

    def test_a_client_that_does_not_prove_itself_does_not_stay(
        self, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(session_module, "HELLO_TIMEOUT_S", 0.2)
        monkeypatch.setattr("pemn.link.client._Session._prove", lambda self, nonce: None)
        error = Client(server.address, client=key_of(folder, "client-0")).wait()
        assert isinstance(error, MalformedFrame)
        assert "no proof" in str(error)


def test_an_id_goes_with_a_key() -> None:
    key = ClientKey.generate()
    assert key.client_id == client_id_of(key.public)
    assert len(key.client_id) == 16
