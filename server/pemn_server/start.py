"""`pemn-server start`: a federation over gRPC."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from pemn.files import prepare_run_dir
from pemn.link.address import Address
from pemn.link.tls import server_credentials
from pemn.training.device import set_threads
from pemn.wire.limits import max_answer_bytes, max_task_bytes
from pemn_server.app import run_federation
from pemn_server.flower import run_server_app
from pemn_server.link_grid import LinkGrid
from pemn_server.plan import make_plan
from pemn_server.settings import StartSettings


def start(settings: StartSettings, folder: Path, console: Console) -> None:
    """Waits for the clients, runs the rounds, writes the results and lets the clients go.

    Raises:
        PemnError: If the options, the data, the port or the clients do not allow it.
    """
    settings.check_tls()
    address = Address.parse(settings.listen)
    set_threads(settings.threads, num_processes=settings.num_slots + 1 if address.is_loopback else 1)
    credentials = None
    if settings.cert is not None and settings.key is not None:
        credentials = server_credentials(settings.cert, settings.key)
    plan = make_plan(settings)
    num_bits = plan.spec.model.num_bits
    grid = LinkGrid(
        settings.listen,
        credentials=credentials,
        num_slots=settings.num_slots,
        max_task_bytes=max_task_bytes(num_bits),
        max_answer_bytes=max_answer_bytes(num_bits),
    )
    grid.start()
    how = "in the clear" if credentials is None else "with TLS"
    console.print(
        f"run {plan.spec.run_id:016x}, seed {plan.spec.model.seed}: "
        f"listening on {address._replace(port=grid.port)} {how}",
        highlight=False,
        soft_wrap=True,
    )
    try:
        prepare_run_dir(folder)
        run_server_app(
            grid,
            lambda fleet: run_federation(
                settings,
                folder,
                plan,
                fleet,
                console,
                round_timeout_s=settings.round_timeout_s,
                wait_timeout_s=settings.wait_timeout_s,
            ),
        )
    finally:
        grid.stop()
