from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pemn.errors import LocalError, MalformedFrame
from pemn.link.frames import framed_bytes
from pemn.link.parts import Joiner, Message, framed_size, split
from pemn.link.v1 import link_pb2 as pb
from pemn.wire.limits import MAX_PART_BYTES

sizes = st.one_of(
    st.integers(1, 3 * MAX_PART_BYTES),
    st.sampled_from([1, MAX_PART_BYTES - 1, MAX_PART_BYTES, MAX_PART_BYTES + 1, 2 * MAX_PART_BYTES]),
)


def join(joiner: Joiner, parts: list[pb.Part]) -> Message | None:
    *others, last = parts
    assert all(joiner.add(part, 10) is None for part in others)
    return joiner.add(last, 10)


@given(sizes, st.integers(0, 2**64 - 1), st.sampled_from(["", "train", "query"]))
def test_what_is_split_is_joined_again_and_nothing_stays_behind(
    size: int, message_id: int, action: str
) -> None:
    content = (b"0123456789abcde" * (size // 15 + 1))[:size]
    parts = list(split(message_id, content, action))
    assert all(len(part.data) <= MAX_PART_BYTES for part in parts)
    joiner = Joiner(size, tasks=bool(action))
    for _ in range(2):
        message = join(joiner, parts)
        assert message == Message(message_id, action, content, 10 * len(parts))


def test_an_empty_message_cannot_be_split() -> None:
    with pytest.raises(LocalError):
        list(split(1, b""))


def test_a_message_may_be_as_long_as_allowed_and_no_longer() -> None:
    content = bytes(1000)
    assert join(Joiner(1000, tasks=False), list(split(1, content))) is not None
    with pytest.raises(MalformedFrame, match="size: got 1000; wanted"):
        join(Joiner(999, tasks=False), list(split(1, content)))


@pytest.mark.parametrize(("action", "tasks"), [("", True), ("train", False), ("x" * 257, True)])
def test_tasks_have_a_short_action_and_answers_none(action: str, tasks: bool) -> None:
    with pytest.raises(MalformedFrame, match="action"):
        join(Joiner(1000, tasks=tasks), list(split(1, b"content", action)))


def test_messages_do_not_mix() -> None:
    one, other = (list(split(number, bytes(MAX_PART_BYTES + 1))) for number in (1, 2))
    joiner = Joiner(1 << 20, tasks=False)
    assert joiner.add(one[0], 0) is None
    with pytest.raises(MalformedFrame):
        joiner.add(other[0], 0)


def test_a_big_announcement_allocates_nothing() -> None:
    first = next(split(1, bytes(MAX_PART_BYTES + 1)))
    first.size = 2**32 - 1
    joiner = Joiner(2**32 - 1, tasks=False)
    tracemalloc.start()
    try:
        assert joiner.add(first, 0) is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * MAX_PART_BYTES


@pytest.mark.parametrize("message_id", [0, 1, 1 << 63])
@pytest.mark.parametrize("action", ["", "train"])
@pytest.mark.parametrize(
    "num_bytes", [1, 127, 128, 16_383, MAX_PART_BYTES - 1, MAX_PART_BYTES, MAX_PART_BYTES + 1, 3_000_000]
)
def test_the_size_of_the_frames_is_known_without_them(message_id: int, action: str, num_bytes: int) -> None:
    parts = split(message_id, bytes(num_bytes), action)
    frames = [pb.SessionResponse(part=part).SerializeToString() for part in parts]
    assert framed_size(message_id, num_bytes, action) == sum(map(framed_bytes, frames))
