"""What a spec says about the data: one spelling, and no more work than a client can do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pemn.errors import MalformedFrame
from pemn.partition import Partition
from pemn.schedule import Schedule
from pemn.wire import limits
from pemn.wire.protocols import FedAvgProtocol
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


def test_what_is_wrong_with_a_setting_by_round_is_said() -> None:
    def refused(says: str, **changes: Any) -> None:
        with pytest.raises(MalformedFrame, match=says):
            Spec.from_bytes(replace(SPEC, **changes).to_bytes())

    mask, training = SPEC.mask, SPEC.training
    refused("^stride: got 2; wanted 1 .. 1$", protocol=replace(mask, stride=Schedule(((1, 1), (4, 2)))))
    refused("^eta_num: got 65536; wanted 1 .. 65535$", protocol=replace(mask, eta_num=Schedule.always(65536)))
    refused("^keep: got 257; wanted 1 .. 256$", protocol=replace(mask, keep=Schedule(((1, 9), (2, 257)))))
    refused("^window: got 4097; wanted 1 .. 4096$", protocol=replace(mask, window=4097))
    rate = Schedule(((1, 0.5), (7, 2000.0)))
    refused(
        "^learning rate: got 2000.0; wanted above 0, <= 1000$", training=replace(training, learning_rate=rate)
    )
    refused(
        "^logit adjustment: got -0.0; wanted 0 .. 100$", training=replace(training, logit_adjustment=-0.0)
    )
    refused("^number of rounds: got 0; wanted >= 1$", num_rounds=0)
    proto = SPEC.to_proto()
    proto.mask.eta_nums.add(from_round=1, value=7)
    with pytest.raises(
        MalformedFrame, match=r"^eta_num: schedule: .* wanted ascending rounds from 1, new values$"
    ):
        Spec.from_bytes(proto.SerializeToString(deterministic=True))


@pytest.mark.parametrize("change", ["tie", "terms"])
def test_only_masks_are_tied_or_of_sums(change: str) -> None:
    first, *rest = SPEC.model.layers
    fields = {"tie": 2} if change == "tie" else {"layers": (replace(first, terms=2), *rest)}
    model = replace(SPEC.model, **fields)
    tied = replace(SPEC, model=model)
    assert Spec.from_bytes(tied.to_bytes()) == tied
    other = replace(tied, protocol=FedAvgProtocol(0.5), method="fedavg")
    with pytest.raises(MalformedFrame, match=r"^tied masks or sums: got fedavg; wanted mask$"):
        Spec.from_bytes(other.to_bytes())


def test_all_that_a_spec_can_say_reads_back() -> None:
    spec = replace(
        SPEC,
        protocol=replace(SPEC.mask, step=512, stride=Schedule(((1, 127), (9, 1))), window=4096),
        training=replace(
            SPEC.training, learning_rate=Schedule(((1, 0.5), (2**31 - 1, 0.25))), logit_adjustment=100.0
        ),
        data=replace(SPEC.data, num_images=2**32 - 1),
        num_rounds=7,
    )
    assert Spec.from_bytes(spec.to_bytes()) == spec
    assert Spec.from_bytes(SPEC.to_bytes()).data.num_images is None


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
