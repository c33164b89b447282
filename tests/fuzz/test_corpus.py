"""What was found once, and what a corpus starts from: replayed in every run."""

from __future__ import annotations

import pytest

from tests.fuzz.targets import CORPUS, TARGETS

_MOST_FILES, _MOST_BYTES = 300, 200_000


@pytest.mark.parametrize("target", TARGETS)
def test_every_input_of_the_corpus(target: str) -> None:
    inputs = sorted((CORPUS / target).iterdir())
    assert inputs
    for path in inputs:
        TARGETS[target](path.read_bytes())


def test_the_corpus_is_small_and_whole() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(TARGETS)
    assert len(files) <= _MOST_FILES
    assert sum(path.stat().st_size for path in files) <= _MOST_BYTES
