"""An update counts for its run, round, slot and base state alone, whatever of it is made to fit another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, product

import pytest

from pemn.codec import Coder
from pemn.errors import MalformedFrame, OutOfSync, WrongRound
from pemn.federation.flips import Draw, Flips, decode_flips
from pemn.federation.levels import Levels
from pemn.methods import Server, ServerState
from pemn.wire.messages import Content, Update, decode, encode
from tests.networks import model_spec, run_spec
from tests.property.federation import World, update_of

SLOTS = range(3)
ROUNDS = range(1, 4)
SMALL, LARGE = ((3, 5), (2, 2)), ((40, 40), (10, 40))
HEADER = ("run_id", "round", "slot", "state_hash")


@dataclass(frozen=True, eq=False)
class Frame:
    """A round of a run that is open, and the genuine updates for it."""

    server: Server
    state: ServerState
    updates: tuple[Update, ...]

    @property
    def round(self) -> int:
        return self.state.public.round + 1

    def header(self, slot: int) -> dict[str, int | bytes]:
        run_id = self.server.spec.run_id
        state_hash = self.state.public.hash(run_id)
        return {"run_id": run_id, "round": self.round, "slot": slot, "state_hash": state_hash}


@cache
def frames(shapes: tuple[tuple[int, int], ...]) -> tuple[Frame, ...]:
    """Two runs of one seed, so with one dither; and each with two histories, as after a server has gone back."""
    found = []
    for run_id, history in product((1, 2), ((0, 1, 2), (0, 1))):
        world = World(run_spec(model_spec(*shapes), step=4096, run_id=run_id))
        for _ in ROUNDS:
            answers = [world.train(slot) for slot in SLOTS]
            found.append(Frame(world.server, world.state, tuple(map(update_of, answers))))
            for slot in history:
                world.deliver(slot, answers[slot])
            world.commit()
    return tuple(found)


def over_the_wire(update: Update) -> Update:
    """As it arrives: its check is right."""
    content = decode(encode(Content(update=update)))
    assert content.update is not None
    return content.update


def flips_of(update: Update, frame: Frame) -> Flips:
    draw = Draw(Levels.of(frame.server.spec), frame.state.public.values, frame.round, update.slot)
    return decode_flips(bytes(update.vote), draw)


def with_valid_hash(update: Update, flips: Flips) -> Update:
    """With a hash of its flips that is right for what its header says now."""
    of_slot = replace(flips, draw=replace(flips.draw, slot=update.slot))
    return replace(update, vote_hash=of_slot.hash(update.state_hash))


def test_every_update_in_every_other_place() -> None:
    """All 1296 pairs: it is taken where all four are its own, and nowhere else."""
    taken = refused = 0
    for origin, frame in product(frames(SMALL), repeat=2):
        for update, slot in product(origin.updates, SLOTS):
            wanted = frame.header(slot)
            header = {name: getattr(update, name) for name in HEADER}
            if header == wanted:
                assert frame.server.read_vote(frame.state, slot, over_the_wire(update)).round == frame.round
                taken += 1
                continue
            same_place = all(header[name] == wanted[name] for name in HEADER[:3])
            with pytest.raises(OutOfSync if same_place else WrongRound):
                frame.server.read_vote(frame.state, slot, over_the_wire(update))
            refused += 1
    # In round 1 both histories of a run have the same base state.
    assert (taken, taken + refused) == (2 * 3 * (4 + 2 + 2), 12 * 12 * 9)


@pytest.mark.parametrize("late_rounds", [1, 2, 3])
def test_a_server_that_takes_late_votes_takes_those_alone(late_rounds: int) -> None:
    for origin, frame in product(frames(SMALL), repeat=2):
        server = replace(frame.server, late_rounds=late_rounds)
        for update in origin.updates:
            run_id, base = server.spec.run_id, frame.state.at(update.round - 1)
            own = update.run_id == run_id and frame.round - late_rounds <= update.round <= frame.round
            voted = update.round <= frame.state.voted.get(update.slot, 0)
            if not own or voted or base is None:
                with pytest.raises(WrongRound):
                    server.read_vote(frame.state, update.slot, update)
            elif base.hash(run_id) != update.state_hash:
                with pytest.raises(OutOfSync):
                    server.read_vote(frame.state, update.slot, update)
            else:
                assert server.read_vote(frame.state, update.slot, update).round == update.round


@pytest.mark.parametrize("shapes", [SMALL, LARGE])
def test_a_part_of_the_header_is_not_enough(shapes: tuple[tuple[int, int], ...]) -> None:
    """Any of the four made to fit, the check too, and the hash of the flips for what the header says then."""
    cases = 0
    for origin, frame in product(frames(shapes)[::2], repeat=2):
        for update, slot in product(origin.updates[:2], SLOTS):
            flips, wanted = flips_of(update, origin), frame.header(slot)
            for count in range(1, 4):
                for names in combinations(HEADER, count):
                    forged = replace(update, **{name: wanted[name] for name in names})  # type: ignore[arg-type]
                    if all(getattr(forged, name) == wanted[name] for name in HEADER):
                        continue
                    with pytest.raises((WrongRound, OutOfSync)):
                        frame.server.read_vote(frame.state, slot, with_valid_hash(forged, flips))
                    cases += 1
    assert cases > 1000


@pytest.mark.parametrize("shapes", [SMALL, LARGE])
def test_flips_do_not_fit_under_another_header(shapes: tuple[tuple[int, int], ...]) -> None:
    """The whole header made to fit: the hash of the flips does not."""
    for origin, frame in product(frames(shapes), repeat=2):
        for update, slot in product(origin.updates, SLOTS):
            wanted = frame.header(slot)
            if all(getattr(update, name) == wanted[name] for name in HEADER[:3]):
                continue
            with pytest.raises(MalformedFrame):
                frame.server.read_vote(frame.state, slot, over_the_wire(replace(update, **wanted)))  # type: ignore[arg-type]


def test_many_flips_do_not_even_decode_by_another_dither_or_state() -> None:
    """And the hash of the flips as well, for the new header: only another run of the same seed is left."""
    cases = 0
    for origin, frame in product(frames(LARGE)[::2], repeat=2):
        for update, slot in product(origin.updates, SLOTS):
            draw = Draw(Levels.of(origin.server.spec), origin.state.public.values, origin.round, update.slot)
            new = Draw(Levels.of(frame.server.spec), frame.state.public.values, frame.round, slot)
            if (new.round, new.slot, new.k.tobytes()) == (draw.round, draw.slot, draw.k.tobytes()):
                continue
            if bytes(update.vote)[0] != Coder.RANS:
                continue  # no contexts
            whole = replace(update, **frame.header(slot))  # type: ignore[arg-type]
            forged = with_valid_hash(whole, flips_of(update, origin))
            with pytest.raises(MalformedFrame):
                frame.server.read_vote(frame.state, slot, forged)
            cases += 1
    assert cases > 100
