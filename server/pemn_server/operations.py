"""What an operator can ask of a server that runs."""

from __future__ import annotations

import os
import signal
from typing import Any

from pemn.errors import ConfigError, NotEnrolled
from pemn.link.enrolment import Enrolment
from pemn_server.link_grid import LinkGrid
from pemn_server.operator import Commands
from pemn_server.status import RunStatus


def commands(status: RunStatus, grid: LinkGrid, enrolment: Enrolment | None) -> Commands:
    """Returns what the server of a run can be asked for.

    Args:
        status: Of the run.
        grid: Its clients.
        enrolment: Who may take part; None: whoever comes.
    """

    def clients() -> list[dict[str, Any]]:
        here = set(grid.slots())
        if enrolment is None:
            return [{"slot": slot, "name": None, "state": "here"} for slot in sorted(here)]
        states = {False: "away", True: "here"}
        return [
            {
                "slot": client.slot,
                "name": client.name,
                "state": "revoked" if client.is_revoked else states[client.slot in here],
            }
            for client in enrolment.clients
        ]

    def revoke(who: str) -> dict[str, Any]:
        if enrolment is None:
            raise ConfigError("nobody is enrolled", got="--insecure", wanted="--credentials DIR")
        client = enrolment.revoke(who)
        grid.expel(client.slot, NotEnrolled("this client's key was revoked", where=f"slot {client.slot}"))
        return {"slot": client.slot, "name": client.name}

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    return {"status": status.snapshot, "clients": clients, "revoke": revoke, "stop": stop}
