"""Who a call is made for. Travels as metadata; the sockets decide whom to believe.

Who reaches a service's unix socket, or holds a member's certificate, is a process of Podium: what it
says of the original caller is taken as it is. Any other certificate is itself the caller.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import msgspec

from core.errors import Forbidden

METADATA_KEY = "podium-identity"
REQUEST_ID_KEY = "podium-request-id"


@dataclass(frozen=True)
class Identity:
    """protocol: unix, tls or internal. projects: None means all of them."""

    username: str = ""
    protocol: str = "internal"
    address: str = "@"
    projects: tuple[str, ...] | None = None

    def as_dict(self) -> dict[str, str]:
        """Return what operations and events record of it."""
        return {"username": self.username, "protocol": self.protocol, "address": self.address}

    def encode(self) -> str:
        return msgspec.json.encode(asdict(self)).decode()


_INTERNAL = Identity()
_current: contextvars.ContextVar[Identity] = contextvars.ContextVar("identity", default=_INTERNAL)


def current_identity() -> Identity:
    return _current.get()


def set_identity(identity: Identity) -> None:
    """Make *identity* the caller for the rest of this task."""
    _current.set(identity)


@contextlib.contextmanager
def as_ourselves() -> Iterator[None]:
    """Call other services for ourselves: what was asked for has been checked, and how is our business."""
    token = _current.set(_INTERNAL)
    try:
        yield
    finally:
        _current.reset(token)


def decode_identity(text: str) -> Identity:
    """Return the identity in a metadata value; the internal one for none. Raises: Forbidden."""
    try:
        return msgspec.json.decode(text.encode(), type=Identity) if text else _INTERNAL
    except ValueError as exc:
        raise Forbidden("BAD_IDENTITY", f"The metadata {METADATA_KEY} is not readable") from exc
