"""`pemn-client`: start."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pemn
from pemn.console import run, start_logging
from pemn.errors import ConfigError

_USAGE = """usage: pemn-client COMMAND [OPTION ...]

commands:
  start        take part in a federation until it is over

`pemn-client COMMAND --help` lists a command's options."""


def main() -> int:
    """Runs the command line."""
    start_logging("pemn_client")
    arguments = sys.argv[1:]
    return run("pemn-client", lambda: _dispatch(arguments), debug="--debug" in arguments)


def _dispatch(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["--version"]:
        print(f"pemn-client {pemn.__version__}")
        return 0
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return 0 if arguments else ConfigError.exit_code
    if arguments[0] != "start":
        raise ConfigError("unknown command", got=arguments[0], wanted="start")
    return _start(arguments[1:])


def _start(arguments: Sequence[str]) -> int:
    # Imported when needed: torch alone takes two seconds.
    from pemn.config import resolve
    from pemn_client.settings import StartSettings

    settings = resolve(StartSettings, arguments, prog="pemn-client start", env_prefix="PEMN_CLIENT_").settings
    from pemn_client.start import start

    start(settings)
    return 0
