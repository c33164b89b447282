"""What was found once, and what a corpus starts from: replayed in every run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from pemn.artifact import Artifact
from pemn.errors import FileError, RemoteError
from pemn.wire.messages import decode
from pemn.wire.spec import Spec
from tests.fuzz.seals import FILE_HEAD, seal_content, seal_file
from tests.fuzz.targets import CORPUS, TARGETS

_MOST_FILES, _MOST_BYTES = 320, 200_000


@pytest.mark.parametrize("target", TARGETS)
def test_every_input_of_the_corpus(target: str) -> None:
    inputs = sorted((CORPUS / target).iterdir())
    assert inputs
    for path in inputs:
        TARGETS[target](path.read_bytes())


def test_some_inputs_of_every_format_are_accepted() -> None:
    """Or all of them fail at the first check, as they would after a change of the version."""

    def accepted(target: str, read: Callable[[bytes], object]) -> int:
        count = 0
        for path in (CORPUS / target).iterdir():
            with suppress(RemoteError, FileError):
                read(path.read_bytes())
                count += 1
        return count

    assert accepted("spec", Spec.from_bytes)
    assert accepted("file", lambda data: Artifact.from_bytes(seal_file(FILE_HEAD + data)))
    specs = []
    accepted("content", lambda data: specs.append(decode(seal_content(data)).spec))
    assert any(spec is not None for spec in specs)
    assert any(spec is None for spec in specs)


def test_the_corpus_is_small_and_whole() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(TARGETS)
    assert len(files) <= _MOST_FILES
    assert sum(path.stat().st_size for path in files) <= _MOST_BYTES
