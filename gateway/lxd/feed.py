"""What events websockets are told: operations and life-cycle events, each made into text once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from core.events import Event, EventBatch
from core.operations.operation import Operation
from core.state.repository import Entry
from gateway.lxd import request as req
from gateway.lxd.codes import time_text
from gateway.lxd.views.operations import operation_json

_MAX_BACKLOG = 10_000


class Listener:
    """One events websocket: what it wants, and what waits for it."""

    def __init__(
        self,
        types: frozenset[str],
        project: str,
        hang_up: Callable[[], None],
        *,
        confined: bool = False,
    ) -> None:
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue(_MAX_BACKLOG)
        self._types = types
        self._project = project
        self._hang_up = hang_up
        self._confined = confined

    def wants(self, kind: str, project: str) -> bool:
        """Say whether an event concerns it. What belongs to no project is for all but the confined."""
        if kind not in self._types:
            return False
        if self._confined:
            return project == self._project
        return not self._project or not project or project == self._project

    def tell(self, line: bytes) -> None:
        """Queue an event; who does not read is disconnected, since a gap would be worse."""
        try:
            self.queue.put_nowait(line)
        except asyncio.QueueFull:
            self._hang_up()


def broadcast_operation(listeners: set[Listener], entry: Entry[Operation] | None) -> None:
    if entry is None:
        return
    operation = entry.record
    _broadcast(listeners, "operation", operation.project, operation_json(operation), operation.updated_at)


def broadcast_events(listeners: set[Listener], entry: Entry[EventBatch] | None) -> None:
    if entry is None:
        return
    for event in entry.record.events:
        _broadcast(listeners, "lifecycle", event.project, lifecycle_json(event), event.time)


def announce(request: web.Request, action: str, **context: Any) -> None:
    """Tell of what was done with the instance of *request* but is no change of its record."""
    who = request["caller"].identity.as_dict()
    project = req.project(request)
    metadata = lifecycle_json(Event(action, "instances", project, req.name(request), who))
    if context:
        metadata["context"] = context
    _broadcast(req.backend(request).listeners, "lifecycle", project, metadata, time.time())


def lifecycle_json(event: Event) -> dict[str, Any]:
    suffix = "" if event.project in ("", "default") else f"?project={event.project}"
    kind = "images/aliases" if event.subject_kind == "aliases" else event.subject_kind
    source = f"/1.0/{kind}/{event.name}{suffix}" if event.name else "/1.0"
    found: dict[str, Any] = {"action": event.action, "source": source}
    if event.context:
        found["context"] = event.context
    if event.requestor:
        found["requestor"] = event.requestor
    return found


def _broadcast(
    listeners: set[Listener], kind: str, project: str, metadata: dict[str, Any], at: float
) -> None:
    concerned = [listener for listener in listeners if listener.wants(kind, project)]
    if not concerned:
        return
    body: dict[str, Any] = {"type": kind, "timestamp": time_text(at), "metadata": metadata}
    body["location"] = "none"
    if project:
        body["project"] = project
    line = orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE)
    for listener in concerned:
        listener.tell(line)
