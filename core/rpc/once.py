"""A request that must be carried out once however often it is sent: its ticket, passed on to the service.

The ticket names the operation that the request gets. Whoever accepts the operation takes that id, and
the state refuses a second record under it; so nobody has to remember keys, and no crash can forget one.
"""

from __future__ import annotations

import contextvars
import uuid
from dataclasses import dataclass

from core.errors import AlreadyExists, Invalid

METADATA_KEY = "podium-once"


@dataclass
class Ticket:
    """digest tells the request from others under the same key. One operation uses the ticket up."""

    operation_id: str
    digest: str
    is_used: bool = False

    def encode(self) -> str:
        return f"{self.operation_id} {self.digest}"


def decode_ticket(text: str) -> Ticket | None:
    """Return the ticket in a metadata value; None for none. Raises: Invalid."""
    if not text:
        return None
    try:
        id, digest = text.split(" ")
        return Ticket(str(uuid.UUID(id)), digest)
    except ValueError:
        raise Invalid("BAD_TICKET", f"The metadata {METADATA_KEY} is not readable") from None


def accepted_before(operation_id: str) -> AlreadyExists:
    return AlreadyExists("ACCEPTED_BEFORE", "This request was accepted before", about=operation_id)


# Two variables, since a service that calls another asks for something else than it was asked for.
_sent: contextvars.ContextVar[Ticket | None] = contextvars.ContextVar("sent_ticket", default=None)
_received: contextvars.ContextVar[Ticket | None] = contextvars.ContextVar("received_ticket", default=None)


def send_ticket(ticket: Ticket) -> None:
    """Pass *ticket* on with every call of this task."""
    _sent.set(ticket)


def sent_ticket() -> Ticket | None:
    return _sent.get()


def receive_ticket(ticket: Ticket | None) -> None:
    """Make *ticket* that of the call which this task answers."""
    _received.set(ticket)


def end_request() -> None:
    """Let no task that outlives the request use its ticket."""
    if ticket := _received.get():
        ticket.is_used = True


def ticket_for(operation_id: str) -> Ticket | None:
    """Return the ticket under which the operation of this id is asked for, if it is."""
    ticket = _received.get()
    return ticket if ticket and not ticket.is_used and ticket.operation_id == operation_id else None


def new_operation_id() -> str:
    """Return the id that the caller's ticket asks for, or one of its own."""
    ticket = _received.get()
    return ticket.operation_id if ticket and not ticket.is_used else str(uuid.uuid4())
