"""`pemn-server start`: a federation over gRPC."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from pemn.files import prepare_run_dir
from pemn.link.address import Address
from pemn.link.enrolment import Enrolment
from pemn.link.provision import ServerFiles
from pemn.link.tls import server_credentials
from pemn.training.device import set_threads
from pemn_server.app import run_federation
from pemn_server.flower import run_server_app
from pemn_server.link_grid import LinkGrid
from pemn_server.log import Log
from pemn_server.metrics import metered
from pemn_server.operations import commands
from pemn_server.operator import operated
from pemn_server.plan import make_plan
from pemn_server.record import DurableRecord, is_begun
from pemn_server.settings import StartSettings
from pemn_server.status import RunStatus


def start(settings: StartSettings, folder: Path, log: Log) -> None:
    """Waits for the clients, runs the rounds, writes the results and lets the clients go.

    A folder with a run that was stopped or killed is gone on with. SIGTERM stops a run so.

    Raises:
        PemnError: If the options, the folder, the data, the port or the clients do not allow it.
    """
    settings.check_tls()
    with _parked(folder, log), ExitStack() as stack:
        address = Address.parse(settings.listen)
        set_threads(settings.threads, num_processes=settings.num_slots + 1 if address.is_loopback else 1)
        credentials = enrolment = None
        if settings.credentials is not None:
            files = ServerFiles(settings.credentials)
            credentials = server_credentials(files.certificate, files.key)
            enrolment = Enrolment.read(files.clients)
        plan, record = make_plan(settings), None
        if is_begun(folder):
            record = stack.enter_context(DurableRecord(folder, settings))
            plan = replace(plan, spec=record.spec)
        grid = LinkGrid(
            settings.listen,
            credentials=credentials,
            num_slots=settings.num_slots,
            num_bits=plan.spec.model.num_bits,
            enrolment=enrolment,
            on_refused=lambda error: status.refused(error),
        )
        status = RunStatus(plan.spec.run_id, settings.rounds, grid.slots)
        grid.start()
        stack.callback(grid.stop)
        how = "in the clear" if credentials is None else "with TLS"
        told = f"listening on {address._replace(port=grid.port)} {how}"
        if record is None:
            prepare_run_dir(folder)
            record = stack.enter_context(DurableRecord(folder, settings, plan.spec))
        else:
            told = f"going on after round {record.last_round}, {told}"
            grid.ledger.go_on(record.entries(), {})
        log.say(f"run {plan.spec.run_id:016x}, seed {plan.spec.model.seed}: {told}")
        stack.enter_context(operated(folder, commands(status, grid, enrolment)))
        if settings.metrics is not None:
            at = stack.enter_context(metered(settings.metrics, status))
            log.say(f"metrics on http://{at}/metrics")
        run_server_app(
            grid,
            lambda fleet: run_federation(
                settings,
                folder,
                plan,
                fleet,
                log,
                record,
                round_timeout_s=settings.round_timeout_s,
                wait_timeout_s=settings.wait_timeout_s,
                status=status,
            ),
        )


class _Terminated(BaseException):
    """Somebody has sent SIGTERM."""


@contextmanager
def _parked(folder: Path, log: Log) -> Iterator[None]:
    """Ends what runs here when SIGTERM comes: all that counts is on the disk already."""

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except _Terminated:
        text = "nothing has begun"
        if is_begun(folder):
            text = f"the same command with --run-dir {folder} goes on with the run"
        log.say(f"stopped: {text}")
    finally:
        signal.signal(signal.SIGTERM, before)
