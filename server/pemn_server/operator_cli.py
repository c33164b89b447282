"""`pemn-server status | clients | revoke | stop`: an operator asks a server that is at work."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pemn.console import Parser, printable
from pemn.errors import NetworkError
from pemn_server.operator import ask
from pemn_server.progress import size

_REFRESH_S = 1.0


def status(arguments: Sequence[str]) -> int:
    """Says how far a run is, once or again and again."""
    parser = _parser("status", "Says how far the run of a server is that is at work.")
    parser.add_argument("--json", action="store_true", help="the answer as JSON")
    parser.add_argument(
        "--watch", action="store_true", help="say it again every second, until the server ends"
    )
    given = parser.parse_args(arguments)
    answer = ask(given.run_dir, "status")
    if not given.watch:
        _say(answer, _describe_status(answer), as_json=given.json)
        return 0
    from rich.live import Live
    from rich.text import Text

    with Live(refresh_per_second=2) as live:
        while True:
            live.update(Text("\n".join(_describe_status(answer))))
            time.sleep(_REFRESH_S)
            try:
                answer = ask(given.run_dir, "status")
            except NetworkError:
                return 0


def clients(arguments: Sequence[str]) -> int:
    """Lists clients."""
    parser = _parser("clients", "Lists the clients of a server that is at work.")
    parser.add_argument("--json", action="store_true", help="the answer as JSON")
    given = parser.parse_args(arguments)
    answer = ask(given.run_dir, "clients")
    _say(answer, _describe_clients(answer), as_json=given.json)
    return 0


def revoke(arguments: Sequence[str]) -> int:
    """Takes a client's right to take part."""
    parser = _parser(
        "revoke", "Takes a client's right to take part, now and in all runs with the same credentials."
    )
    parser.add_argument("client", help="its name, or its slot")
    given = parser.parse_args(arguments)
    client = ask(given.run_dir, "revoke", given.client)
    print(f"{client['name']}, client {client['slot']}, is revoked")
    return 0


def stop(arguments: Sequence[str]) -> int:
    """Stops a server."""
    parser = _parser("stop", "Stops a server that is at work; the same command with its --run-dir goes on.")
    given = parser.parse_args(arguments)
    ask(given.run_dir, "stop")
    print("the server stops")
    return 0


def _parser(name: str, description: str) -> Parser:
    parser = Parser(prog=f"pemn-server {name}", description=description)
    parser.add_argument(
        "--run-dir", type=Path, required=True, metavar="DIR", help="that the server was started with"
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    return parser


def _say(answer: Any, lines: list[str], *, as_json: bool) -> None:
    print(json.dumps(answer) if as_json else "\n".join(map(printable, lines)))


def _describe_status(status: dict[str, Any]) -> list[str]:
    """Returns the answer to `status` as lines for a person."""
    minutes, seconds = divmod(int(status["seconds"]), 60)
    lines = [f"run {status['run_id']}: {status['phase']}, {minutes}:{seconds:02d} since this server began"]
    accuracy = "" if status["accuracy"] is None else f", test accuracy {status['accuracy']:.4f}"
    lines.append(f"round {status['round']} of {status['num_rounds']} is closed{accuracy}")
    if status["asked"]:
        lines.append(f"votes: {status['votes']} of {status['asked']} clients")
    lines.append(f"clients here: {', '.join(map(str, status['clients'])) or 'none'}")
    lines.append(f"on the wire: up {size(status['uplink_bytes'])}, down {size(status['downlink_bytes'])}")
    work = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in status["spent"].items())
    lines.append(f"the server's own work: {work}")
    if refused := status["refused"]:
        lines.append("refused: " + ", ".join(f"{count} {cause}" for cause, count in refused.items()))
    return lines


def _describe_clients(clients: list[dict[str, Any]]) -> list[str]:
    """Returns the answer to `clients` as lines for a person."""
    width = max([4, *(len(client["name"] or "") for client in clients)])
    return [f"slot  {'name':{width}}  state"] + [
        f"{client['slot']:4}  {client['name'] or '-':{width}}  {client['state']}" for client in clients
    ]
