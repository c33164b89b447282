"""Checkpoints: every bit comes back, and a file that is none is told, without running anything in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pemn.errors import FileError
from pemn.training.checkpoint import load, load_optimizer_state, optimizer_state, to_bytes

TENSORS = {
    "floats": torch.tensor([0.1, -0.0, float("inf"), 1e-45]),
    "bits": torch.tensor([True, False]),
    "one": torch.tensor(3, dtype=torch.int64),
    "none": torch.empty(0, 4),
    "half": torch.tensor([1.5], dtype=torch.bfloat16),
    "turned": torch.arange(6).view(2, 3).t(),
}


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_tensors_come_back_to_the_bit(tmp_path: Path) -> None:
    found, _ = load(written(tmp_path / "c", to_bytes(TENSORS, {})))
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        bits, wanted = (each.contiguous().reshape(-1).view(torch.uint8) for each in (found[name], tensor))
        assert torch.equal(bits, wanted)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=4))
def test_facts_come_back_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, facts: dict[str, object]
) -> None:
    path = tmp_path_factory.mktemp("facts") / "c"
    assert load(written(path, to_bytes({}, facts))) == ({}, facts)


def test_tensors_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    whole = torch.arange(4.0)
    found, _ = load(written(tmp_path / "c", to_bytes({"whole": whole, "part": whole[1:3]}, {})))
    assert (found["whole"].tolist(), found["part"].tolist()) == ([0, 1, 2, 3], [1, 2])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no checkpoint",
        to_bytes(TENSORS, {})[:-1],
        to_bytes(TENSORS, {})[: len(to_bytes(TENSORS, {})) // 2],
        safetensors.torch.save({"a": torch.zeros(1)}),  # without facts
        safetensors.torch.save({"a": torch.zeros(1)}, {"pemn": "{"}),
        b"\x80\x04K\x01.",  # a pickle
    ],
)
def test_what_is_no_checkpoint_is_told(data: bytes, tmp_path: Path) -> None:
    path = written(tmp_path / "c", data)
    with pytest.raises(FileError, match="damaged checkpoint") as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_missing_one_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no checkpoint to go on from"):
        load(tmp_path / "c")


def steps(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, count: int) -> Tensor:
    for number in range(count):
        parameter.grad = torch.full_like(parameter, number + 0.1)
        optimizer.step()
    return parameter.detach().clone()


@pytest.mark.parametrize(
    "kind", [torch.optim.Adam, torch.optim.AdamW, lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9)]
)
def test_an_optimizer_goes_on_to_the_bit(kind: type[torch.optim.Adam]) -> None:
    one = nn.Parameter(torch.ones(3))
    optimizer = kind([one], lr=0.1)
    steps(optimizer, one, 3)
    two = nn.Parameter(one.detach().clone())
    other = kind([two], lr=0.1)
    kept = {name: tensor.clone() for name, tensor in optimizer_state(optimizer).items()}
    load_optimizer_state(other, kept)
    assert torch.equal(steps(optimizer, one, 3), steps(other, two, 3))
