"""A federation from the first client to the last broadcast, on any engine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from pemn.errors import (
    MalformedFrame,
    MissingSpec,
    NetworkError,
    OutOfSync,
    PemnError,
    RemoteError,
    every_error,
)
from pemn.federation.defence import Defence
from pemn.ledger import Entry
from pemn.methods import Ballot, Server, ServerState
from pemn.methods.participants import participants
from pemn.wire.messages import Ack, Content, Update
from pemn.wire.spec import Spec
from pemn_server.flower import Answer, Fleet
from pemn_server.outcome import Outcome
from pemn_server.progress import Progress, RoundReport
from pemn_server.record import Record

_LAST_BROADCAST_TIMEOUT_S = 60.0
_RETURN_TIMEOUT_S = 20.0
"""For clients of a server that was away: twice as long as they pause between two tries."""

_POLL_S = 0.1
_MAX_REPEATS = 5
FEDAVG_BYTES_PER_PARAM = 8
"""Of a client-round: float32 down and float32 up."""


class Federation:
    """Runs the rounds.

    Args:
        spec: What every client gets.
        fleet: The clients.
        num_rounds: How many rounds.
        cohort: How many votes a round wants, of clients that the seed draws from those that are here: it is closed as
            soon as they have come. A client gets the spec with its first task. None: of all that are here.
        over_select: How many times as many clients a round asks, >= 1: some do not answer, or late.
        defence: What of a round's votes is left out.
        min_clients: Votes without which no round is closed.
        round_timeout_s: When a round goes on without the votes that are missing; None: never.
        wait_timeout_s: How long to wait for clients that are missing; None: for ever.
        accuracy: Of weights, float32 [n], on the test split.
        progress: For a person.
        record: What is kept of the run, and what an earlier process has kept.
    """

    def __init__(
        self,
        spec: Spec,
        fleet: Fleet,
        *,
        num_rounds: int,
        cohort: int | None = None,
        over_select: float = 1.0,
        defence: Defence = Defence.NONE,
        min_clients: int,
        round_timeout_s: float | None,
        wait_timeout_s: float | None,
        accuracy: Callable[[NDArray[np.float32]], float],
        progress: Progress,
        record: Record,
    ) -> None:
        self._spec, self._fleet, self._progress, self._record = spec, fleet, progress, record
        self._num_rounds, self._min_clients = num_rounds, min_clients
        self._cohort, self._over_select = cohort, over_select
        self._round_timeout_s, self._wait_timeout_s = round_timeout_s, wait_timeout_s
        self._accuracy = accuracy
        self._server = Server.of(spec, hand_over=fleet.hand_over, defence=defence)

    def run(self) -> Outcome:
        """Runs all rounds and the final broadcast.

        Raises:
            RemoteError: If too few clients vote, round after round.
            NetworkError: If clients are missing for too long.
        """
        outcome = self._take_up()
        returns = outcome.state.public.round == self._num_rounds
        if not self._fleet.ledger.num_entries:
            outcome.state, _ = self._wait_for_clients(outcome.state)
            self._record.keep_end(0, self._fleet.close_round(0))
        began = time.monotonic() - outcome.seconds
        ballot, repeats = self._open(outcome), 0
        while outcome.state.public.round < self._num_rounds:
            outcome.state, ready = self._wait_for_clients(outcome.state)
            outcome.state, num_asked = self._collect(outcome.state, ready, ballot)
            if len(ballot) < self._min_clients:
                # The votes that are there stay good: they are for this state, and it has not changed.
                repeats += 1
                outcome.abandoned_rounds += 1
                self._give_up_after(repeats, len(ballot))
                continue
            entries = self._fleet.close_round(outcome.state.public.round + 1)
            self._record.keep_end(outcome.state.public.round + 1, entries)
            self._close(outcome, ballot)
            outcome.seconds = time.monotonic() - began
            self._record.keep_outcome(outcome)
            self._tell(outcome, num_asked, entries)
            ballot, repeats = self._open(outcome), 0
        self._part(outcome, returns)
        return outcome

    def _part(self, outcome: Outcome, returns: bool) -> None:
        """Gives every client the last public state, and lets it go."""
        end = self._num_rounds + 1
        if self._record.has_closed(end):
            self._fleet.finish()
            return
        if returns:
            self._wait_for_return(outcome.state)
        timeout_s = self._round_timeout_s and min(_LAST_BROADCAST_TIMEOUT_S, self._round_timeout_s)
        outcome.state = self._bring_up(outcome.state, self._fleet.slots(), timeout_s)
        self._fleet.finish()  # before the books are closed: parting costs bytes too
        self._record.keep_end(end, self._fleet.close_round(end))

    def _wait_for_return(self, state: ServerState) -> None:
        """Waits, but not for long, until clients are back that do not have the last broadcast."""
        deadline = time.monotonic() + _RETURN_TIMEOUT_S
        while not set(self._fleet.slots()) >= set(state.known) and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def _take_up(self) -> Outcome:
        """Returns where an earlier process was; rounds that it has closed since its last snapshot are closed again."""
        outcome = self._record.outcome or Outcome(self._server.start())
        for round_ in range(outcome.state.public.round + 1, self._num_rounds + 1):
            if not self._record.has_closed(round_):
                break
            self._close(outcome, self._open(outcome))
            self._record.keep_outcome(outcome)
        return outcome

    def _open(self, outcome: Outcome) -> Ballot:
        """Returns the ballot of the next round, with the votes that an earlier process has kept."""
        ballot = self._server.open()
        for slot, update in self._record.votes(outcome.state.public.round + 1).items():
            outcome.state = self._server.take_vote(outcome.state, ballot, slot, update)
        return ballot

    def _close(self, outcome: Outcome, ballot: Ballot) -> None:
        """Counts a round's votes, and evaluates what comes of them."""
        if left_out := ballot.left_out():
            round_, slots = outcome.state.public.round + 1, ", ".join(map(str, left_out))
            self._progress.warn(f"round {round_}: unlike all others, so left out: votes of clients {slots}")
        with self._progress.timed("tally"):
            outcome.state = self._server.commit(outcome.state, ballot)
        method, state = self._server.method, outcome.state
        released = method.released(state.public, state.private)
        outcome.accuracies.append(self._accuracy(method.weights(released)))
        outcome.num_votes.append(len(ballot))
        outcome.images |= {slot: metrics.num_images for slot, metrics in ballot.metrics.items()}

    def _wait_for_clients(self, state: ServerState) -> tuple[ServerState, list[int]]:
        """Waits until enough clients have the spec, and gives it to each as soon as it comes.

        A client that cannot take part finds out at once and leaves; it does not count as here.

        Returns:
            The state, and the clients that are ready.

        Raises:
            NetworkError: If they do not come in time.
        """
        began, refused = time.monotonic(), set[int]()
        while True:
            here = set(self._fleet.slots())
            refused &= here
            if self._cohort is not None and len(here) >= self._min_clients:
                return state, sorted(here)
            if strangers := sorted(here - set(state.known) - refused):
                state = self._bring_up(state, strangers)
                refused |= set(strangers) - set(state.known)
            ready = sorted(here & set(state.known))
            if len(ready) >= self._min_clients:
                return state, ready
            self._progress.waiting(ready, self._min_clients)
            if self._wait_timeout_s and time.monotonic() - began > self._wait_timeout_s:
                raise NetworkError(
                    f"waited {self._wait_timeout_s:.0f} s for clients",
                    got=f"{len(ready)} {ready}",
                    wanted=self._min_clients,
                )
            time.sleep(_POLL_S)

    def _bring_up(
        self, state: ServerState, slots: Iterable[int], timeout_s: float | None = None
    ) -> ServerState:
        """Gives clients the public state of now, and the spec to those that do not have it.

        Every one of them answers with the hash of the weights that it has rebuilt.
        """
        given, weights = state, self._server.weights_sha256(state)
        tasks = self._server.tasks(given, slots)
        # A client that joins reads its data first, so it has as long as for a round.
        for answer in self._fleet.ask("query", tasks, state.public.round, timeout_s or self._round_timeout_s):
            try:
                self._server.check_ack(given, answer.slot, _ack(answer), weights)
                state = self._server.seen(state, answer.slot)
            except PemnError as error:
                state = self._after(error, state, answer.slot)
        return state

    def _collect(self, state: ServerState, ready: list[int], ballot: Ballot) -> tuple[ServerState, int]:
        """Asks clients that are here and have not voted, until there are enough votes; adds to the ballot.

        One that was ready and has just lost its connection is asked too: it gets its task when it is back.
        A client that turns out to be out of step gets what it lacks, and is asked once more.

        Returns:
            The state, and how many clients have been asked in this round.
        """
        wanted = self._choose(state.public.round + 1, {*ready} | {*self._fleet.slots()})
        to_ask = [slot for slot in wanted if slot not in ballot.rounds]
        num_asked = len(ballot) + len(to_ask)
        for _ in range(2):
            asked = to_ask
            if self._cohort is None:
                if strangers := [slot for slot in to_ask if slot not in state.known]:
                    state = self._bring_up(state, strangers)
                asked = [slot for slot in to_ask if slot in state.known]
            state, to_ask = self._ask_for_votes(state, asked, ballot, num_asked)
            if not to_ask or self._has_enough(ballot):
                break
        return state, num_asked

    def _choose(self, round_: int, here: set[int]) -> list[int]:
        """Returns the slots that a round asks, in the order in which it asks them.

        One that is still at work for an earlier round is asked only if there are too few others: it would answer late
        again.
        """
        free = here - self._fleet.busy()
        if self._cohort is None:
            return sorted(free if len(free) >= self._min_clients else here)
        seed, num_slots = self._spec.model.seed, self._spec.data.num_slots
        count = math.ceil(self._cohort * self._over_select)
        drawn = participants(seed, round_, num_slots, count, free)
        if len(drawn) < count:
            drawn += participants(seed, round_, num_slots, count - len(drawn), here - free)
        # Where the first to answer count, the order in which they are asked must favour nobody.
        return drawn if self._over_select > 1 else sorted(drawn)

    def _has_enough(self, ballot: Ballot) -> bool:
        return self._cohort is not None and len(ballot) >= self._cohort

    def _ask_for_votes(
        self, state: ServerState, slots: list[int], ballot: Ballot, num_asked: int
    ) -> tuple[ServerState, list[int]]:
        """Adds to the ballot; returns the state and the clients that are out of step."""
        round_ = state.public.round + 1
        self._progress.training(round_, len(ballot), num_asked)
        tasks, out_of_step, answered = self._server.tasks(state, slots), list[int](), set[int]()
        with closing(self._fleet.ask("train", tasks, round_, self._round_timeout_s)) as answers:
            for answer in answers:
                answered.add(answer.slot)
                try:
                    update = _update(answer)
                    with self._progress.timed("decode"):
                        state = self._server.take_vote(state, ballot, answer.slot, update)
                except PemnError as error:
                    state = self._after(error, state, answer.slot)
                    if isinstance(error, OutOfSync):
                        out_of_step.append(answer.slot)
                else:
                    self._record.keep_vote(round_, answer.slot, update)
                self._progress.training(round_, len(ballot), num_asked)
                if self._has_enough(ballot):
                    break
        if self._fleet.keeps_tasks:
            # Those that are late have their task: when they come to the next one, they will have this public state.
            for slot in (tasks.keys() - answered) & set(self._fleet.slots()):
                state = self._server.seen(state, slot)
        return state, out_of_step

    def _after(self, error: PemnError, state: ServerState, slot: int) -> ServerState:
        """Returns the state after a client's failure, by which it gets what it lacks."""
        self._progress.refused(slot, error)
        if isinstance(error, MissingSpec):
            return self._server.forget(state, slot)
        if isinstance(error, OutOfSync) and slot in state.known:
            return self._server.rewind(state, slot)
        return state

    def _give_up_after(self, repeats: int, num_votes: int) -> None:
        text = f"{num_votes} of at least {self._min_clients} votes"
        if repeats > _MAX_REPEATS:
            raise RemoteError(f"clients were asked {repeats} times in one round: {text}")
        self._progress.warn(f"{text}: those that are missing are asked again")

    def _tell(self, outcome: Outcome, num_asked: int, entries: list[Entry]) -> None:
        up, down = (self._fleet.ledger.total(direction, "wire") for direction in ("up", "down"))
        self._progress.round_done(
            RoundReport(
                round=outcome.state.public.round,
                num_rounds=self._num_rounds,
                num_votes=outcome.num_votes[-1],
                num_clients=num_asked,
                accuracy=outcome.accuracies[-1],
                up_bytes=_wire(entries, "up"),
                down_bytes=_wire(entries, "down"),
                total_up_bytes=up,
                total_down_bytes=down,
                saving=fedavg_bytes(self._spec, outcome.num_votes) / max(up + down, 1),
            )
        )


def _content(answer: Answer) -> Content:
    """Returns an answer's content, or raises what came in its place."""
    if answer.content is None:
        raise answer.error or RemoteError("no answer")
    if failure := answer.content.error:
        raise every_error().get(failure.code, RemoteError)(f"says {failure.text}")
    return answer.content


def _ack(answer: Answer) -> Ack:
    ack = _content(answer).ack
    if ack is None:
        raise MalformedFrame("answer to a query", wanted="an acknowledgement")
    return ack


def _update(answer: Answer) -> Update:
    update = _content(answer).update
    if update is None:
        raise MalformedFrame("answer to a training task", wanted="an update")
    return update


def fedavg_bytes(spec: Spec, num_votes: Iterable[int]) -> int:
    """Returns what FedAvg would have sent for as many client-rounds, without any overhead."""
    return FEDAVG_BYTES_PER_PARAM * spec.model.num_params * sum(num_votes)


def _wire(entries: Iterable[Entry], direction: str) -> int:
    chosen = (entry for entry in entries if entry.direction == direction)
    return sum(entry.framed if entry.wire is None else entry.wire for entry in chosen)
