"""The events websocket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from aiohttp import web

from core.errors import Forbidden, Invalid
from gateway import sockets
from gateway.lxd import request as req
from gateway.lxd.feed import Listener

_TYPES = frozenset({"logging", "operation", "lifecycle"})


async def events(request: web.Request) -> web.StreamResponse:
    """Send every change from now on, in order. A listener that cannot keep up is disconnected."""
    default = _TYPES if request["caller"].is_admin else _TYPES - {"logging"}
    wanted = frozenset(filter(None, request.query.get("type", "").split(","))) or default
    if unknown := wanted - _TYPES:
        raise Invalid("BAD_EVENT_TYPE", f'"{sorted(unknown)[0][:40]}" isn\'t a supported event type')
    if "logging" in wanted and not request["caller"].is_admin:
        raise Forbidden("NOT_AUTHORIZED", "not authorized: only administrators may read the log")
    project = "" if request.query.get("all-projects") == "true" else req.project(request)
    socket = sockets.opened(request, max_frame=1 << 16)
    confined = request["caller"].projects is not None
    listener = Listener(wanted, project, _hang_up(request), confined=confined)
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
