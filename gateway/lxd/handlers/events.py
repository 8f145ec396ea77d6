"""The events websocket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

from aiohttp import WSCloseCode, web

from core.errors import Forbidden, Invalid
from core.logs import get_logger
from gateway import sockets
from gateway.lxd import request as req
from gateway.lxd.feed import FEED, Listener, Message, parse_cursor

log = get_logger(__name__)
_TYPES = frozenset({"logging", "operation", "lifecycle"})
_LOST = b"events were lost; connect again with since= and the cursor of the last one"


async def events(request: web.Request) -> web.StreamResponse:
    """Send every change from now on, or after the revision that `since` names, in order and once.

    A listener that cannot keep up is disconnected, and so are all when history went on without us.
    """
    listener, feed = _listener(request), request.app[FEED]
    socket = sockets.opened(request, max_frame=1 << 16)
    # Before the upgrade is answered: nothing that follows can be missed, and a refusal can be said.
    past = await feed.open(listener)
    try:
        await socket.prepare(request)
        await _serve(socket, listener, past)
    finally:
        feed.close(listener)
    return socket


def _listener(request: web.Request) -> Listener:
    """Raises: Invalid, Forbidden."""
    caller = request["caller"]
    default = _TYPES if caller.is_admin else _TYPES - {"logging"}
    wanted = frozenset(filter(None, request.query.get("type", "").split(","))) or default
    if unknown := wanted - _TYPES:
        raise Invalid("BAD_EVENT_TYPE", f'"{sorted(unknown)[0][:40]}" isn\'t a supported event type')
    if "logging" in wanted and not caller.is_admin:
        raise Forbidden("NOT_AUTHORIZED", "not authorized: only administrators may read the log")
    project = "" if request.query.get("all-projects") == "true" else req.project(request)
    since = parse_cursor(request.query["since"]) if "since" in request.query else None
    reader = None if caller.projects is None else caller.identity.username
    return Listener(wanted, project, _hang_up(request), reader=reader, since=since)


def _hang_up(request: web.Request) -> Callable[[], None]:
    transport = request.transport
    return transport.abort if transport else lambda: None


async def _serve(
    socket: web.WebSocketResponse, listener: Listener, past: AsyncGenerator[Message, None] | None
) -> None:
    # Both end with this connection.
    tasks = [asyncio.create_task(_until_closed(socket, listener))]
    if past:
        tasks.append(asyncio.create_task(_tell_all(listener, past)))
    try:
        await _send_all(socket, listener)
    except ConnectionError:
        return
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if listener.has_lost:
        await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=_LOST)


async def _send_all(socket: web.WebSocketResponse, listener: Listener) -> None:
    while True:
        try:
            line = await asyncio.wait_for(listener.queue.get(), sockets.KEEPALIVE_S)
        except TimeoutError:
            await socket.ping(b"keepalive")
            continue
        if line is None:
            return
        await socket.send_str(line)


async def _tell_all(listener: Listener, past: AsyncGenerator[Message, None]) -> None:
    async with contextlib.aclosing(past):
        try:
            async for message in past:
                await listener.tell_patiently(message)
        except Exception as exc:
            log.warning("events_lost", error=str(exc))
            listener.lose()


async def _until_closed(socket: web.WebSocketResponse, listener: Listener) -> None:
    async for _ in socket:
        pass
    await listener.queue.put(None)
