"""Operations and events."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import math
import time
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from core.errors import Forbidden, Invalid, NotFound
from core.events import Event, EventBatch
from core.operations.operation import Operation
from core.state.repository import Entry
from gateway import sockets
from gateway.lxd import envelope
from gateway.lxd import request as req
from gateway.lxd.codes import OPERATION, time_text
from gateway.lxd.views.operations import operation_json, operation_url
from protos.podium.common.v1 import common_pb2 as pb

_SHOWN_AFTER_END_S = 5.0
_TYPES = frozenset({"logging", "operation", "lifecycle"})
_MAX_BACKLOG = 10_000


async def list_operations(request: web.Request) -> web.Response:
    """Running ones, and those that ended a moment ago; older ones are kept but not listed."""
    project, horizon = req.project(request), time.time() - _SHOWN_AFTER_END_S
    found: dict[str, list[Any]] = {}
    for entry in req.backend(request).operations.entries():
        operation = entry.record
        if not _visible(request, operation):
            continue
        if operation.project not in ("", project) or (operation.is_final and operation.updated_at < horizon):
            continue
        status = OPERATION[operation.state][0].lower()
        shown: Any = operation_json(operation) if req.recursion(request) else operation_url(operation.id)
        found.setdefault(status, []).append(shown)
    return envelope.sync(found)


async def get_operation(request: web.Request) -> web.Response:
    return envelope.sync(operation_json(await _operation(request)))


async def _operation(request: web.Request) -> Operation:
    """Raises: NotFound, also for what is none of the caller's business."""
    operation = await req.backend(request).operation(req.name(request))
    if not _visible(request, operation):
        raise NotFound("NO_OPERATION", "Operation not found", about=operation.id)
    return operation


def _visible(request: web.Request, operation: Operation) -> bool:
    seen: bool = request["caller"].may_see(operation.project, operation.requestor.get("username", ""))
    return seen


async def wait_operation(request: web.Request) -> web.Response:
    id = req.name(request)
    operation = await _operation(request)
    if not request["caller"].trusted:
        given, wanted = request.query.get("secret", ""), str(operation.metadata.get("secret", ""))
        if not wanted or not hmac.compare_digest(given, wanted):
            raise Forbidden("NOT_AUTHORIZED", "not authorized")
    try:
        timeout = float(request.query.get("timeout", "-1"))
    except ValueError:
        raise Invalid("BAD_TIMEOUT", "timeout must be a number of seconds") from None
    if not math.isfinite(timeout):
        raise Invalid("BAD_TIMEOUT", "timeout must be a finite number of seconds")
    return envelope.sync(operation_json(await _waited(request, id, math.inf if timeout < 0 else timeout)))


async def _waited(request: web.Request, id: str, timeout_s: float) -> Operation:
    """Return the operation when it is final or time is up; give up when the client is gone."""
    end = time.monotonic() + timeout_s
    while True:
        left = end - time.monotonic()
        operation = await req.backend(request).wait(id, max(0.0, min(left, sockets.KEEPALIVE_S)))
        if operation.is_final or left <= sockets.KEEPALIVE_S or request.transport is None:
            return operation


async def delete_operation(request: web.Request) -> web.Response:
    backend, id = req.backend(request), req.name(request)
    operation = await _operation(request)
    service = backend.operation_services[operation.service]
    reply = await service.CancelOperation(pb.CancelOperationRequest(id=id))
    backend.accepted(reply.operation)
    return envelope.empty()


async def events(request: web.Request) -> web.StreamResponse:
    """Send every change from now on, in order. A listener that cannot keep up is disconnected."""
    wanted = frozenset(filter(None, request.query.get("type", "").split(","))) or _TYPES
    if unknown := wanted - _TYPES:
        raise Invalid("BAD_EVENT_TYPE", f'"{sorted(unknown)[0][:40]}" isn\'t a supported event type')
    project = "" if request.query.get("all-projects") == "true" else req.project(request)
    socket = sockets.opened(request, max_frame=1 << 16)
    confined = request["caller"].projects is not None
    listener = _Listener(wanted, project, _hang_up(request), confined=confined)
    backend = req.backend(request)
    backend.listeners.add(listener)
    try:
        # Registered before the upgrade is answered: nothing that follows can be missed.
        await socket.prepare(request)
        await _serve(socket, listener.queue)
    finally:
        backend.listeners.discard(listener)
    return socket


def _hang_up(request: web.Request) -> Callable[[], None]:
    transport = request.transport
    return transport.abort if transport else lambda: None


async def _serve(socket: web.WebSocketResponse, queue: asyncio.Queue[bytes | None]) -> None:
    reader = asyncio.create_task(_until_closed(socket, queue))
    try:
        await socket.ping(b"keepalive")
        while True:
            try:
                line = await asyncio.wait_for(queue.get(), sockets.KEEPALIVE_S)
            except TimeoutError:
                await socket.ping(b"keepalive")
                continue
            if line is None:
                return
            await socket.send_str(line.decode())
    except ConnectionError:
        return
    finally:
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader


async def _until_closed(socket: web.WebSocketResponse, queue: asyncio.Queue[bytes | None]) -> None:
    async for _ in socket:
        pass
    await queue.put(None)


class _Listener:
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


def _broadcast(listeners: set[Any], kind: str, project: str, metadata: dict[str, Any], at: float) -> None:
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


def broadcast_operation(listeners: set[Any], entry: Entry[Operation] | None) -> None:
    if entry is None:
        return
    operation = entry.record
    _broadcast(listeners, "operation", operation.project, operation_json(operation), operation.updated_at)


def broadcast_events(listeners: set[Any], entry: Entry[EventBatch] | None) -> None:
    if entry is None:
        return
    for event in entry.record.events:
        _broadcast(listeners, "lifecycle", event.project, lifecycle_json(event), event.time)
