"""GET /1.0/events of the guest API: a websocket where one is asked for, else a body without end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import orjson
from aiohttp import web

from core.errors import PodiumError
from gateway.backend import Backend
from gateway.lxd.codes import stamp_text
from gateway.sockets import asks_for, pinged
from protos.podium.runtime.v1 import guest_pb2 as pb

# What LXD's listeners know; "hook" is told to those that ask for it.
_TYPES = ("config", "device")
_MOST_FRAME = 1024


async def events(request: web.BaseRequest, backend: Backend, id: str) -> web.StreamResponse:
    asked = request.query.get("type", "")
    wanted = tuple(asked.split(",")) if asked else _TYPES
    stream = backend.guests.WatchGuest(pb.WatchGuestRequest(instance_id=id))
    async with aclosing(stream):
        await anext(stream)  # it listens: what changes from now on is told
        made = web.WebSocketResponse(max_msg_size=_MOST_FRAME, compress=False)
        async with aclosing(_lines(stream, wanted)) as lines:
            if asks_for(made, request):
                return await _to_socket(request, made, lines)
            return await _to_body(request, lines)


async def _lines(stream: Any, wanted: tuple[str, ...]) -> AsyncGenerator[str, None]:
    try:
        async for change in stream:
            kind = change.WhichOneof("change")
            if kind in wanted:
                yield _line(kind, change)
    except PodiumError:
        return  # the service went away: who listens finds the stream ended, and asks again


def _line(kind: str, change: Any) -> str:
    body: dict[str, Any] = {"type": kind, "timestamp": stamp_text(change, "at")}
    if kind == "config":
        c = change.config
        body["metadata"] = {"key": c.key, "old_value": c.old_value, "value": c.value}
    elif kind == "hook":
        body["metadata"] = {"action": change.hook.action}
    else:
        d = change.device
        body["metadata"] = {"action": d.action, "config": dict(sorted(d.options.items())), "name": d.name}
    return orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE).decode()


async def _to_body(request: web.BaseRequest, lines: AsyncIterator[str]) -> web.StreamResponse:
    headers = {"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"}
    response = web.StreamResponse(headers=headers)
    # Without a length and not in chunks, as LXD sends it: the connection's end is the end.
    response.force_close()
    await response.prepare(request)
    await response.write(b"")
    async for line in lines:
        await response.write(line.encode())
    return response


async def _to_socket(
    request: web.BaseRequest, made: web.WebSocketResponse, lines: AsyncIterator[str]
) -> web.WebSocketResponse:
    await made.prepare(request)
    with pinged(made):
        # Both end with this call: who leaves is noticed by what it says last, which is all it may say.
        tasks = [asyncio.create_task(_send(made, lines)), asyncio.create_task(_left(made))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    await made.close()
    return made


async def _send(made: web.WebSocketResponse, lines: AsyncIterator[str]) -> None:
    async for line in lines:
        await made.send_str(line)


async def _left(made: web.WebSocketResponse) -> None:
    async for _ in made:
        pass
