"""A server's state as bytes."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pemn.errors import FileError
from pemn.federation.public import PublicState
from pemn.methods import Server, ServerState, decode_state, encode_state
from tests.networks import model_spec, run_spec
from tests.property.federation import World

SPEC = run_spec(model_spec((9, 13), (10, 9)), step=4096)
SERVER = Server.of(SPEC)


def later() -> ServerState:
    """Slots that vote, one that was late, two that are only known, one that was never here."""
    world = World(run_spec(SPEC.model, step=4096, num_slots=6), late_rounds=2)
    world.bring_up(4)
    late = world.train(3)
    for slots in ((0, 1), (0, 1), (0,)):
        for slot in slots:
            world.deliver(slot, world.train(slot))
        if world.state.public.round == 2:
            world.deliver(3, late)
        world.commit()
    world.bring_up(2)
    return world.state


STATE = later()
DATA = encode_state(SERVER, STATE)


def signed(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()


SLOTS = [(0, 3, 3), (1, 2, 2), (2, 4, 0), (3, 0, 1), (4, 1, 0)]
"""As they are in DATA: slot, 1 + the round that it is known to have, the round that it voted for."""


def with_slots(entries: list[tuple[int, int, int]]) -> bytes:
    head = DATA[:16] + struct.pack("<I", len(entries)) + DATA[20:24]
    return signed(head + b"".join(struct.pack("<III", *each) for each in entries) + DATA[24 + 12 * 5 : -32])


@pytest.mark.parametrize("state", [SERVER.start(), STATE], ids=["start", "later"])
def test_nothing_is_lost(state: ServerState) -> None:
    data = encode_state(SERVER, state)
    found = decode_state(SERVER, data)
    assert np.array_equal(found.private[0], state.private[0])
    assert found.private[0].dtype == np.int32
    assert (dict(found.known), dict(found.voted)) == (dict(state.known), dict(state.voted))
    assert sorted(found.past) == sorted(state.past)
    for round_ in (*state.past, state.public.round):
        kept, wanted = found.at(round_), state.at(round_)
        assert kept is not None
        assert wanted is not None
        assert kept.round == wanted.round == round_
        assert np.array_equal(kept.values, wanted.values)
    assert encode_state(SERVER, found) == data


def test_the_example_has_everything() -> None:
    assert dict(STATE.known) == {0: 2, 1: 1, 2: 3, 4: 0}
    assert dict(STATE.voted) == {0: 3, 1: 2, 3: 1}
    assert sorted(STATE.past) == [0, 1, 2]


def test_one_state_has_one_form() -> None:
    def reverse(mapping: dict[int, int]) -> dict[int, int]:
        return dict(reversed(mapping.items()))

    past = dict(reversed(list(STATE.past.items())))
    other = replace(STATE, known=reverse(dict(STATE.known)), voted=reverse(dict(STATE.voted)), past=past)
    assert encode_state(SERVER, other) == DATA
    assert np.frombuffer(DATA, "<u4", 3 * 5, offset=24)[::3].tolist() == [0, 1, 2, 3, 4]
    two_orders = [replace(STATE, known=dict.fromkeys(slots, 0)) for slots in ((8, 0, 16), (16, 8, 0))]
    assert len({encode_state(SERVER, state) for state in two_orders}) == 1


def test_a_state_that_nobody_moved_costs_its_p_hat() -> None:
    data = encode_state(SERVER, SERVER.start())
    assert len(data) == 4 * SPEC.model.num_params + 12 + 24 + 8 + 32


def test_it_is_the_servers_own_run() -> None:
    foreign = Server.of(replace(SPEC, run_id=0xABC))
    with pytest.raises(
        FileError, match="state of another run: got 0123456789abcdef; wanted 0000000000000abc"
    ):
        decode_state(foreign, DATA)


@pytest.mark.parametrize("shapes", [((9, 13),), ((9, 13), (10, 9), (1, 1))])
def test_another_network_of_the_same_run_id(shapes: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(FileError, match="makes no sense"):
        decode_state(Server.of(run_spec(model_spec(*shapes), step=4096)), DATA)


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_a_damaged_byte_is_noticed(where: int, change: int) -> None:
    data = bytearray(DATA)
    data[where] ^= change
    with pytest.raises(FileError, match="damaged"):
        decode_state(SERVER, bytes(data))


@given(st.integers(0, len(DATA) - 1))
def test_a_cut_is_noticed(length: int) -> None:
    with pytest.raises(FileError, match="damaged"):
        decode_state(SERVER, DATA[:length])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "makes no sense"),
        (b"PEMNSV\x00\x02" + DATA[8:-32], "not a state of a server"),
        (DATA[:-32] + b"\0", "makes no sense"),
        (DATA[:-32] + bytes(4), "bytes after the private arrays"),
        (DATA[:-36], "a private array ends too early"),
        (DATA[:-36] + b"\xff\xff\xff\xff", "p_hat"),
        (DATA[:-36] + b"\x01\0\0\x01", "p_hat"),
        (DATA[:20] + b"\0\0\0\0" + DATA[24:-32], "makes no sense"),
        (DATA[:20] + b"\xff\xff\xff\xff" + DATA[24:-32], "makes no sense"),
    ],
)
def test_what_makes_no_sense_is_one_clear_error(body: bytes, says: str) -> None:
    with pytest.raises(FileError, match=says) as caught:
        decode_state(SERVER, signed(body))
    assert "\n" not in str(caught.value)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 4)), max_size=4))
@example(SLOTS)
@example(SLOTS[::-1])
@example([*SLOTS, SLOTS[-1]])
@example([(0, 3, 0), (0, 0, 3)])  # one entry in two
@example([*SLOTS, (5, 0, 0)])  # says nothing
@example([(0, 4, 3)])
@example([(0, 5, 3)])  # the public state is of round 3
@example([(0, 4, 4)])
@example([(0, (1 << 32) - 1, 0)])
def test_slots_are_in_one_form_and_not_ahead(entries: list[tuple[int, int, int]]) -> None:
    assert with_slots(SLOTS) == DATA
    slots = [slot for slot, _, _ in entries]
    fit = slots == sorted(set(slots)) and all(
        known_and_1 + voted > 0 and known_and_1 - 1 <= 3 and voted <= 3 for _, known_and_1, voted in entries
    )
    data = with_slots(entries)
    if fit:
        assert encode_state(SERVER, decode_state(SERVER, data)) == data
    else:
        with pytest.raises(FileError, match="slot"):
            decode_state(SERVER, data)


def test_nothing_has_moved_before_round_1() -> None:
    moved = np.zeros(SPEC.model.num_params, np.int8)
    moved[3] = 1
    for state in (
        replace(STATE, past={**STATE.past, 0: PublicState(0, moved)}),
        replace(SERVER.start(), public=PublicState(0, moved)),
    ):
        with pytest.raises(FileError, match="a change before round 1"):
            decode_state(SERVER, encode_state(SERVER, state))


def test_public_states_are_in_order_from_round_0() -> None:
    for past in ({}, {1: STATE.past[1]}):
        with pytest.raises(FileError, match="rounds of its public states"):
            decode_state(SERVER, encode_state(SERVER, replace(STATE, past=past)))


@given(st.integers(0, len(DATA) - 33), st.binary(min_size=1, max_size=8))
def test_no_bytes_end_in_anything_but_a_state_or_an_error(where: int, junk: bytes) -> None:
    body = DATA[:where] + junk + DATA[where + len(junk) : -32]
    data = signed(body[: len(DATA) - 32])
    try:
        state = decode_state(SERVER, data)
    except FileError:
        return
    assert encode_state(SERVER, state) == data
