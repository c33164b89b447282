"""Every error PEMN raises on purpose.

    PemnError
    ├── ConfigError            the user's flag, environment variable or file
    │   └── DataError          a data set that is missing, unreadable or does not fit
    ├── LocalError             our caller's bug: a wrong shape, dtype or order of calls
    ├── NetworkError           a port in use, a server that is away
    │   └── TlsError           no common trust: wrong CA, plain against TLS
    ├── RemoteError            the peer's bytes or behaviour
    │   ├── MalformedFrame     bytes that are not a canonical, bounded message
    │   ├── WrongProtocol      another protocol version
    │   ├── WrongSpec          another data set, network, shard count or run
    │   ├── WrongRound         a message for another round
    │   ├── UnknownClient      a slot that does not exist or is taken
    │   ├── NotEnrolled        a client without the key that its slot was enrolled with
    │   └── OutOfSync          the public states of the two ends differ
    │       └── MissingSpec    the client does not even have the run's spec
    └── FileError              a file that cannot be read or written, or is not what it says
        └── MalformedArtifact  a .pemn or .onnx file that is corrupt or not ours

A message says what happened, what was got, what was wanted and where, on one line. `code` is stable for ever
and travels in `Error` messages (docs/wire.md, "Errors"); `exit_code` is what a command exits with (README,
"Exit codes"); `grpc_status` is the name of the status that ends a gRPC call.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_INTERRUPTED = 130
"""Exit code of a command that was stopped by Ctrl-C (128 + SIGINT)."""

EXIT_PIPE_CLOSED = 141
"""Exit code of a command whose output nobody reads any more (128 + SIGPIPE)."""


class PemnError(Exception):
    """Base of all errors; also what an unexpected failure is reported as.

    Args:
        what: The failure in a few words.
        got: What was found.
        wanted: What would have been right.
        where: File, flag, layer, round or client that it was found in.
    """

    code: ClassVar[int] = 1
    exit_code: ClassVar[int] = 1
    grpc_status: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        what: str,
        *,
        got: object = None,
        wanted: object = None,
        where: object = None,
    ) -> None:
        parts = [what]
        facts = [
            f"{label} {value}"
            for label, value in (("got", got), ("wanted", wanted), ("in", where))
            if value is not None
        ]
        if facts:
            parts.append("; ".join(facts))
        super().__init__(" ".join(": ".join(parts).split()))


class ConfigError(PemnError):
    """The user's flag, environment variable or file is wrong."""

    code = 10
    exit_code = 2
    grpc_status = "INVALID_ARGUMENT"


class DataError(ConfigError):
    """A data set is missing, unreadable or does not fit the model."""

    code = 11
    exit_code = 3


class LocalError(PemnError):
    """Our caller broke a precondition: a bug, not bad input."""

    code = 20
    grpc_status = "FAILED_PRECONDITION"


class NetworkError(PemnError):
    """A port in use, a server that is away."""

    code = 30
    exit_code = 4
    grpc_status = "UNAVAILABLE"


class TlsError(NetworkError):
    """The two ends share no trust: wrong CA, plain against TLS."""

    code = 31
    exit_code = 5
    grpc_status = "UNAUTHENTICATED"


class RemoteError(PemnError):
    """The peer's bytes or behaviour are wrong."""

    code = 40
    exit_code = 6
    grpc_status = "INVALID_ARGUMENT"


class MalformedFrame(RemoteError):
    """Bytes that are not a canonical, bounded message."""

    code = 41


class WrongProtocol(RemoteError):
    """The peer speaks another protocol version."""

    code = 42
    grpc_status = "FAILED_PRECONDITION"


class WrongSpec(RemoteError):
    """The peer has another data set, network, shard count or run."""

    code = 43
    grpc_status = "FAILED_PRECONDITION"


class WrongRound(RemoteError):
    """A message for another round."""

    code = 44
    grpc_status = "FAILED_PRECONDITION"


class UnknownClient(RemoteError):
    """A slot that does not exist or is taken by somebody else."""

    code = 45
    grpc_status = "PERMISSION_DENIED"


class OutOfSync(RemoteError):
    """The public states of the two ends differ; a keyframe mends it."""

    code = 46
    grpc_status = "FAILED_PRECONDITION"


class MissingSpec(OutOfSync):
    """The client does not have the run's spec: it has lost its store, or never had it."""

    code = 47


class NotEnrolled(RemoteError):
    """A client that does not prove to have the key that its slot was enrolled with, or whose key was revoked."""

    code = 48
    grpc_status = "UNAUTHENTICATED"


class FileError(PemnError):
    """A file cannot be read or written, or is not what it says."""

    code = 50
    exit_code = 7
    grpc_status = "DATA_LOSS"


class MalformedArtifact(FileError):
    """A .pemn or .onnx file that is corrupt or not ours."""

    code = 51


def every_error() -> dict[int, type[PemnError]]:
    """Returns every error class by its stable code."""
    found: dict[int, type[PemnError]] = {}
    todo: list[type[PemnError]] = [PemnError]
    while todo:
        cls = todo.pop()
        found[cls.code] = cls
        todo.extend(cls.__subclasses__())
    return dict(sorted(found.items()))
