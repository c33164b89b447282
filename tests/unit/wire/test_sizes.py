"""The length of a content is known without encoding it, and payloads are coded only when their bytes are wanted."""

from __future__ import annotations

import numpy as np
import pytest

from pemn import codec
from pemn.wire.messages import Ack, Broadcast, Content, Failure, Metrics, Update, encode, num_bytes_by_kind
from pemn.wire.payload import Payload
from pemn.wire.sizes import content_sizes
from tests.networks import model_spec, run_spec

HASH = bytes(range(16))
LENGTHS = [0, 1, 100, 127, 128, 129, 16_383, 16_384, 2_200_000]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("lazy", [False, True])
def test_sizes_are_those_of_the_bytes(length: int, lazy: bool) -> None:
    data = bytes(length)
    payload = Payload(None, lambda: data) if lazy else data
    spec = run_spec(model_spec((5, 7), (3, 5)))
    broadcast = Broadcast(1 << 63, 0, 70_000, HASH, payload)
    metrics = Metrics(200, 70_000, 0)
    for content in (
        Content(spec=spec, broadcast=broadcast),
        Content(broadcast=broadcast),
        Content(update=Update(7, 300, 0, HASH, payload, b"", metrics)),
        Content(update=Update(7, 300, 129, HASH, payload, bytes(8), metrics)),
        Content(ack=Ack(7, 0, 5, HASH, bytes(32))),
        Content(error=Failure(47, "x" * length)),
    ):
        encoded = encode(content)
        for estimate in (False, True):
            assert content_sizes(content, estimate=estimate) == (len(encoded), num_bytes_by_kind(encoded))


def test_an_estimate_needs_no_code() -> None:
    def code() -> bytes:
        raise AssertionError

    update = Update(7, 1, 0, HASH, Payload(None, code, lambda: 1000), b"", Metrics(1, 1, 1))
    whole, by_kind = content_sizes(Content(update=update), estimate=True)
    assert 1000 < by_kind["update"] < whole < 1100
    with pytest.raises(AssertionError):
        content_sizes(Content(update=update), estimate=False)


def test_a_payload_is_coded_once() -> None:
    times = []
    payload = Payload("content", lambda: times.append(1) or b"abc")  # type: ignore[func-returns-value]
    assert (payload.content, len(payload), bytes(payload), payload.about) == ("content", 3, b"abc", 3)
    assert times == [1]


@pytest.mark.parametrize("n", [0, 1, 100, 5_000, 300_000])
@pytest.mark.parametrize("share", [0.0, 1e-4, 0.02, 0.3, 0.5, 1.0])
def test_the_estimate_of_a_code_is_near(n: int, share: float) -> None:
    draw = np.random.default_rng([n, int(1e4 * share)])
    contexts = draw.integers(0, 40, n).astype(np.uint16)
    decisions = draw.random(n) < np.clip(share * (0.2 + contexts / 25), 0, 1)

    def decide(start: int, stop: int) -> list[codec.Decisions]:
        return [(decisions[start:stop], contexts[start:stop])]

    coded = len(codec.encode(n, decide, (40,)))
    assert abs(codec.size(n, decide, (40,)) - coded) <= 64 + 0.005 * coded
