"""`pemn-server`: start, simulate, compare, report, provision, enrol, config show; status, clients, revoke, stop."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import pemn
from pemn.console import Parser, run, start_logging
from pemn.errors import ConfigError

_USAGE = """usage: pemn-server COMMAND [OPTION ...]

commands:
  start        wait for clients, run a federation over gRPC, leave its results
  simulate     run a federation in this process
  compare      simulate methods, seeds, splits and networks, and put them side by side
  report       make the page of a run, or of several side by side
  provision    make a private CA, a server certificate, and a bundle of credentials for each client
  enrol        make a bundle for one more client
  status       say how far the run of a server is that is at work
  clients      list its clients
  revoke       take a client's right to take part
  stop         stop a server; the same command with its --run-dir goes on
  config show  print what `start` would run with, and where each value comes from

`pemn-server COMMAND --help` lists a command's options."""
_ENV_PREFIX = "PEMN_SERVER_"


def main() -> int:
    """Runs the command line."""
    start_logging()
    arguments = sys.argv[1:]
    return run("pemn-server", lambda: _dispatch(arguments), debug="--debug" in arguments)


def _dispatch(arguments: Sequence[str]) -> int:
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "start": _start,
        "simulate": _simulate,
        "compare": _compare,
        "report": _report,
        "provision": _provision,
        "enrol": _enrol,
        "config": _config,
        **{name: partial(_operate, name) for name in ("status", "clients", "revoke", "stop")},
    }
    if arguments[:1] == ["--version"]:
        print(f"pemn-server {pemn.__version__}")
        return 0
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return 0 if arguments else ConfigError.exit_code
    command = commands.get(arguments[0])
    if command is None:
        raise ConfigError("unknown command", got=arguments[0], wanted=", ".join(commands))
    return command(arguments[1:])


# Commands import what they need when they run: torch alone takes two seconds.


def _start(arguments: Sequence[str]) -> int:
    from pemn.config import resolve
    from pemn_server.settings import StartSettings

    settings = resolve(StartSettings, arguments, prog="pemn-server start", env_prefix=_ENV_PREFIX).settings
    folder = _results_folder(settings.run_dir)
    from rich.console import Console

    from pemn_server.log import JsonFormatter, JsonLog, Log
    from pemn_server.start import start

    if settings.log_format == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonFormatter())
        log: Log = JsonLog(sys.stdout)
    else:
        log = Log(Console())
    start(settings, folder, log)
    return 0


def _simulate(arguments: Sequence[str]) -> int:
    from pemn.config import resolve
    from pemn_server.settings import SimulateSettings

    settings = resolve(
        SimulateSettings, arguments, prog="pemn-server simulate", env_prefix="PEMN_SIMULATE_"
    ).settings
    folder = _results_folder(settings.run_dir)
    from rich.console import Console

    from pemn_server.log import Log
    from pemn_server.simulation import simulate

    simulate(settings, folder, Log(Console()))
    return 0


def _compare(arguments: Sequence[str]) -> int:
    from pemn.config import resolve
    from pemn_server.settings import CompareSettings

    prog, config, flags = "pemn-server compare", None, arguments
    if arguments and not arguments[0].startswith("-"):
        config, flags = Path(arguments[0]), arguments[1:]
    settings = resolve(
        CompareSettings, flags, prog=f"{prog} CONFIG.toml", env_prefix="PEMN_COMPARE_"
    ).settings
    if config is None:
        raise ConfigError("the file that says what to compare is missing", wanted=f"{prog} CONFIG.toml")
    from rich.console import Console

    from pemn_server.compare import compare

    compare(settings, config, Console())
    return 0


def _report(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="pemn-server report",
        description="Makes the page of one run, or tables, figures and the page of several side by side.",
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="folder of a run or of a comparison"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where they go; RUN itself if it is only one")
    parser.add_argument("--title", help="of several runs")
    parser.add_argument("--target", type=float, metavar="ACCURACY", help="the accuracy to reach, 0 .. 1")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    given = parser.parse_args(arguments)
    from pemn_server.compare import report

    print(f"report in {report(given.runs, given.out, given.title, given.target)}")
    return 0


def _provision(arguments: Sequence[str]) -> int:
    from pemn.link.provision import provision

    parser = Parser(
        prog="pemn-server provision",
        description="Makes a private CA, a server certificate, and a bundle of credentials for each client.",
    )
    parser.add_argument("directory", type=Path, help="where they go")
    parser.add_argument("--clients", type=int, required=True, metavar="N", help="clients to enrol, 0 .. N-1")
    parser.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="name or address by which clients reach the server, besides localhost; may be repeated",
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    given = parser.parse_args(arguments)
    folder = given.directory
    provision(folder, given.host, given.clients)
    if given.clients > 0:
        print(f"give {folder}/client-N/ to client N and to nobody else; keep {folder}/ca.key offline")
    return 0


def _enrol(arguments: Sequence[str]) -> int:
    from pemn.link.provision import enrol

    parser = Parser(
        prog="pemn-server enrol",
        description="Makes a bundle for one more client; servers that run learn of it when they are started again.",
    )
    parser.add_argument("directory", type=Path, help="that `provision` has made")
    parser.add_argument("--slot", type=int, required=True, metavar="I", help="the client's number")
    parser.add_argument("--name", help="what to call it; client-I if not given")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    given = parser.parse_args(arguments)
    bundle = enrol(given.directory, given.slot, given.name)
    print(f"give {bundle}/ to client {given.slot} and to nobody else")
    return 0


def _config(arguments: Sequence[str]) -> int:
    from pemn.config import resolve, show
    from pemn_server.settings import StartSettings

    if arguments[:1] in (["-h"], ["--help"]):
        arguments = ["show", *arguments]
    if not arguments or arguments[0] != "show":
        raise ConfigError("unknown command", got=" ".join(["config", *arguments[:1]]), wanted="config show")
    print(show(resolve(StartSettings, arguments[1:], prog="pemn-server config show", env_prefix=_ENV_PREFIX)))
    return 0


def _operate(command: str, arguments: Sequence[str]) -> int:
    from pemn_server import operator_cli

    operate: Callable[[Sequence[str]], int] = getattr(operator_cli, command)
    return operate(arguments)


def _results_folder(given: Path | None) -> Path:
    return given or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
