"""Operations and events."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import math
import time
from typing import Any

import orjson
from aiohttp import web

from core.errors import Forbidden, Invalid, NotFound
from core.events import Event, EventBatch
from core.operations.operation import Operation
from core.state.repository import Entry
from gateway.lxd import envelope
from gateway.lxd import request as req
from gateway.lxd.codes import OPERATION, time_text
from gateway.lxd.views.operations import operation_json, operation_url
from protos.podium.common.v1 import common_pb2 as pb

_SHOWN_AFTER_END_S = 5.0
_TYPES = frozenset({"logging", "operation", "lifecycle"})
_MAX_BACKLOG = 10_000
_KEEPALIVE_S = 10.0


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
    backend, id = req.backend(request), req.name(request)
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
    return envelope.sync(operation_json(await backend.wait(id, None if timeout < 0 else timeout)))


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
    socket = web.WebSocketResponse(autoping=True, compress=False, max_msg_size=1 << 16)
    if not socket.can_prepare(request).ok:
        raise Invalid("NO_WEBSOCKET", "Bad Request")
    queue: asyncio.Queue[bytes | None] = asyncio.Queue()
    confined = request["caller"].projects is not None
    listener = _Listener(queue, wanted, project, confined=confined)
    backend = req.backend(request)
    backend.listeners.add(listener)
    try:
        # Registered before the upgrade is answered: nothing that follows can be missed.
        await socket.prepare(request)
        await _serve(socket, queue)
    finally:
        backend.listeners.discard(listener)
    return socket


async def _serve(socket: web.WebSocketResponse, queue: asyncio.Queue[bytes | None]) -> None:
    reader = asyncio.create_task(_until_closed(socket, queue))
    try:
        await socket.ping(b"keepalive")
        while True:
            try:
                line = await asyncio.wait_for(queue.get(), _KEEPALIVE_S)
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
        queue: asyncio.Queue[bytes | None],
        types: frozenset[str],
        project: str,
        *,
        confined: bool = False,
    ) -> None:
        self._queue = queue
        self._types = types
        self._project = project
        self._confined = confined

    def tell(self, kind: str, project: str, metadata: dict[str, Any], at: float) -> None:
        if kind not in self._types or (self._project and project and project != self._project):
            return
        if self._confined and project != self._project:
            return  # what belongs to no project (trust tokens) is for administrators
        body: dict[str, Any] = {"type": kind, "timestamp": time_text(at), "metadata": metadata}
        body["location"] = "none"
        if project:
            body["project"] = project
        full = self._queue.qsize() >= _MAX_BACKLOG
        self._queue.put_nowait(None if full else orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE))


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
    metadata = operation_json(operation)
    for listener in list(listeners):
        listener.tell("operation", operation.project, metadata, operation.updated_at)


def broadcast_events(listeners: set[Any], entry: Entry[EventBatch] | None) -> None:
    if entry is None:
        return
    for event in entry.record.events:
        metadata = lifecycle_json(event)
        for listener in list(listeners):
            listener.tell("lifecycle", event.project, metadata, event.time)
