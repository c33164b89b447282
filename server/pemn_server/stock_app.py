"""The ServerApp for Flower's own engines, as `flwr run` starts it; its run config are the options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from pemn.config import settings_from
from pemn.errors import ConfigError
from pemn.files import prepare_run_dir
from pemn.training.device import set_threads
from pemn_server.app import run_federation
from pemn_server.flower import Context, Fleet, Grid, server_app
from pemn_server.log import Log
from pemn_server.plan import make_plan
from pemn_server.record import LedgerRecord
from pemn_server.settings import StockSettings
from pemn_server.stock import StockGrid

_OF_THE_CLIENTS = {"store", "device"}


def _run(grid: Grid, context: Context) -> None:
    """Runs a federation on a Grid of Flower's and writes its results.

    Raises:
        PemnError: If the options, the data or the clients do not allow it.
    """
    settings = _settings(context.run_config)
    folder = settings.run_dir or Path(f"runs/flower-{context.run_id}")
    set_threads(settings.threads, num_processes=1)
    plan = make_plan(settings)
    prepare_run_dir(folder)
    with LedgerRecord(folder) as record:
        run_federation(
            settings,
            folder,
            plan,
            Fleet(StockGrid(grid, settings.num_slots)),
            Log(Console()),
            record,
            round_timeout_s=settings.round_timeout_s,
            wait_timeout_s=settings.wait_timeout_s,
        )


def _settings(run_config: Mapping[str, Any]) -> StockSettings:
    mine = {key: value for key, value in run_config.items() if key not in _OF_THE_CLIENTS}
    settings = settings_from(StockSettings, mine, where="run config")
    if settings.engine != "inprocess" or settings.resume or settings.drop_out:  # of `pemn-server simulate`
        raise ConfigError("run config with engine, resume or drop-out", wanted="none: the engine is Flower's")
    return settings


app = server_app(_run)
"""What `[tool.flwr.app.components]` names."""
