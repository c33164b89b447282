from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pemn.data.partition import shards
from pemn.partition import Partition

partitions = st.one_of(
    st.sampled_from(["own", "iid"]).map(Partition),
    st.floats(0, exclude_min=True, allow_infinity=False, allow_nan=False).map(
        lambda alpha: Partition("dirichlet", alpha=alpha)
    ),
    st.integers(1, 10**9 - 1).map(lambda c: Partition("classes", num_classes=c)),
)


@given(partitions)
def test_the_spelling_reads_back_to_the_same_partition(partition: Partition) -> None:
    assert Partition.parse(str(partition)) == partition


@st.composite
def deals(draw: st.DrawFn) -> tuple[Partition, list[int], int, int]:
    labels = draw(st.lists(st.integers(0, 5), min_size=1, max_size=60))
    num_slots = draw(st.integers(1, len(labels)))
    kind = draw(st.sampled_from(["iid", "dirichlet", "classes"]))
    partition = Partition(
        kind,
        alpha=draw(st.floats(0.001, 1000)) if kind == "dirichlet" else 1.0,
        num_classes=draw(st.integers(1, len(set(labels)))) if kind == "classes" else 1,
    )
    return partition, labels, num_slots, draw(st.integers(0, 2**64 - 1))


@given(deals())
def test_shards_are_a_partition(deal: tuple[Partition, list[int], int, int]) -> None:
    partition, labels, num_slots, seed = deal
    dealt = shards(partition, np.array(labels), num_slots, seed)
    assert len(dealt) == num_slots
    for shard in dealt:
        assert shard.dtype == np.int64
        assert len(shard) > 0
        assert (np.diff(shard) > 0).all()
    everything = np.concatenate(dealt)
    assert len(set(everything.tolist())) == len(everything)
    kept = {labels[i] for i in everything}
    # All images but those of classes that nobody holds, and every class is held where there are enough hands.
    assert sorted(everything) == [i for i, label in enumerate(labels) if label in kept]
    if partition.kind != "classes" or partition.num_classes * num_slots >= len(set(labels)):
        assert kept == set(labels)
    if partition.kind == "iid":
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


@given(deals())
def test_shards_are_a_function_of_their_arguments(deal: tuple[Partition, list[int], int, int]) -> None:
    partition, labels, num_slots, seed = deal
    first = shards(partition, np.array(labels), num_slots, seed)
    again = shards(Partition.parse(str(partition)), np.array(labels), num_slots, seed)
    assert [shard.tolist() for shard in first] == [shard.tolist() for shard in again]
