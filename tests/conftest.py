"""What every test gets."""

from __future__ import annotations

import os

# As the commands do (pemn.console.start_logging), before gRPC is imported: its own lines are no complaint of ours.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from hypothesis import settings

# Machines are shared and noisy, so no deadline by the clock; the same examples in every CI run.
settings.register_profile("pemn", deadline=None)
settings.register_profile("ci", settings.get_profile("pemn"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "pemn")
