"""A federation in one process, without a socket or torch, in which everything that can go wrong does.

Clients are real nodes and messages are real bytes. What the server should have learnt is computed a second time, from
what was trained and from the definitions (docs/algorithm.md), with whole arrays and no coder.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemn.errors import MissingSpec, OutOfSync, WrongRound
from pemn.federation.levels import HIGHEST, LOWEST, Levels, dither
from pemn.federation.public import PublicState
from pemn.methods import Ballot, Server, ServerState, decode_state, encode_state
from pemn.schedule import Schedule
from pemn.wire import limits
from pemn.wire.messages import Content, Metrics, Update, decode, encode
from pemn.wire.spec import Spec
from pemn_client.node import QUERY, TRAIN, Node
from pemn_client.store import MemoryStore
from tests.networks import model_spec, run_spec

UNIT = 1 << 24
MODEL = model_spec((9, 13), (10, 9))


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    sides = st.one_of(st.integers(1, 5), st.integers(1, 40))
    shapes = draw(st.lists(st.tuples(sides, sides), min_size=1, max_size=12))
    step = draw(st.one_of(st.sampled_from([4096, 16384, 32768]), st.integers(limits.MIN_STEP, 65535)))
    spec = run_spec(
        replace(
            model_spec(*shapes, seed=draw(st.integers(0, 2**64 - 1))), tie=draw(st.sampled_from([1, 1, 2, 5]))
        ),
        num_slots=draw(st.integers(1, 5)),
        step=step,
        spread=draw(st.sampled_from([0.0, 1.0, 3.0])),
        eta=draw(st.sampled_from([(1, 1), (1, 3), (5, 2), (65535, 1)])),
        run_id=draw(st.integers(0, 2**64 - 1)),
    )
    most = min(limits.MAX_STRIDE, 65535 // step)
    protocol = replace(
        spec.mask,
        eta_num=draw(st.just(spec.mask.eta_num) | schedules(65535)),
        stride=draw(st.just(spec.mask.stride) | schedules(most)),
        window=draw(st.sampled_from([1, 2, 5])),
        keep=draw(st.just(spec.mask.keep) | schedules(256)),
    )
    num_rounds = draw(st.sampled_from([1, 2, 3, 4, limits.MAX_ROUND]))
    return replace(spec, protocol=protocol, num_rounds=num_rounds)


@st.composite
def schedules(draw: st.DrawFn, most: int) -> Schedule[int]:
    """Values 1 .. most by round, of the first few rounds."""
    changes = [(1, draw(st.integers(1, most)))]
    for round_ in draw(st.sets(st.integers(2, 5), max_size=3).map(sorted)):
        value = draw(st.integers(1, most))
        if value != changes[-1][1]:
            changes.append((round_, value))
    return Schedule(tuple(changes))


def of_round(schedule: Schedule[int], round_: int) -> int:
    """What holds in a round, looked up once more."""
    value = 0
    for begin, new in schedule.changes:
        value = new if begin <= round_ else value
    return value


@dataclass
class Jitter:
    """A trainer without a network: it moves every score at random, and some to the ends."""

    slot: int
    spread: float = 1.0

    def train(self, q: NDArray[np.uint16], round_: int) -> tuple[NDArray[np.uint16], Metrics]:
        rng = np.random.default_rng([self.slot, round_])
        p = q / 65536
        scores = np.log(p / (1 - p)) + rng.normal(0, self.spread, q.size)
        trained = np.round(65536 / (1 + np.exp(-scores))).clip(LOWEST, HIGHEST)
        ends = rng.choice([LOWEST, HIGHEST], q.size)
        trained = np.where(rng.random(q.size) < 0.05 * self.spread, ends, trained)
        return trained.astype(np.uint16), Metrics(7 + self.slot, 500, round_)


@dataclass
class World:
    """A run with its clients.

    Attributes:
        spec: The run.
        late_rounds: The server's policy.
        past_rounds: The server's policy.
        spread: How far training moves scores; 0 moves none.
    """

    spec: Spec
    late_rounds: int = 0
    past_rounds: int = 16
    spread: float = 1.0
    state: ServerState = field(init=False)
    nodes: list[Node] = field(init=False)
    ballot: Ballot = field(init=False)
    accepted: list[bytes] = field(init=False, default_factory=list)
    voted: dict[int, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.server = Server.of(self.spec, self.late_rounds, self.past_rounds)
        self.levels = Levels.of(self.spec)
        self.state, self.ballot = self.server.start(), self.server.open()
        self.nodes = [self.fresh(slot) for slot in range(self.spec.data.num_slots)]
        self.states = {0: self.state.public.values}
        self.starts = self.levels.at(self.state.public.values).astype(np.int64)
        self.p_hat = self.mean = self.starts * 256

    def fresh(self, slot: int, state: PublicState | None = None, *, spec: Spec | None = None) -> Node:
        """A process that has just started, with what its store has kept."""
        store = MemoryStore()
        if spec is not None:
            store.save_spec(spec)
            if state is not None:
                store.save_state(spec, state)
        return Node(slot, store, lambda _, slot: Jitter(slot, self.spread))

    def corrupt(self, slot: int, rng: random.Random) -> None:
        """One weight of the state that a client has kept is another one; before it has any, it loses everything."""
        kept = self.nodes[slot]._store.load()
        if kept is None or kept[1] is None:
            self.nodes[slot] = self.fresh(slot)
            return
        k = kept[1].values.copy()
        weight = rng.randrange(k.size)
        k[weight] += -1 if k[weight] > 0 else 1
        self.nodes[slot] = self.fresh(slot, PublicState(kept[1].round, k), spec=self.spec)

    def ask(self, slot: int, action: str) -> bytes:
        """Gives a client a task until it can do it, and returns its answer."""
        for _ in range(3):
            task = encode(self.server.tasks(self.state, [slot])[slot])
            answer = encode(self.nodes[slot].handle(action, decode(task)))
            error = decode(answer).error
            if error is None:
                return answer
            if error.code == MissingSpec.code:
                self.state = self.server.forget(self.state, slot)
            else:
                assert error.code == OutOfSync.code
                self.state = self.server.rewind(self.state, slot)
        raise AssertionError(f"client {slot} cannot be brought up: {error}")

    def train(self, slot: int) -> bytes:
        return self.ask(slot, TRAIN)

    def bring_up(self, slot: int) -> None:
        ack = decode(self.ask(slot, QUERY)).ack
        assert ack is not None
        self.server.check_ack(self.state, slot, ack, self.server.weights_sha256(self.state))
        self.state = self.server.seen(self.state, slot)

    def deliver(self, slot: int, answer: bytes) -> bool:
        """Returns whether an update counts, and checks that this is as the rules have it."""
        update = update_of(answer)
        now = self.state.public.round + 1
        counts = (
            now - self.late_rounds <= update.round <= now
            and update.round > self.voted.get(slot, 0)
            and slot not in self.ballot.rounds
        )
        try:
            self.state = self.server.take_vote(self.state, self.ballot, slot, update)
        except WrongRound:
            assert not counts
            return False
        assert counts
        self.accepted.append(answer)
        return True

    def commit(self, *, killed: bool = False, rng: random.Random | None = None) -> None:
        """Closes the round; a server that was killed before has its last state and the updates that were accepted."""
        before = self.state
        self.state = self.server.commit(before, self.ballot)
        assert self.ballot.rounds == {update_of(a).slot: update_of(a).round for a in self.accepted}
        if killed:
            self.state = self._commit_again(before, rng or random.Random(0))
        now = self.state.public
        self._learn(now.round, self.accepted)
        self.mean = self.mean + (self.p_hat - self.mean) // min(self.spec.mask.window, 1 + now.round // 4)
        self.states[now.round] = now.values
        self.voted |= self.ballot.rounds
        self.ballot, self.accepted = self.server.open(), []
        assert [array.tolist() for array in self.state.private] == (
            [self.p_hat.tolist()] if self.spec.mask.window == 1 else [self.p_hat.tolist(), self.mean.tolist()]
        )
        settled = self._settled(now.round, before.public.values)
        shown, settled = self.p_hat, self._agreed(now.round, self.p_hat, settled)
        if now.round == self.spec.num_rounds:
            shown, settled = self.mean, self._agreed(now.round, self.mean, settled)
        assert np.array_equal(self.levels.mask(now.values).bits(), shown > UNIT // 2)
        assert np.array_equal(now.values, settled)
        released = self.server.method.released(now, self.state.private)
        assert np.array_equal(
            released.values, self._agreed(now.round, self.mean, now.values.astype(np.int64))
        )
        self._check_past()

    def _commit_again(self, before: ServerState, rng: random.Random) -> ServerState:
        restored = decode_state(self.server, encode_state(self.server, before))
        ballot = self.server.open()
        for answer in rng.sample(self.accepted, len(self.accepted)):
            update = update_of(answer)
            ballot.add(self.server.read_vote(restored, update.slot, update))
        after = self.server.commit(restored, ballot)
        assert encode_state(self.server, after) == encode_state(self.server, self.state)
        return after

    def _learn(self, round_: int, accepted: list[bytes]) -> None:
        """p_hat, from what was trained."""
        if not accepted:
            return
        total = np.zeros(self.p_hat.size, np.int64)
        for answer in accepted:
            update = update_of(answer)
            q = self.levels.at(self.states[update.round - 1])
            trained, _ = Jitter(update.slot, self.spread).train(q, update.round)
            u = dither(self.spec.model.seed, update.round, update.slot, 0, q.size)
            total += (u < trained).astype(np.int64) - (u < q)
        rule = self.spec.mask
        eta_num = of_round(rule.eta_num, round_)
        self.p_hat = self.p_hat + eta_num * total * UNIT // (rule.eta_den * len(accepted))
        self.p_hat = self.p_hat.clip(0, UNIT)
        base = self.levels.at(self.states[round_ - 1]).astype(np.int64)
        self.p_hat = 256 * base + (self.p_hat - 256 * base) * of_round(rule.keep, round_) // 256

    def _settled(self, round_: int, k: NDArray[np.int8]) -> NDArray[np.int64]:
        """The new k, from p_hat."""
        stride = of_round(self.spec.mask.stride, round_)
        width = 256 * self.spec.mask.step * stride
        distance = self.p_hat - 256 * self.levels.at(k).astype(np.int64)
        return (k + stride * ((2 * distance + width) // (2 * width))).clip(-127, 127)

    def _agreed(self, round_: int, shown: NDArray[np.int64], k: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of all k whose q says what `shown` says the nearest: the way is tried out, stride by stride."""
        stride = of_round(self.spec.mask.stride, round_)
        wanted, k = shown > UNIT // 2, k.copy()
        while True:
            kept = self.starts + k * self.spec.mask.step > 32768
            if np.array_equal(kept, wanted):
                return k
            k = (k + stride * (wanted.astype(np.int64) - kept)).clip(-127, 127)

    def _check_past(self) -> None:
        now = self.state.public.round
        for round_, kept in self.state.past.items():
            assert kept.round == round_ < now
            assert np.array_equal(kept.values, self.states[round_])
        for round_ in self.state.known.values():
            assert round_ in self.state.past or round_ in (now, 0) or round_ < now - self.past_rounds
        assert set(range(max(now - self.late_rounds, 0), now)) <= set(self.state.past)
        assert len(self.state.past) <= 1 + max(self.past_rounds, self.late_rounds)


def update_of(answer: bytes) -> Update:
    update = decode(answer).update
    assert update is not None
    assert encode(Content(update=update)) == answer
    return update
