from __future__ import annotations

import pytest

from pemn.data.extras import provided_by
from pemn.errors import ConfigError


def test_a_foreign_package_is_asked_for_and_our_own_is_not() -> None:
    wanted = r"no module absent; wanted pip install 'pemn\[data\]'"
    with pytest.raises(ConfigError, match=wanted), provided_by("data"):
        raise ModuleNotFoundError("No module named 'absent'", name="absent")
    with pytest.raises(ModuleNotFoundError), provided_by("data"):
        raise ModuleNotFoundError("No module named 'pemn.data.absent'", name="pemn.data.absent")
