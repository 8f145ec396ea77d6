"""The one table of errors: kind, its gRPC status and its HTTP code.

Every error a caller can meet is an instance of a class below. It carries a stable *reason*
(UPPER_SNAKE, for machines), a *message* (a sentence: what, which one, what now) and the
*subject* it is about. It must never hold secrets or tracebacks.

Source: google.aip.dev/193 for the shape; the HTTP codes are those LXD's clients expect.
"""

from __future__ import annotations

import errno
from enum import Enum


class Kind(Enum):
    """(name on the wire, gRPC status name, HTTP code)."""

    INVALID = ("invalid", "INVALID_ARGUMENT", 400)
    NOT_FOUND = ("not_found", "NOT_FOUND", 404)
    ALREADY_EXISTS = ("already_exists", "ALREADY_EXISTS", 409)
    WRONG_STATE = ("wrong_state", "FAILED_PRECONDITION", 400)
    STALE = ("stale", "FAILED_PRECONDITION", 412)
    BUSY = ("busy", "ABORTED", 409)
    GONE = ("gone", "OUT_OF_RANGE", 410)
    LIMIT_REACHED = ("limit_reached", "RESOURCE_EXHAUSTED", 403)
    FORBIDDEN = ("forbidden", "PERMISSION_DENIED", 403)
    UNSUPPORTED = ("unsupported", "UNIMPLEMENTED", 501)
    UNAVAILABLE = ("unavailable", "UNAVAILABLE", 503)
    TOO_LATE = ("too_late", "DEADLINE_EXCEEDED", 504)
    INTERNAL = ("internal", "INTERNAL", 500)

    def __init__(self, wire: str, grpc_status: str, http: int) -> None:
        self.wire = wire
        self.grpc_status = grpc_status
        self.http = http

    @classmethod
    def from_wire(cls, wire: str) -> Kind:
        """Return the kind named *wire*; INTERNAL for a name this version does not know."""
        return _BY_WIRE.get(wire, cls.INTERNAL)


_BY_WIRE = {kind.wire: kind for kind in Kind}


_LONGEST = 1000


class PodiumError(Exception):
    """Base of all errors with a row in the table. Raise a subclass, never this."""

    kind = Kind.INTERNAL

    def __init__(self, reason: str, message: str, *, about: str = "") -> None:
        # What a client sent may be part of either; nobody reads more, and records and headers are bounded.
        self.reason = reason
        self.message = message if len(message) <= _LONGEST else f"{message[: _LONGEST - 3]}..."
        self.about = about[:_LONGEST]
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message


class Invalid(PodiumError):
    """The request itself is wrong, whatever the state."""

    kind = Kind.INVALID


class NotFound(PodiumError):
    """The subject does not exist, or the caller may not know that it does."""

    kind = Kind.NOT_FOUND


class AlreadyExists(PodiumError):
    """The name is taken."""

    kind = Kind.ALREADY_EXISTS


class WrongState(PodiumError):
    """The subject exists but is in a state (or in use) that rules this out."""

    kind = Kind.WRONG_STATE


class Stale(PodiumError):
    """The caller's revision or ETag is not the current one."""

    kind = Kind.STALE


class Busy(PodiumError):
    """Another operation holds the subject, or a compare-and-swap lost too often."""

    kind = Kind.BUSY


class Gone(PodiumError):
    """It was there once, and is kept no longer; the message says what is left."""

    kind = Kind.GONE


class LimitReached(PodiumError):
    """A quota or bound would be exceeded."""

    kind = Kind.LIMIT_REACHED


class Forbidden(PodiumError):
    """The caller may not do this."""

    kind = Kind.FORBIDDEN


class Unsupported(PodiumError):
    """This product or host cannot do it; the message says which and why."""

    kind = Kind.UNSUPPORTED


class Unavailable(PodiumError):
    """Something this needs (etcd, another service) does not answer now; try again."""

    kind = Kind.UNAVAILABLE


class TooLate(PodiumError):
    """The deadline passed."""

    kind = Kind.TOO_LATE


class Internal(PodiumError):
    """A bug. Logged with its traceback where it happened, said without detail."""

    kind = Kind.INTERNAL


_CLASSES: dict[Kind, type[PodiumError]] = {
    cls.kind: cls
    for cls in (
        Invalid,
        NotFound,
        AlreadyExists,
        WrongState,
        Stale,
        Busy,
        Gone,
        LimitReached,
        Forbidden,
        Unsupported,
        Unavailable,
        TooLate,
        Internal,
    )
}


def error_of(kind: Kind, reason: str, message: str, about: str = "") -> PodiumError:
    """Return the error of *kind*, as received from another process or an operation record."""
    return _CLASSES[kind](reason, message, about=about)


def internal() -> Internal:
    """Return what a caller is told when a bug was hit: nothing but where to look."""
    return Internal("INTERNAL", "Internal error; the log of the service tells more")


_FULL = "No space is left in the storage pool or in a volume of limited size; delete something or enlarge it"


_SCARCE = {
    errno.EMFILE: "A service has as many files open as it may; try again when less is going on at once",
    errno.ENFILE: "The host has as many files open as it may; end something or raise fs.file-max",
    errno.ENOMEM: "The host has no memory left for this; end something and try again",
}


def from_exception(exc: Exception) -> PodiumError:
    """Return what a caller is told of an error that is not of this table: something is used up, or a bug."""
    number = exc.errno if isinstance(exc, OSError) else errno.ENOMEM if isinstance(exc, MemoryError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return WrongState("NO_SPACE", _FULL)
    if number in _SCARCE:
        return Unavailable("USED_UP", _SCARCE[number])
    return internal()
