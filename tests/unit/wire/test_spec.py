"""What a spec says about the data: one spelling, and no more work than a client can do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pemn.errors import MalformedFrame
from pemn.partition import Partition
from pemn.wire import limits
from pemn.wire.spec import Spec
from tests.networks import model_spec, run_spec

SPEC = run_spec(model_spec((9, 7), (10, 9)))
NUM_CLASSES = SPEC.model.num_classes


def with_data(partition: str, num_slots: int = 3) -> Spec:
    return replace(SPEC, data=replace(SPEC.data, partition=partition, num_slots=num_slots))


TAKEN = """
own iid classes:1 classes:999999999 dirichlet:0.3 dirichlet:1.0 dirichlet:1e-05 dirichlet:0.0001 dirichlet:1e+16
dirichlet:9999999999999998.0 dirichlet:2.5e+300 dirichlet:5e-324
"""

OTHER_SPELLINGS = """
dirichlet:0.30 dirichlet:3e-1 dirichlet:.3 dirichlet:00.3 dirichlet:1 dirichlet:1. dirichlet:1e-5 dirichlet:1e16
dirichlet:1e+016 dirichlet:10000000000000000.0 dirichlet:0.30000000000000001 dirichlet:0.00001
"""

MEANINGLESS = """
bogus IID own: iid:1 dirichlet dirichlet: dirichlet:nan dirichlet:inf dirichlet:0.0 dirichlet:-1.0 dirichlet:1e+999
classes classes: classes:0 classes:02 classes:1.0 classes:1000000000
"""


@pytest.mark.parametrize("partition", TAKEN.split())
def test_a_partition_in_its_one_spelling_is_taken(partition: str) -> None:
    assert Spec.from_bytes(with_data(partition).to_bytes()).data.partition == partition


@pytest.mark.parametrize("partition", OTHER_SPELLINGS.split())
def test_another_spelling_of_a_partition_is_refused(partition: str) -> None:
    right = Partition.parse(partition)  # a person may write it
    with pytest.raises(MalformedFrame, match="spelling of the partition") as caught:
        Spec.from_bytes(with_data(partition).to_bytes())
    assert str(caught.value).endswith(f"got {partition}; wanted {right}")


@pytest.mark.parametrize(
    "partition", [*MEANINGLESS.split(), "", " iid", "iid\n", "x" * limits.MAX_TEXT_BYTES]
)
def test_no_partition_is_refused(partition: str) -> None:
    with pytest.raises(MalformedFrame, match=r"unknown partition: got .* wanted own, iid, dirichlet:A"):
        Spec.from_bytes(with_data(partition).to_bytes())


@given(
    st.floats(0, exclude_min=True, allow_infinity=False),
    st.sampled_from(["{!r}", "{:.17e}", "{:.3g}", "{:f}"]),
)
def test_no_two_spellings_of_a_concentration_are_taken(alpha: float, spelling: str) -> None:
    text = "dirichlet:" + spelling.format(alpha)
    try:
        taken = Spec.from_bytes(with_data(text).to_bytes()).data.partition
    except MalformedFrame:
        assert spelling != "{!r}"
    else:
        assert taken == text == f"dirichlet:{float(text.removeprefix('dirichlet:'))!r}"


def test_a_dirichlet_partition_of_more_variates_than_the_limit_is_refused() -> None:
    most = limits.MAX_GAMMA_VARIATES // NUM_CLASSES
    Spec.from_bytes(with_data("dirichlet:0.3", most).to_bytes())
    got = (most + 1) * NUM_CLASSES
    with pytest.raises(
        MalformedFrame, match=rf"slots times classes of dirichlet:0\.3: got {got}; wanted <= 131072"
    ):
        Spec.from_bytes(with_data("dirichlet:0.3", most + 1).to_bytes())
    for partition in ("own", "iid", "classes:2"):
        Spec.from_bytes(with_data(partition, limits.MAX_SLOTS).to_bytes())
