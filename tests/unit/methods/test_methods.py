"""Every method, as a whole federation without a socket or torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemn.errors import FileError, MalformedFrame
from pemn.federation.levels import HIGHEST, LOWEST, normal_start_levels
from pemn.federation.public import PublicState
from pemn.methods import Client, Server, ServerState, decode_state, encode_state
from pemn.methods.fedavg import FedAvgMethod
from pemn.methods.fedpm import FedPMMethod
from pemn.methods.stc import StcMethod
from pemn.rebuild import rebuild, weights_sha256
from pemn.schedule import Schedule
from pemn.wire.messages import Content, Metrics, Update, decode, encode
from pemn.wire.protocols import FedAvgProtocol, FedPMProtocol, MaskProtocol, MethodProtocol, StcProtocol
from pemn.wire.spec import Spec
from tests.networks import model_spec, run_spec

LEVELS = normal_start_levels(1.0, 64)
PROTOCOLS: dict[str, MethodProtocol] = {
    "mask": MaskProtocol(16384, Schedule.always(1), 1, LEVELS),
    "fedpm": FedPMProtocol(LEVELS),
    "fedpm-counts": FedPMProtocol(LEVELS),
    "fedavg": FedAvgProtocol(0.5),
    "fedavg-int8": FedAvgProtocol(0.0),
    "stc": StcProtocol(0.0, 0.125),
}
MODEL = replace(model_spec((30, 40), (10, 30), (1, 3)))


def spec_of(name: str, num_slots: int = 5) -> Spec:
    return replace(run_spec(MODEL, num_slots=num_slots), protocol=PROTOCOLS[name], method=name)


@dataclass
class Jitter:
    """A trainer without a network: it moves everything at random, the same way every time."""

    slot: int
    size: float = 1.0

    def train(self, start: NDArray[Any], round_: int) -> tuple[NDArray[Any], Metrics]:
        noise = np.random.default_rng([self.slot, round_]).normal(0, self.size, start.size)
        metrics = Metrics(10 + 7 * self.slot, 500, 1)
        if start.dtype == np.float32 and start.min() < 0:  # weights
            return (start + 0.05 * noise).astype(np.float32), metrics
        p = start / 65536 if start.dtype == np.uint16 else start.astype(np.float64)
        after = 1 / (1 + np.exp(-np.log(p / (1 - p)) - noise))
        if start.dtype == np.uint16:
            return np.rint(65536 * after).clip(LOWEST, HIGHEST).astype(np.uint16), metrics
        return after.clip(LOWEST / 65536, HIGHEST / 65536).astype(np.float32), metrics


@dataclass
class World:
    """A server and its clients; every message goes over the wire."""

    spec: Spec
    state: ServerState = field(init=False)
    has: list[PublicState] = field(init=False)
    memories: list[NDArray[Any] | None] = field(init=False)
    num_bytes: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})

    def __post_init__(self) -> None:
        self.server = Server.of(self.spec)
        self.clients = [Client.of(self.spec, slot) for slot in range(self.spec.data.num_slots)]
        self.state = self.server.start()
        self.has = [client.start() for client in self.clients]
        self.memories = [None] * len(self.clients)

    def bring_up(self, slot: int) -> None:
        data = encode(self.server.tasks(self.state, [slot])[slot])
        self.num_bytes["down"] += len(data)
        task = decode(data)
        assert task.broadcast is not None
        assert task.spec in (None, self.spec)
        self.has[slot] = self.clients[slot].apply(self.has[slot], task.broadcast)
        self.state = self.server.seen(self.state, slot)

    def train(self, slot: int, size: float = 1.0) -> Update:
        self.bring_up(slot)
        update, self.memories[slot] = self.clients[slot].train(
            self.has[slot], Jitter(slot, size), self.memories[slot]
        )
        data = encode(Content(update=update))
        self.num_bytes["up"] += len(data)
        read = decode(data).update
        assert read == update
        return read

    def round(self, slots: list[int], size: float = 1.0) -> None:
        ballot = self.server.open()
        for slot in slots:
            self.state = self.server.take_vote(self.state, ballot, slot, self.train(slot, size))
        self.state = self.server.commit(self.state, ballot)


@pytest.mark.parametrize(
    ("unit", "taken"),
    [
        (1e-45, True),
        (2.6e36, True),
        (2.7e36, False),
        (3e38, False),
        (np.inf, False),
        (np.nan, False),
        (0, False),
    ],
)
def test_weights_in_8_bits_are_finite(unit: float, taken: bool) -> None:
    method = Server.of(spec_of("fedavg-int8")).method
    public, _ = method.start()
    units = np.array([1, unit, 1], "<f4").tobytes()
    change = units + b"\x7f\x81" * (MODEL.num_params // 2) + b"\x01" * (MODEL.num_params % 2)
    if taken:
        method.decode_change(public, change)
    else:
        with pytest.raises(MalformedFrame, match=r"^weights in 8 bits"):
            method.decode_change(public, change)


def with_average(num_rounds: int, *, tie: int = 1, window: int = 3) -> Spec:
    spec = spec_of("mask")
    protocol = replace(spec.mask, window=window, eta_num=Schedule(((1, 2), (3, 1))))
    model = replace(spec.model, tie=tie)
    return replace(spec, model=model, protocol=protocol, num_rounds=num_rounds)


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "mask"])
def test_what_other_methods_share_is_what_they_leave(name: str) -> None:
    world = World(spec_of(name))
    for _ in range(2):
        world.round([0, 1, 2])
        state = world.state
        assert world.server.method.released(state.public, state.private) is state.public


@pytest.mark.parametrize(("tie", "window"), [(1, 3), (3, 3), (1, 1), (3, 1)])
def test_a_run_of_masks_ends_with_what_it_leaves(tie: int, window: int) -> None:
    """The last public state is the released one, and all clients end with its weights; none before it is."""
    worlds = [World(with_average(num_rounds, tie=tie, window=window)) for num_rounds in (4, 5)]
    method, rebuilt = worlds[0].server.method, []
    for round_ in range(1, 5):
        for world in worlds:
            world.round([0, 1, 2, 3])
        ending, going_on = (world.state for world in worlds)
        assert len(ending.private) == (1 if window == 1 else 2)
        for one, two in zip(ending.private, going_on.private, strict=True):
            assert np.array_equal(one, two)
        released = method.released(going_on.public, going_on.private)
        mask = method.mask(released)
        assert mask is not None
        assert np.array_equal(mask.bits(), going_on.private[-1] > 1 << 23)
        rebuilt.append(not np.array_equal(released.values, going_on.public.values))
        wanted = released if round_ == 4 else going_on.public
        assert np.array_equal(ending.public.values, wanted.values)
    assert any(rebuilt) == (window > 1)  # else what is shared has the mask of the release
    world = worlds[0]
    assert mask is not None
    for slot in range(5):
        world.bring_up(slot)
        assert np.array_equal(world.has[slot].values, world.state.public.values)
        ack = world.clients[slot].acknowledge(world.has[slot])
        weights = rebuild(world.spec.model, mask)
        assert ack.weights_sha256 == weights_sha256(weights)
        assert weights.size == MODEL.num_params


def test_an_average_is_in_the_state_of_a_server() -> None:
    world = World(with_average(9))
    for _ in range(6):
        world.round([0, 1, 2])
    p_hat, mean = world.state.private
    assert not np.array_equal(p_hat, mean)
    data = encode_state(world.server, world.state)
    back = decode_state(world.server, data)
    assert [array.tolist() for array in back.private] == [p_hat.tolist(), mean.tolist()]
    assert encode_state(world.server, back) == data
    for private in ((p_hat, mean - (1 << 25)), (p_hat + (1 << 25), mean)):
        with pytest.raises(FileError, match="p_hat"):
            decode_state(world.server, encode_state(world.server, replace(world.state, private=private)))
    plain = World(with_average(9, window=1))
    with pytest.raises(FileError, match="state of a server"):
        decode_state(plain.server, data)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_spec_says_the_method(name: str) -> None:
    spec = spec_of(name)
    assert Spec.from_bytes(spec.to_bytes()) == spec


@settings(max_examples=10)
@given(
    st.sampled_from(sorted(PROTOCOLS)),
    st.lists(st.lists(st.integers(0, 4), unique=True, max_size=5), min_size=1, max_size=5),
)
def test_everybody_comes_to_the_same_model(name: str, rounds: list[list[int]]) -> None:
    """Also who was away for rounds, and a server that has its state from a file."""
    world = World(spec_of(name))
    for slots in rounds:
        world.round(slots)
        data = encode_state(world.server, world.state)
        world.state = decode_state(world.server, data)
        assert encode_state(world.server, world.state) == data
    for slot, client in enumerate(world.clients):
        world.bring_up(slot)
        assert np.array_equal(world.has[slot].values, world.state.public.values)
        weights = world.server.weights_sha256(world.state)
        world.server.check_ack(world.state, slot, client.acknowledge(world.has[slot]), weights)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_order_of_votes_changes_nothing(name: str) -> None:
    worlds = [World(spec_of(name)) for _ in range(2)]
    for round_ in range(3):
        worlds[0].round([0, 1, 2, 3])
        worlds[1].round([[3, 1, 0, 2], [1, 0, 2, 3], [2, 3, 0, 1]][round_])
    assert encode_state(worlds[0].server, worlds[0].state) == encode_state(worlds[1].server, worlds[1].state)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_round_without_votes_changes_nothing_but_its_number(name: str) -> None:
    world = World(spec_of(name))
    world.round([0, 1])
    before = world.server.method.weights(world.state.public)
    if name == "stc":
        return  # it tells what it still owes
    world.round([])
    assert world.state.public.round == 2
    assert np.array_equal(world.server.method.weights(world.state.public), before)


def test_counts_are_the_published_method_to_the_bit() -> None:
    published, coded = World(spec_of("fedpm")), World(spec_of("fedpm-counts"))
    one, two = published.server.method, coded.server.method
    assert isinstance(one, FedPMMethod)
    assert isinstance(two, FedPMMethod)
    for slots in ([0, 1, 2, 3, 4], [2], [0, 4], [1, 2, 3]):
        for world in (published, coded):
            world.round(slots)
        theta = one.probabilities(published.state.public)
        assert theta.dtype == np.float32
        assert theta.tobytes() == two.probabilities(coded.state.public).tobytes()
        assert one.weights(published.state.public).tobytes() == two.weights(coded.state.public).tobytes()
    n = MODEL.num_params
    assert published.num_bytes["down"] > 6 * 4 * n
    assert coded.num_bytes["down"] < published.num_bytes["down"] / 5


def test_fedpm_is_the_mean_of_the_masks() -> None:
    world = World(spec_of("fedpm-counts"))
    method, client = world.server.method, world.clients[0]
    masks = []
    for slot in (0, 3, 4):
        update = world.train(slot)
        packed = method.read_vote(world.has[slot], slot, bytes(update.vote), b"")
        masks.append(np.unpackbits(packed, count=MODEL.num_params, bitorder="little"))
    world.round([0, 3, 4])
    assert isinstance(method, FedPMMethod)
    assert isinstance(client.method, FedPMMethod)
    wanted = 0.01 + 0.98 * np.mean(masks, axis=0)
    assert method.probabilities(world.state.public) == pytest.approx(wanted, abs=1e-7)


def test_fedavg_is_the_mean_by_images() -> None:
    world = World(spec_of("fedavg"))
    start = world.state.public.values
    world.round([0, 2, 3])
    trained = [Jitter(slot).train(start, 1) for slot in (0, 2, 3)]
    wanted = np.average(
        [w.astype(np.float64) for w, _ in trained], axis=0, weights=[m.num_images for _, m in trained]
    )
    assert world.state.public.values == pytest.approx(wanted, abs=1e-6)


def test_eight_bits_are_near_the_plain_mean_and_not_biased() -> None:
    rounded, plain = World(spec_of("fedavg-int8")), World(spec_of("fedavg"))
    method = rounded.server.method
    assert isinstance(method, FedAvgMethod)
    for world in (rounded, plain):
        for _ in range(3):
            world.round([0, 1, 2])
    weights, master = method.weights(rounded.state.public), rounded.state.private[0]
    units = np.frombuffer(rounded.state.public.values[: 4 * 3].tobytes(), "<f4")
    error = weights - master
    assert np.abs(error[:1200]).max() <= units[0] * 1.001
    assert abs(error[:1200].mean()) < 5 * units[0] / np.sqrt(12 * 1200)
    assert np.abs(master - plain.state.public.values).mean() < 0.01
    assert rounded.num_bytes["up"] < plain.num_bytes["up"] / 3.5


def test_stc_loses_nothing() -> None:
    """What clients owe and what the server owes is all that is missing."""
    world = World(spec_of("stc"))
    assert isinstance(world.server.method, StcMethod)
    start = world.state.public.values.astype(np.float64)
    trained_sum = np.zeros_like(start)
    for _ in range(4):
        before = world.has[0].values if world.state.public.round == 0 else world.state.public.values
        metrics = [Jitter(slot).train(before, world.state.public.round + 1) for slot in (0, 1)]
        images = [m.num_images for _, m in metrics]
        trained_sum += sum(
            (w.astype(np.float64) - before) * count / sum(images)
            for (w, _), count in zip(metrics, images, strict=True)
        )
        world.round([0, 1])
    owed = sum(
        memory * count / sum(images)
        for memory, count in zip(world.memories[:2], images, strict=True)
        if memory is not None
    )
    total = world.state.public.values + world.state.private[0] + owed
    assert total == pytest.approx(start + trained_sum, abs=1e-4)
    changed = np.count_nonzero(world.has[1].values - start)
    assert 0 < changed <= 3 * round(0.125 * MODEL.num_params)


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name != "mask"])
@given(data=st.data())
@settings(max_examples=30)
def test_damaged_votes_and_changes_are_refused_or_canonical(name: str, data: st.DataObject) -> None:
    world = World(spec_of(name))
    method = world.server.method
    update = world.train(0)
    start = world.state.public
    world.round([0, 1])
    change = method.encode_change(start, world.state.public, world.state.private)
    for good, read in (
        (bytes(update.vote), lambda b: method.read_vote(start, 0, b, b"")),
        (change, lambda b: method.decode_change(start, b)),
    ):
        bad = bytearray(good)
        match data.draw(st.sampled_from(["cut", "grow", "flip"])):
            case "cut":
                del bad[data.draw(st.integers(0, len(bad) - 1)) :]
            case "grow":
                bad += data.draw(st.binary(min_size=1, max_size=4))
            case _:
                bad[data.draw(st.integers(0, min(len(bad) - 1, 40)))] ^= 1 << data.draw(st.integers(0, 7))
        try:
            read(bytes(bad))
        except MalformedFrame:
            continue
        assert len(bad) in (0, len(good)), "other bytes than the canonical ones were read"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_vote_has_a_hash_where_its_method_needs_one_and_nowhere_else(name: str) -> None:
    world = World(spec_of(name))
    update = world.train(0)
    other = replace(update, vote_hash=bytes(8) if name != "mask" else b"")
    assert (len(update.vote_hash), len(other.vote_hash)) == ((8, 0) if name == "mask" else (0, 8))
    with pytest.raises(MalformedFrame, match="hash of"):
        world.server.read_vote(world.state, 0, other)
