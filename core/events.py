"""Life-cycle events: what changed, to which object, on whose behalf.

Events are written in the same transaction as the change they tell of: one key per service and
member is overwritten with the batch, and etcd's history of that key is the stream. So an event has
the revision of its change, and a follower who knows a revision misses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Event:
    """One change. action: "instance-started", "image-deleted" ...; time: unix seconds."""

    action: str = ""
    subject_kind: str = ""
    project: str = ""
    name: str = ""
    requestor: dict[str, str] = field(default_factory=dict)
    context: dict[str, str] = field(default_factory=dict)
    time: float = 0.0


@dataclass(frozen=True)
class EventBatch:
    """The events of one transaction."""

    member: str = ""
    service: str = ""
    events: tuple[Event, ...] = ()
