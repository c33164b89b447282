"""What the commands share: errors become one line and an exit code, foreign texts become printable."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from pemn.errors import EXIT_INTERRUPTED, EXIT_PIPE_CLOSED, ConfigError, FileError, PemnError


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are errors like all others: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Refuses the arguments.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(f"{message} (see {self.prog} --help)")


def start_logging(*packages: str) -> None:
    """Lets PEMN's packages say what happens, and keeps gRPC, before it is imported, from filling the terminal.

    Args:
        *packages: Those whose every message is shown; of all others, warnings are.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    for package in packages:
        logging.getLogger(package).setLevel(logging.INFO)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # It warns of calls that come while a server stops.
    logging.getLogger("grpc._cython.cygrpc").setLevel(logging.ERROR)


def run(prog: str, main: Callable[[], int], debug: bool) -> int:
    """Runs a command.

    Args:
        prog: Its name, as the user types it.
        main: Does the work; returns an exit code.
        debug: Whether to show the traceback of an error.

    Returns:
        The exit code: `main`'s, that of a `PemnError`, 130 after Ctrl-C, 1 after anything unexpected.
    """
    try:
        code = main()
        sys.stdout.flush()  # here, where a closed pipe is still answered below
        return code
    except KeyboardInterrupt:
        _complain(prog, "stopped", debug=False)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _drop_output()  # whoever read it, such as `head`, has had enough
        return EXIT_PIPE_CLOSED
    except PemnError as error:
        _complain(prog, f"error: {error}", debug)
        return error.exit_code
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            _drop_output()
            _complain(prog, "error: no space left where the output goes", debug)
            return FileError.exit_code
        hint = "" if debug else " (run again with --debug)"
        _complain(prog, f"internal error: {type(error).__name__}: {error}{hint}", debug)
        return PemnError.exit_code


def printable(text: str) -> str:
    """Returns a foreign text without control characters, which could rewrite what a terminal shows."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _drop_output() -> None:
    """Keeps Python from trying at its end to write what could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(prog: str, message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(printable(f"{prog}: {' '.join(message.split())}"), file=sys.stderr)
