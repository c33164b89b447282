"""Connections that break all the time change nothing but the bytes."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conformance.conftest import NUM_CLIENTS, OPTIONS, Run, run_over_grpc


def test_a_run_over_breaking_connections_ends_with_the_same_weights(
    runs: dict[str, Run], tmp_path: Path
) -> None:
    run_over_grpc(tmp_path, cut_every_s=0.35)
    summary = json.loads((tmp_path / "summary.json").read_text())
    smooth = runs["grpc"].summary
    assert summary["weights_sha256"] == smooth["weights_sha256"]
    assert summary["accuracy_by_round"] == smooth["accuracy_by_round"]
    assert summary["client_rounds"] == NUM_CLIENTS * OPTIONS["rounds"]
