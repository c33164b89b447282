"""torch's random words: those of the document, and those of numpy, wherever they are made."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pemn import distribution, generator
from pemn.distribution import Distribution
from pemn.training.generator import draw, words

CPU = torch.device("cpu")


def unsigned(made: torch.Tensor) -> list[int]:
    return [value % (1 << 64) for value in made.tolist()]


def test_the_documents_golden_words() -> None:
    """docs/wire.md, "Random words"."""
    golden = [0x157A3807A48FAA9D, 0xD573529B34A1D093, 0x2F90B72E996DCCBE, 0xA2D419334C4667EC]
    made = words(0x0123456789ABCDEF, 0, 4, CPU)
    assert made.dtype == torch.int64
    assert unsigned(made) == golden


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1), st.integers(0, 100))
def test_the_words_of_numpy(key: int, start: int, count: int) -> None:
    wanted = [generator.word(key, (start + i) % (1 << 64)) for i in range(count)]
    assert unsigned(words(key, start, count, CPU)) == wanted


@pytest.mark.parametrize("count", [(1 << 14) - 1, 1 << 14, (1 << 14) + 1, 50_000])
def test_blocks_leave_no_trace(count: int) -> None:
    made = words(7, 12_345, count, CPU).numpy().view(np.uint64)
    assert np.array_equal(made, generator.words(7, 12_345, count))


@given(st.sampled_from(Distribution), st.integers(0, (1 << 64) - 1), st.integers(0, 300), st.integers(0, 300))
def test_the_values_of_numpy(kind: Distribution, key: int, start: int, count: int) -> None:
    made = draw(kind, key, start, count, CPU).numpy()
    assert made.dtype == np.float32
    assert made.tobytes() == distribution.draw(kind, key, start, count).tobytes()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", Distribution)
def test_the_same_values_on_cuda(kind: Distribution) -> None:
    made = draw(kind, 2**64 - 1, 3, 1_000_003, torch.device("cuda"))
    assert made.device.type == "cuda"
    assert made.cpu().numpy().tobytes() == distribution.draw(kind, 2**64 - 1, 3, 1_000_003).tobytes()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_words_on_cuda() -> None:
    made = words(2**64 - 1, 3, (1 << 24) + 5, torch.device("cuda"))
    assert made.device.type == "cuda"
    assert np.array_equal(made.cpu().numpy().view(np.uint64), generator.words(2**64 - 1, 3, (1 << 24) + 5))
