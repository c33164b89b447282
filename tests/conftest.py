"""What every test gets."""

from __future__ import annotations

import os

from hypothesis import settings

# Machines are shared and noisy, so no deadline by the clock; the same examples in every CI run.
settings.register_profile("pemn", deadline=None)
settings.register_profile("ci", settings.get_profile("pemn"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "pemn")
