"""One-layer, MP, RP and full: what the paper says of each."""

from __future__ import annotations

import numpy as np
import pytest

from pemn.distribution import Distribution
from pemn.errors import ConfigError
from pemn.prototype import Source, Strategy, sources, unique_values, values
from pemn.rebuild import frozen_weights
from tests.networks import model_spec

# The paper's own example: an MLP with dimensions 512-100-100-100-10 has three prototypes.
PAPER = [(100, 512), (100, 100), (100, 100), (10, 100)]


@pytest.mark.parametrize("text", ["full", "one-layer", "mp", "rp:0.01", "rp:1e-05", "rp:1.0"])
def test_spelling_reads_back(text: str) -> None:
    assert str(Strategy.parse(text)) == text


def test_two_spellings_one_value() -> None:
    assert Strategy.parse("rp:1e-2") == Strategy.parse("rp:0.01")


@pytest.mark.parametrize(
    "text", ["", "rp", "rp:", "rp:0", "rp:1.5", "rp:-1", "rp:nan", "rp:1e5", "rp:1.2.3", "MP"]
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="wanted full, one-layer, mp or rp:RATIO"):
        Strategy.parse(text)


def test_one_layer_has_a_prototype_for_each_shape() -> None:
    found = sources(Strategy.parse("one-layer"), PAPER)
    assert [source.stream for source in found] == [0, 1, 1, 3]
    assert unique_values(Strategy.parse("one-layer"), PAPER) == 51_200 + 10_000 + 1_000


def test_mp_cuts_the_largest_layer() -> None:
    weights = frozen_weights(model_spec(*PAPER, strategy="mp"))
    first = np.sign(weights[:51_200])
    assert np.array_equal(np.sign(weights[51_200:61_200]), first[:10_000])
    assert unique_values(Strategy.parse("mp"), PAPER) == 51_200


@pytest.mark.parametrize(
    ("ratio", "length"), [("1e-1", 6554), ("1e-2", 656), ("1e-3", 66), ("1e-4", 7), ("1e-5", 1)]
)
def test_rp_length_is_the_published_rule(ratio: str, length: int) -> None:
    # ConvMixer-6-256's largest layer has 65,536 weights.
    assert unique_values(Strategy.parse(f"rp:{ratio}"), [(256, 256), (256, 25)]) == length


def test_rp_restarts_in_every_layer() -> None:
    spec = model_spec((30, 31), (20, 30), strategy="rp:1e-2")
    period = spec.sources[0].period
    assert period == int(930 * 0.01) + 1
    sign = np.sign(frozen_weights(spec))
    prototype = sign[:period]
    assert np.array_equal(sign[:930], np.resize(prototype, 930))
    assert np.array_equal(sign[930:], np.resize(prototype, 600))


def test_full_gives_every_layer_its_own_values() -> None:
    spec = model_spec((40, 40), (40, 40), strategy="full")
    sign = np.sign(frozen_weights(spec))
    assert not np.array_equal(sign[:1600], sign[1600:])
    assert spec.unique_values == 3200


def test_strategies_are_nested() -> None:
    # The prototype is a prefix of the largest layer's own values, as in the published code.
    largest = Source(0, 900)
    for kind in Distribution:
        short = values(7, Source(0, 10), kind, 0, 10)
        assert np.array_equal(values(7, largest, kind, 0, 900)[:10], short)


def test_a_ratio_of_one_is_the_whole_largest_layer() -> None:
    shapes = [(3, 5), (7, 9)]
    assert sources(Strategy("rp", 1.0), shapes) == sources(Strategy("mp"), shapes) == [Source(1, 63)] * 2


def test_signed_constant_is_balanced() -> None:
    share = np.mean(values(7, Source(0, 100_000), Distribution.SIGNED, 0, 100_000).astype(np.float64))
    assert abs(share) < 0.01


@pytest.mark.parametrize(
    ("kind", "ratio"), [("one_layer", 1.0), ("dense", 1.0), ("rp", 7.0), ("rp", 0.0), ("mp", 0.5)]
)
def test_there_is_no_other_strategy(kind: str, ratio: float) -> None:
    with pytest.raises(ConfigError, match="unknown strategy"):
        Strategy(kind, ratio)
