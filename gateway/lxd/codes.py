"""LXD's status codes for operations and instances, and its way to write times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from protos.podium.runtime.v1 import instance_pb2 as pb

OPERATION = {
    "pending": ("Pending", 105),
    "running": ("Running", 103),
    "cancelling": ("Cancelling", 104),
    "succeeded": ("Success", 200),
    "failed": ("Failure", 400),
    "cancelled": ("Cancelled", 401),
}
INSTANCE = {
    pb.INSTANCE_STATUS_CREATING: ("Stopped", 102),
    pb.INSTANCE_STATUS_STOPPED: ("Stopped", 102),
    pb.INSTANCE_STATUS_STARTING: ("Starting", 106),
    pb.INSTANCE_STATUS_RUNNING: ("Running", 103),
    pb.INSTANCE_STATUS_FROZEN: ("Frozen", 110),
    pb.INSTANCE_STATUS_STOPPING: ("Stopping", 107),
    pb.INSTANCE_STATUS_DELETING: ("Stopped", 102),
    pb.INSTANCE_STATUS_ERROR: ("Error", 112),
    pb.INSTANCE_STATUS_UNSPECIFIED: ("Error", 112),
}
READY = ("Ready", 113)
EPOCH = "1970-01-01T00:00:00Z"
NEVER = "0001-01-01T00:00:00Z"


def time_text(seconds: float, never: str = EPOCH) -> str:
    """Return RFC 3339 with microseconds, or *never* for zero; no zeros at its end, as Go writes it."""
    if not seconds:
        return never
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".") + "Z"


def stamp_text(message: Any, field: str, never: str = EPOCH) -> str:
    if not message.HasField(field):
        return never
    return time_text(getattr(message, field).ToNanoseconds() / 1e9, never)
