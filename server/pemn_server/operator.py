"""The operator's door: commands to a server that runs, over a Unix socket in the run's folder.

A request is a line of JSON, `{"command": ..., "arguments": [...]}`, and so is its answer, `{"result": ...}` or
`{"error": ...}` with the code and the text of an error. Only processes of the server's own user, and root's, are heard.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pemn.errors import ConfigError, FileError, NetworkError, PemnError, every_error

SOCKET_NAME = "operator.sock"
MAX_REQUEST_BYTES = 1 << 16
MAX_ANSWER_BYTES = 64 << 20
TIMEOUT_S = 10.0
_REQUEST_TIMEOUT_S = 2.0
"""Requests are answered one after the other."""

_LOG = logging.getLogger(__name__)

Commands = Mapping[str, Callable[..., Any]]
"""By their names; called with the request's arguments, all of them texts, in the thread of the socket."""


@contextlib.contextmanager
def operated(folder: Path, commands: Commands) -> Iterator[None]:
    """Listens in a folder as long as the block lasts.

    Args:
        folder: The run's; no other server is at work there.
        commands: What can be asked for.

    Raises:
        FileError: If there can be no socket in the folder.
    """
    listener = _listen(folder)
    thread = threading.Thread(target=_serve, args=[listener, commands], name="pemn-operator", daemon=True)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        thread.join()
        listener.close()
        with contextlib.suppress(OSError):
            (folder / SOCKET_NAME).unlink()


def ask(folder: Path, command: str, *arguments: str) -> Any:
    """Asks the server that is at work in a folder; returns its answer.

    Raises:
        NetworkError: If there is none.
        PemnError: What the server answers with.
    """
    request = json.dumps({"command": command, "arguments": arguments}).encode() + b"\n"
    try:
        with _in(folder) as path, socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(path)
            connection.sendall(request)
            answer = json.loads(_read_line(connection, MAX_ANSWER_BYTES))
    except (OSError, ValueError) as error:
        raise NetworkError("no server is at work in the run's folder", got=error, where=folder) from error
    if problem := answer.get("error"):
        raise every_error().get(problem["code"], PemnError)(problem["text"])
    return answer["result"]


def _listen(folder: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        with _in(folder) as path:
            with contextlib.suppress(FileNotFoundError):
                Path(path).unlink()  # of a server that was killed
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(path)
        listener.listen(8)
    except OSError as error:
        listener.close()
        raise FileError(
            f"no socket for the operator, {error.strerror}", where=folder / SOCKET_NAME
        ) from error
    return listener


@contextlib.contextmanager
def _in(folder: Path) -> Iterator[str]:
    """Gives a short path of the socket: one of more than 107 bytes is none."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)


def _serve(listener: socket.socket, commands: Commands) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_REQUEST_TIMEOUT_S)
            if _is_friend(connection):
                connection.sendall(json.dumps(_answer(connection, commands)).encode() + b"\n")


def _is_friend(connection: socket.socket) -> bool:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    return user in (0, os.geteuid())


def _answer(connection: socket.socket, commands: Commands) -> dict[str, Any]:
    try:
        name, arguments = _request(_read_line(connection, MAX_REQUEST_BYTES))
        command = commands.get(name)
        if command is None:
            raise ConfigError("unknown command", got=name, wanted=", ".join(commands))
        if len(arguments) != len(inspect.signature(command).parameters):
            raise ConfigError(f"arguments of {name}", got=len(arguments))
        return {"result": command(*arguments)}
    except PemnError as error:
        return {"error": {"code": error.code, "text": str(error)}}
    except Exception as error:  # a bug: the run must not pay for it
        _LOG.exception("operator's command")
        return {"error": {"code": PemnError.code, "text": f"unexpected {type(error).__name__}: {error}"}}


def _request(line: bytes) -> tuple[str, list[str]]:
    try:
        request = json.loads(line)
        name, arguments = request["command"], request["arguments"]
        if isinstance(name, str) and all(isinstance(argument, str) for argument in arguments):
            return name, list(arguments)
    except (ValueError, KeyError, TypeError):
        pass
    raise ConfigError("no request of an operator", got=f"{len(line)} bytes")


def _read_line(connection: socket.socket, max_bytes: int) -> bytes:
    data = bytearray()
    while not data.endswith(b"\n"):
        piece = connection.recv(1 << 16)
        if not piece or len(data) > max_bytes:
            raise ConfigError("no line", got=f"{len(data)} bytes", wanted=f"a line of at most {max_bytes}")
        data += piece
    return bytes(data)
