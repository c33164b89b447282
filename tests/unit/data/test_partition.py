from __future__ import annotations

import decimal
import hashlib
import importlib
import time

import numpy as np
import pytest
from numpy.typing import NDArray

from pemn.data import partition as module
from pemn.data.datasets import Dataset
from pemn.data.partition import shards
from pemn.errors import ConfigError, DataError, LocalError
from pemn.partition import Partition

TEN = np.repeat(np.arange(10), 500)  # 500 images of each of ten classes


def deal(text: str, labels: NDArray[np.int64], num_slots: int, seed: int = 1) -> list[NDArray[np.int64]]:
    return shards(Partition.parse(text), labels, num_slots, seed)


def class_counts(text: str, num_slots: int, seed: int = 1) -> NDArray[np.int64]:
    """[slots, classes]."""
    return np.stack([np.bincount(TEN[shard], minlength=10) for shard in deal(text, TEN, num_slots, seed)])


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("own", "own"),
        ("iid", "iid"),
        ("dirichlet:0.3", "dirichlet:0.3"),
        ("dirichlet:.30", "dirichlet:0.3"),
        ("dirichlet:00.3", "dirichlet:0.3"),
        ("dirichlet:3e-1", "dirichlet:0.3"),
        ("dirichlet:1", "dirichlet:1.0"),
        ("dirichlet:1e-5", "dirichlet:1e-05"),
        ("dirichlet:1e+20", "dirichlet:1e+20"),
        ("classes:2", "classes:2"),
    ],
)
def test_a_partition_has_one_spelling(text: str, spelling: str) -> None:
    parsed = Partition.parse(text)
    assert str(parsed) == spelling
    assert Partition.parse(spelling) == parsed


NONSENSE = """
IID iid: iid:1 dirichlet dirichlet: dirichlet:0 dirichlet:0.0 dirichlet:-1 dirichlet:nan dirichlet:inf
dirichlet:1e999 dirichlet:1e-999 dirichlet:. dirichlet:1.2.3 dirichlet:1_0 dirichlet:0x1 classes classes:
classes:0 classes:-1 classes:1.5 classes:02 classes:+2 classes:9999999999 shards:2 ٣ classes:٣ dirichlet:٣
"""


@pytest.mark.parametrize("text", [*NONSENSE.split(), "", " iid", "iid\n", "classes:2\n", "dirichlet:1 "])
def test_nonsense_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"unknown partition: got .* wanted own, iid, dirichlet:A .* classes:C"
    ):
        Partition.parse(text)


def test_the_shards_never_change() -> None:
    """Written once; another value means that clients of two versions train on each other's images."""
    golden = {
        ("iid", 7): "7b47b0b54b929863a6803b0c2bd8592d",
        ("dirichlet:0.3", 7): "3e787e0457b2f6eaec58c2e929d59fab",
        ("dirichlet:2.5", 7): "4d1309c6e02c9b554d0179746c894bee",
        ("classes:2", 7): "d8f86280e6a1dc9d8db8119fed5c443d",
        # So many clients that some would get nothing.
        ("dirichlet:0.05", 300): "839b96bd580d17d00787b6ec331793c9",
        ("classes:10", 4000): "978b7add38838a2f7c73f45a03290080",
    }
    for (text, num_slots), digest in golden.items():
        dealt = deal(text, TEN, num_slots, seed=0x0123456789ABCDEF)
        content = b"|".join(shard.astype("<i8").tobytes() for shard in dealt)
        assert hashlib.sha256(content).hexdigest()[:32] == digest, text


@pytest.mark.parametrize("alpha", ["0.01", "0.3", "1.0", "50.0"])
def test_another_implementation_of_decimal_deals_the_same(
    monkeypatch: pytest.MonkeyPatch, alpha: str
) -> None:
    """Correctly rounded arithmetic has one result: libmpdec's in C and Python's own agree to the last digit."""
    key = 99
    with decimal.localcontext(decimal.Context(prec=20)):
        in_c = [module._log_gamma_variate(key + i, decimal.Decimal(alpha)) for i in range(20)]
    wanted = deal(f"dirichlet:{alpha}", TEN, 4)
    pure = importlib.import_module("_pydecimal")
    assert pure.Decimal is not decimal.Decimal
    monkeypatch.setattr(module, "decimal", pure)
    with pure.localcontext(pure.Context(prec=20)):
        in_python = [module._log_gamma_variate(key + i, pure.Decimal(alpha)) for i in range(20)]
    assert [str(value) for value in in_python] == [str(value) for value in in_c]
    for mine, theirs in zip(deal(f"dirichlet:{alpha}", TEN, 4), wanted, strict=True):
        assert (mine == theirs).all()


@pytest.mark.parametrize("alpha", ["0.05", "0.5", "1.0", "7.0"])
def test_variates_follow_the_gamma_distribution(alpha: str) -> None:
    stats = pytest.importorskip("scipy.stats")
    with decimal.localcontext(decimal.Context(prec=20)):
        logs = [float(module._log_gamma_variate(key, decimal.Decimal(alpha))) for key in range(3000)]
    # loggamma rather than gamma: with a small alpha most variates are next to 0.
    assert stats.kstest(logs, stats.loggamma(float(alpha)).cdf).pvalue > 0.01


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_shares_have_the_mean_and_variance_of_a_dirichlet_distribution(alpha: float) -> None:
    num_slots = 5
    shares = (
        np.concatenate([class_counts(f"dirichlet:{alpha}", num_slots, seed) for seed in range(60)], 1) / 500
    )
    assert shares.shape == (num_slots, 600)
    variance = (1 / num_slots) * (1 - 1 / num_slots) / (num_slots * alpha + 1)
    assert shares.mean(1) == pytest.approx([1 / num_slots] * num_slots, abs=5 * (variance / 600) ** 0.5)
    assert shares.var() == pytest.approx(variance, rel=0.15)


def test_classes_get_more_uneven_as_alpha_falls() -> None:
    def skew(text: str) -> float:
        counts = np.concatenate([class_counts(text, 10, seed) for seed in range(5)])
        return float((counts.max(1) / counts.sum(1)).mean())

    skews = [skew(f"dirichlet:{alpha}") for alpha in (100, 10, 1, 0.1, 0.01)]
    assert skews == sorted(skews)
    assert skew("iid") < skews[1]
    assert skews[0] < 0.15
    assert skews[-1] > 0.7


@pytest.mark.parametrize("alpha", ["5e-324", "1e-9", "1e9", "1.7e308"])
def test_the_most_extreme_shares_can_be_drawn(alpha: str) -> None:
    counts = class_counts(f"dirichlet:{alpha}", 4)
    assert counts.sum() == len(TEN)
    if float(alpha) < 1:  # every class has one owner, but for images that filled an empty slot
        assert (counts.max(0) >= 497).all()
    else:
        assert np.ptp(counts) <= 4


def test_iid_shards_look_like_the_whole() -> None:
    counts = class_counts("iid", 3)
    assert counts.sum(1).tolist() == [1667, 1667, 1666]
    assert np.abs(counts - 500 / 3).max() < 5 * (500 / 3) ** 0.5


@pytest.mark.parametrize(("num_slots", "per_slot"), [(5, 2), (10, 3), (7, 10), (100, 2), (20, 1), (3, 4)])
def test_every_client_has_its_number_of_classes_and_every_class_a_holder(
    num_slots: int, per_slot: int
) -> None:
    held = class_counts(f"classes:{per_slot}", num_slots) > 0
    assert (held.sum(1) == per_slot).all()
    assert held.any(0).all()
    # Round and round: no class has two holders more than another.
    assert np.ptp(held.sum(0)) <= 1


def test_the_images_of_a_class_are_shared_equally() -> None:
    counts = class_counts("classes:2", 20)
    for of_class in counts.T:
        assert np.ptp(of_class[of_class > 0]) <= 1


@pytest.mark.parametrize("text", ["iid", "dirichlet:5", "classes:10"])
def test_a_client_has_images_from_all_over_its_classes(text: str) -> None:
    """Files are often ordered in a way of their own: a run of neighbours would be no random sample."""
    for shard in deal(text, TEN, 4):
        of_class = shard[TEN[shard] == 3] - 1500  # 0 .. 499 in file order
        assert of_class.min() < 50
        assert of_class.max() > 450


def test_a_class_without_holder_is_left_out_whole() -> None:
    counts = class_counts("classes:2", 3)
    assert sorted(counts.sum(0)) == [0] * 4 + [500] * 6


@pytest.mark.parametrize("text", ["iid", "dirichlet:0.3", "classes:2"])
def test_another_seed_deals_otherwise(text: str) -> None:
    assert any(
        a.tolist() != b.tolist() for a, b in zip(deal(text, TEN, 5, 1), deal(text, TEN, 5, 2), strict=True)
    )


def test_an_empty_client_takes_from_the_one_with_most() -> None:
    labels = np.zeros(40, np.int64)
    sizes = [len(shard) for shard in deal("dirichlet:0.001", labels, 10)]
    assert sorted(sizes) == [1] * 9 + [31]


@pytest.mark.parametrize("text", ["iid", "dirichlet:0.01", "classes:1"])
def test_as_many_clients_as_images_get_one_each(text: str) -> None:
    labels = np.array([0, 1, 1, 2, 2, 2])
    assert sorted(int(shard[0]) for shard in deal(text, labels, 6)) == list(range(6))
    with pytest.raises(DataError, match="too few images for the clients: got 6 images; wanted at least 7"):
        deal(text, labels, 7)


def test_empty_clients_take_turns_at_the_one_with_most() -> None:
    # Every client has all classes, of three images each: the first three get one of each, the others none.
    labels = np.repeat(np.arange(4), 3)
    dealt = [shard.tolist() for shard in deal("classes:4", labels, 9)]
    three = [shard.tolist() for shard in deal("classes:4", labels, 3)]
    # Of the first three, lowest first, the highest image each, and then the next: until nobody has three.
    assert dealt == [image[:2] for image in three] + [[image[3]] for image in three] + [
        [image[2]] for image in three
    ]


def test_a_client_for_every_image_takes_no_longer_than_the_images() -> None:
    labels = np.arange(1 << 18) % 1000
    before_s = time.perf_counter()
    dealt = deal("classes:1000", labels, 1 << 18)
    # 1 s; half a minute and more if all clients are looked through for each class, or all images for each client.
    assert time.perf_counter() - before_s < 10
    assert {len(shard) for shard in dealt} == {1}


def test_more_classes_a_client_than_there_are_is_refused() -> None:
    with pytest.raises(DataError, match="classes of a client: got 11; wanted at most 10"):
        deal("classes:11", TEN, 5)


def test_a_caller_that_breaks_the_contract_is_told() -> None:
    iid = Partition("iid")
    for labels in (TEN.astype(np.int32), TEN.reshape(2, -1), TEN - 1):
        with pytest.raises(LocalError, match="labels"):
            shards(iid, labels, 2, 1)  # type: ignore[arg-type]
    with pytest.raises(LocalError, match="number of clients"):
        shards(iid, TEN, 0, 1)
    with pytest.raises(LocalError, match="kind of partition"):
        shards(Partition("shards"), TEN, 2, 1)


def test_real_labels_are_dealt_completely(cifar10_test: Dataset) -> None:
    dealt = deal("dirichlet:0.3", cifar10_test.labels, 20)
    assert (np.sort(np.concatenate(dealt)) == np.arange(10_000)).all()
