"""PEMN against the second implementation: the same bytes, and the same bytes refused."""

from __future__ import annotations

import contextlib
import random
import re
import struct
import sys
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pemn import generator
from pemn.codec import fast, log2
from pemn.data.partition import shards
from pemn.distribution import Distribution, normal_table
from pemn.errors import ConfigError
from pemn.federation import contexts, release, tally
from pemn.federation.flips import Draw, decode_flips, draw_flips, encode_flips
from pemn.federation.groups import LayerGroups
from pemn.federation.levels import Levels
from pemn.federation.moves import decode_moves, encode_moves
from pemn.federation.public import PublicState
from pemn.mask import Mask, untied
from pemn.partition import Partition
from pemn.prototype import Source, Strategy, sources
from pemn.rebuild import frozen_weights, rebuild, weights_sha256
from pemn.schedule import Schedule
from pemn.wire import limits
from pemn.wire.protocols import MaskProtocol
from tests.golden import reference, reference_codes
from tests.golden.forgery import accepts, damage, same_fate
from tests.golden.reference_bytes import clip, pack
from tests.golden.reference_codes import encode_decisions
from tests.golden.reference_messages import check_partition, check_strategy, spell
from tests.golden.reference_shares import shares
from tests.networks import model_spec

HALF = 1 << 23  # as p_hat has it
KEYS = st.integers(0, 2**64 - 1)
SHAPES = st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple), min_size=1, max_size=4)
RATIOS = st.floats(0, 1, exclude_min=True) | st.sampled_from([1e-4, 1e-5, 0.1, 0.01, 5e-324])


def numbers(value: NDArray[Any]) -> list[Any]:
    listed: list[Any] = value.astype(int).tolist()
    return listed


@given(KEYS, st.integers(0, 150), st.lists(KEYS, max_size=3))
def test_random_words(key: int, count: int, path: list[int]) -> None:
    assert generator.child(key, *path) == reference.child(key, *path)
    assert generator.words(key, 0, count).tolist() == [reference.word(key, i) for i in range(count)]
    assert generator.uint16s(key, 0, count).tolist() == reference.integers(key, count)
    octets = generator.uint8s(key, 0, -(-count // 8))
    assert numbers(np.unpackbits(octets, bitorder="little", count=count)) == reference.signs(key, count)
    assert generator.permutation(key, count).tolist() == reference.permutation(key, count)


@given(
    SHAPES,
    st.sampled_from(["full", "one-layer", "mp"]) | RATIOS.map(lambda r: f"rp:{r!r}"),
    st.sampled_from(Distribution),
    KEYS,
    st.data(),
)
def test_weights(
    shapes: list[tuple[int, ...]], strategy: str, distribution: Distribution, seed: int, data: st.DataObject
) -> None:
    model = replace(model_spec(*shapes, strategy=strategy, seed=seed), distribution=distribution)
    found = sources(Strategy.parse(strategy), shapes)
    assert found == [Source(*source) for source in reference.sources(strategy, shapes)]
    scales = [layer.scale for layer in model.layers]
    frozen = reference.frozen_weights(seed, strategy, distribution, shapes, scales)
    assert frozen_weights(model).tolist() == frozen
    bits = data.draw(st.lists(st.booleans(), min_size=len(frozen), max_size=len(frozen)))
    mask = Mask.from_bits(np.array(bits, np.bool_), model.sizes)
    assert mask.packed.tobytes() == reference.packed_mask([int(bit) for bit in bits], model.sizes)
    masked = reference.masked(frozen, [int(bit) for bit in bits])
    assert weights_sha256(rebuild(model, mask)) == reference.weights_hash(masked)


def test_every_entry_of_the_table_of_quantiles() -> None:
    assert normal_table().tolist() == [reference.normal_entry(u) for u in range(65536)]


@given(RATIOS)
def test_a_ratio_has_one_spelling(ratio: float) -> None:
    assert str(Strategy("rp", ratio)) == f"rp:{spell(ratio)}"


@given(st.from_regex(re.compile(r"(rp:)?[0-9.]{1,6}(e-?[0-9]{1,2})?|mp|full|one-layer"), fullmatch=True))
def test_the_same_spellings_of_a_strategy_are_taken(text: str) -> None:
    taken = False
    with contextlib.suppress(ConfigError):
        taken = str(Strategy.parse(text)) == text
    assert taken == accepts(lambda: check_strategy(text))


@given(
    st.floats(0, exclude_min=True, allow_infinity=False)
    | st.sampled_from([1e15, 1e16, 1e23, 5e-324, sys.float_info.max])
)
def test_a_concentration_has_one_spelling(alpha: float) -> None:
    assert str(Partition("dirichlet", alpha)) == f"dirichlet:{spell(alpha)}"


NUMBERS = r"[0-9.]{0,6}(e[+-]?[0-9]{1,3})?"


@given(st.from_regex(re.compile(rf"((dirichlet|classes):)?{NUMBERS}|own|iid|iid:1"), fullmatch=True))
def test_the_same_spellings_of_a_partition_are_taken(text: str) -> None:
    taken = False
    with contextlib.suppress(ConfigError):
        taken = str(Partition.parse(text)) == text
    assert taken == accepts(lambda: check_partition(text, 3, 10))


def test_every_probability_has_the_same_odds_and_buckets() -> None:
    every = np.arange(65536)
    odds = [reference.odds(p) for p in range(65536)]
    assert (log2.LOG_ODDS >> 6).tolist() == odds
    levels = every.astype(np.uint16)
    assert contexts.start_buckets(levels).tolist() == [reference.half_octave(x) for x in odds]
    groups = LayerGroups.of((65536,))
    for q in (66, 30_000, 65_470):
        known = reference.Draw([q] * 65536, every.tolist(), [0] * 65536)
        ids = contexts.flip_contexts(np.full(65536, q, np.uint16), levels, groups, 0)
        digits = np.array([known.context(i) for i in range(65536)]).T
        assert np.array_equal(ids, np.ravel_multi_index(tuple(digits), contexts.flip_shape(groups)))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=40))
def test_layer_groups(sizes: list[int]) -> None:
    groups = LayerGroups.of(tuple(sizes))
    assert groups.ids(0, sum(sizes)).tolist() == reference.layer_groups(sizes)


def rule(draw: random.Random, sizes: tuple[int, ...], least_step: int = 1) -> tuple[reference.Rule, Levels]:
    size = draw.choice([0, 1, 2, 8, 64])
    lower = tuple(sorted(draw.randint(66, 32768) for _ in range(size)))
    step, eta_den = (draw.choice([least_step, 777, 4096, 32768, 65535]) for _ in range(2))
    eta_nums = schedule(draw, [1, 77, 4096, 32768, 65535])
    strides = schedule(draw, [1, 2, 3, 7, 64, 127], min(127, 65535 // step))
    window = draw.choice([1, 2, 5, 4096])
    seed = draw.getrandbits(64)
    keeps = schedule(draw, [1, 64, 192, 255, 256], 256)
    protocol = MaskProtocol(
        step, Schedule(eta_nums), eta_den, lower, Schedule(strides), window, Schedule(keeps)
    )
    plain = reference.Rule(seed, sizes, step, eta_nums, eta_den, lower, strides, window, keeps)
    return plain, Levels(protocol, seed, sizes)


def schedule(draw: random.Random, values: list[int], most: int = 65535) -> reference.Changes:
    """Up to five changes in the rounds that the tests look at."""
    drawn = [(round_, min(draw.choice(values), most)) for round_ in sorted(draw.sample(range(2, 9), 4))]
    drawn.insert(0, (1, min(draw.choice(values), most)))
    return tuple(drawn[:1] + [new for old, new in pairwise(drawn) if new[1] != old[1]])


SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=12).map(tuple)


@settings(max_examples=40)
@given(st.randoms(use_true_random=False), SIZES, st.integers(1, 3))
def test_a_round(draw: random.Random, sizes: tuple[int, ...], num_votes: int) -> None:
    plain, levels = rule(draw, sizes)
    num_params = sum(sizes)
    k = [draw.choice([0, 0, 1, -1, draw.randint(-127, 127)]) for _ in range(num_params)]
    array = np.array(k, np.int8)
    q = levels.at(array)
    assert q.tolist() == plain.q(k)
    round_, run_id = draw.choice([*range(9), draw.randint(0, 2**31 - 2)]), draw.getrandbits(64)
    assert PublicState(round_, array).hash(run_id) == reference.state_hash(run_id, round_, k)
    assert numbers(levels.mask(array).bits()) == reference.state_mask(plain.q(k))

    votes, plain_votes = tally.Tally(num_params), []
    for slot in range(num_votes):
        known, plain_draw = (
            Draw(levels, array, round_ + 1, slot),
            reference.draw_of(plain, k, round_ + 1, slot),
        )
        p = [draw.choice([q_i, draw.randint(66, 65470)]) for q_i in q.tolist()]
        flips, plain_flips = draw_flips(np.array(p, np.uint16), known), reference.flip_mask(p, plain_draw)
        base_hash = reference.state_hash(run_id, round_, k)
        assert flips.hash(base_hash) == reference.flips_hash(plain_flips, base_hash, slot)
        code = encode_flips(flips)
        assert code == reference.encode_flips(plain_flips, plain_draw)
        assert reference.decode_flips(code, plain_draw) == plain_flips
        found = decode_flips(code, known)
        plain_votes.append(reference.votes_of(plain_flips, plain_draw))
        assert found.mask.tobytes() == pack([abs(vote) for vote in plain_votes[-1]])
        votes.add(found)
        forged = damage(code, draw)
        same_fate(
            lambda: decode_flips(forged, known).mask.tobytes(),  # noqa: B023
            lambda: pack(reference.decode_flips(forged, plain_draw)),  # noqa: B023
        )

    p_hat = [draw.randint(0, 1 << 24) for _ in range(num_params)]
    voted = round_ + 1
    half = 128 * plain.step * reference.holds(plain.strides, voted)
    edges = [256 * q_i + draw.choice([-half, half]) + draw.randint(-1, 1) for q_i in q.tolist()]
    at_edges = np.array(edges, np.int32).clip(0, 1 << 24)  # of the dead zone
    assert tally.settle(levels.protocol, voted, at_edges, array, q).tolist() == reference.settle(
        plain, voted, at_edges.tolist(), k
    )
    learnt = tally.learn(levels.protocol, voted, np.array(p_hat, np.int32), votes)
    assert learnt.tolist() == reference.learn(plain, voted, p_hat, plain_votes)
    forgot = tally.forget(levels.protocol, voted, learnt, q)
    assert forgot.dtype == np.int32
    assert forgot.tolist() == reference.forget(plain, voted, learnt.tolist(), q.tolist())
    settled = tally.settle(levels.protocol, voted, learnt, array, q)
    assert settled.tolist() == reference.settle(plain, voted, learnt.tolist(), k)


@settings(max_examples=60)
@given(st.randoms(use_true_random=False), SIZES)
def test_averages(draw: random.Random, sizes: tuple[int, ...]) -> None:
    plain, levels = rule(draw, sizes)
    draw = random.Random(draw.getrandbits(64))  # more numbers than hypothesis likes to keep
    mean, plain_mean = np.array(reference.start_p_hat(plain), np.int32), reference.start_p_hat(plain)
    assert tally.start(levels.at(np.zeros(sum(sizes), np.int8))).tolist() == plain_mean
    for round_ in [*range(1, 30), 2**31 - 1]:
        p_hat = [draw.choice([0, 1 << 24, draw.randint(0, 1 << 24)]) for _ in plain_mean]
        mean = tally.average(levels.protocol, round_, mean, np.array(p_hat, np.int32))
        plain_mean = reference.average(plain, round_, plain_mean, p_hat)
        assert mean.dtype == np.int32
        assert mean.tolist() == plain_mean


@settings(max_examples=100)
@given(st.randoms(use_true_random=False), SIZES)
def test_releases(draw: random.Random, sizes: tuple[int, ...]) -> None:
    plain, levels = rule(draw, sizes, least_step=limits.MIN_STEP)
    k = [draw.choice([0, 1, -1, 127, -127, draw.randint(-127, 127)]) for _ in range(sum(sizes))]
    mean = [draw.choice([0, HALF, HALF + 1, 1 << 24, draw.randint(0, 1 << 24)]) for _ in k]
    array, starts = np.array(k, np.int8), levels.at(np.zeros(len(k), np.int8))
    round_ = draw.choice([1, 2, 9])
    released = tally.agree(levels.protocol, round_, np.array(mean, np.int32), array, starts)
    assert released.dtype == np.int8
    assert released.tolist() == reference.agree(plain, round_, mean, k)
    wanted = [int(m > HALF) for m in mean]
    assert reference.state_mask(plain.q(released.tolist())) == wanted
    # None has moved that need not, none by a stride more than it must.
    stride = reference.holds(plain.strides, round_)
    for i, (before, after) in enumerate(zip(k, released.tolist(), strict=True)):
        moved = after - before
        nearer = before + (max(moved - stride, 0) if moved > 0 else min(moved + stride, 0))
        near = [*k[:i], nearer, *k[i + 1 :]]
        assert (before == after) == (reference.state_mask(plain.q(k))[i] == wanted[i])
        assert (reference.state_mask(plain.q(near))[i] == wanted[i]) == (before == after)
    again = tally.agree(levels.protocol, round_, np.array(mean, np.int32), released, starts)
    assert again.tolist() == released.tolist()


@given(SHAPES, st.integers(1, 9), st.sampled_from(Distribution), st.data())
def test_tied_masks(
    shapes: list[tuple[int, ...]], tie: int, distribution: Distribution, data: st.DataObject
) -> None:
    model = replace(model_spec(*shapes), distribution=distribution, tie=tie)
    sizes = model.sizes
    assert model.bit_sizes == reference.bit_sizes(sizes, tie)
    bits = data.draw(st.lists(st.integers(0, 1), min_size=model.num_bits, max_size=model.num_bits))
    mask = Mask.from_bits(np.array(bits, np.bool_), model.bit_sizes)
    assert mask.packed.tobytes() == reference.packed_mask(bits, model.bit_sizes)
    plain = reference.untied(bits, sizes, tie)
    assert untied(mask, sizes, tie) == Mask.from_bits(np.array(plain, np.bool_), sizes)
    scales = [layer.scale for layer in model.layers]
    frozen = reference.frozen_weights(model.seed, str(model.strategy), distribution, shapes, scales)
    assert rebuild(model, mask).tobytes() == struct.pack(f"<{len(plain)}f", *reference.masked(frozen, plain))


@given(SHAPES, st.integers(1, 3), st.sampled_from(Distribution), st.data())
def test_weights_that_are_sums(
    shapes: list[tuple[int, ...]], tie: int, distribution: Distribution, data: st.DataObject
) -> None:
    plain = model_spec(*shapes)
    terms = data.draw(st.lists(st.integers(1, 5), min_size=len(shapes), max_size=len(shapes)))
    layers = tuple(replace(layer, terms=count) for layer, count in zip(plain.layers, terms, strict=True))
    strategy = data.draw(st.sampled_from(["full", "one-layer", "mp", "rp:0.3"]))
    model = replace(
        plain, layers=layers, distribution=distribution, tie=tie, strategy=Strategy.parse(strategy)
    )
    bits = data.draw(st.lists(st.integers(0, 1), min_size=model.num_bits, max_size=model.num_bits))
    mask = Mask.from_bits(np.array(bits, np.bool_), model.bit_sizes)
    of_values = reference.untied(bits, model.value_sizes, tie)
    scales = [layer.scale for layer in layers]
    weights = reference.summed(model.seed, strategy, distribution, shapes, scales, terms, of_values)
    assert rebuild(model, mask).tobytes() == struct.pack(f"<{model.num_params}f", *weights)


@settings(max_examples=60)
@given(st.randoms(use_true_random=False), SIZES, st.sampled_from([0, 1, 3, 7, 8, 254]))
def test_moves(draw: random.Random, sizes: tuple[int, ...], farthest: int) -> None:
    plain, levels = rule(draw, sizes)
    share, near = draw.random(), draw.choice([0, 3, 127])
    k = [draw.randint(-near, near) for _ in range(sum(sizes))]
    after = [
        clip(k_i + draw.randint(-farthest, farthest), -127, 127) if draw.random() < share else k_i
        for k_i in k
    ]
    base, before = reference.Base(plain, k), np.array(k, np.int8)
    data = encode_moves(before, np.array(after, np.int8), levels)
    assert data == reference.encode_moves(base, after)
    assert decode_moves(data, before, levels).tolist() == reference.decode_moves(base, data) == after
    forged = damage(data, draw)
    same_fate(
        lambda: decode_moves(forged, before, levels).tolist(), lambda: reference.decode_moves(base, forged)
    )


def test_moves_that_must_not_be_are_refused() -> None:
    sizes = (9,)
    plain = reference.Rule(7, sizes, 100)
    levels = Levels(MaskProtocol(100, Schedule.always(1), 1, ()), 7, sizes)
    k = [120, -120, 0, 0, 0, 0, 0, 0, 0]
    base = reference.Base(plain, k)

    def moves(moved: list[int]) -> bytes:
        return encode_decisions([reference._lists_of_moves(base, moved, range(9))])

    cases = [
        ([7, -7], True),
        ([-247, 247, 127, -127], True),
        ([8], False),
        ([0, -8], False),
        ([0, 0, 128], False),
        ([], False),
    ]
    for first, taken in cases:
        data = moves(first + [0] * (9 - len(first)))
        assert accepts(lambda: decode_moves(data, np.array(k, np.int8), levels)) == taken  # noqa: B023
        assert accepts(lambda: reference.decode_moves(base, data)) == taken  # noqa: B023


@settings(max_examples=60)
@given(st.randoms(use_true_random=False), SIZES, st.lists(st.integers(1, 65535), max_size=31, unique=True))
def test_released_masks(draw: random.Random, sizes: tuple[int, ...], edges: list[int]) -> None:
    plain, levels = rule(draw, sizes)
    own = release.start_edges(levels.protocol)
    assert list(own) == reference.start_edges(plain.lower_levels)
    known = draw.choice([own, tuple(sorted(edges))])
    bits = [int(q > draw.choice([0, 20_000, 32_768, 65_535])) for q in plain.start()]
    found = reference.release_contexts(sizes, plain.seed, known)
    data = release.encode_mask(Mask.from_bits(np.array(bits, np.bool_), sizes), plain.seed, known)
    assert data == reference.encode_mask(bits, found)
    assert reference.decode_mask(data, found) == bits
    forged = damage(data, draw)
    same_fate(
        lambda: numbers(release.decode_mask(forged, sizes, plain.seed, known).bits()),
        lambda: reference.decode_mask(forged, found),
    )


def test_a_draw_that_is_an_edge_is_above_it() -> None:
    drawn = reference.integers(reference.child(7, reference.START_LEVELS), 1000)
    edges = sorted(drawn[::200])
    bits = [int(u >= edges[2]) for u in drawn]
    found = reference.release_contexts((1000,), 7, edges)
    data = release.encode_mask(Mask.from_bits(np.array(bits, np.bool_), (1000,)), 7, tuple(edges))
    assert data[0] == reference_codes.RANS
    assert data == reference.encode_mask(bits, found)


def test_a_network_with_full_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the compiled loops, where there are any."""
    monkeypatch.setattr(fast, "PATIENCE", -1)
    sizes = (50_000, 20_000)
    plain, levels = rule(random.Random(5), sizes)
    k = [v % 7 - 3 for v in reference.integers(1, 70_000)]
    after = [
        k_i + v % 3 - 1 if v < 20_000 else k_i
        for k_i, v in zip(k, reference.integers(2, 70_000), strict=True)
    ]
    before, base = np.array(k, np.int8), reference.Base(plain, k)
    data = encode_moves(before, np.array(after, np.int8), levels)
    assert data == reference.encode_moves(base, after)
    assert decode_moves(data, before, levels).tolist() == after
    known, plain_draw = Draw(levels, before, 1, 0), reference.draw_of(plain, k, 1, 0)
    p = reference.integers(3, 70_000)
    p = [clip(level, 66, 65470) for level in p]
    flips = draw_flips(np.array(p, np.uint16), known)
    code = encode_flips(flips)
    assert code == reference.encode_flips(reference.flip_mask(p, plain_draw), plain_draw)
    assert decode_flips(code, known).mask.tobytes() == flips.mask.tobytes()


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 6), min_size=9, max_size=60),
    st.integers(1, 9),
    KEYS,
    st.sampled_from(["iid", "classes:1", "classes:2", "dirichlet:0.05", "dirichlet:0.3", "dirichlet:3"]),
)
def test_shares_of_the_data(labels: list[int], num_slots: int, seed: int, partition: str) -> None:
    if partition == "classes:2" and len(set(labels)) < 2:
        return
    found = shards(Partition.parse(partition), np.array(labels, np.int64), num_slots, seed)
    assert [share.tolist() for share in found] == shares(partition, labels, num_slots, seed)
