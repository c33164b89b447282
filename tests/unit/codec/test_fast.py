"""Whether compiled loops are taken."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import textwrap

import pytest

from tests.unit.codec.sequences import draw

WAYS_TO_BREAK = {
    "not installed": "ModuleNotFoundError('no numba', name='numba')",
    "built for another numpy": "ImportError('Numba needs NumPy 2.4 or less')",
    "without its LLVM": "OSError('Could not find/load shared object file')",
    "not of this Python": "SyntaxError('invalid syntax')",
}


@pytest.mark.parametrize("way", WAYS_TO_BREAK)
def test_a_numba_that_does_not_load_changes_no_byte(way: str) -> None:
    """Nor does what it raises come out of a decoder: who has it and cannot use it is told once."""
    script = f"""
        import hashlib, sys
        from pemn.codec import fast
        from tests.unit.codec.sequences import draw

        class Broken:
            def find_spec(self, name, path=None, target=None):
                if name == "numba":
                    raise {WAYS_TO_BREAK[way]}

        sys.meta_path.insert(0, Broken())
        fast.PATIENCE = -1
        sequence = draw(1, 50_000, 0.2, (64,), 2)
        coded = sequence.encode()
        assert sequence.decode(coded).same(sequence)
        print(hashlib.sha256(coded).hexdigest())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == hashlib.sha256(draw(1, 50_000, 0.2, (64,), 2).encode()).hexdigest()
    assert done.stderr.count("numba does not load, so coding is slower: ") == (way != "not installed")
