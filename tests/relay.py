"""A client between two servers that migrate: passes on what they say, or something else.

Both servers wait for it, as for the stock client's `--mode relay`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from protos.podium.migration.v1 import migration_pb2 as pb

_NAMES = ("control", "fs")
_WAIT_S = 60


def as_lxd(header: bytes) -> bytes:
    """Return the header as a LXD would send it: without what only Podium knows."""
    message = pb.MigrationHeader.FromString(header)
    message.podium, message.exact = "", False
    return bytes(message.SerializeToString())


def unchanged(data: bytes) -> bytes:
    return data


@dataclass
class Twist:
    """What becomes of what is said.

    header: the source's offer; answer: the sink's. source_data: the n-th message of files from the source;
    None cuts all connections.
    """

    header: Callable[[bytes], bytes] = unchanged
    answer: Callable[[bytes], bytes] = unchanged
    source_data: Callable[[int, bytes], bytes | None] = lambda _, data: data


@dataclass
class Carried:
    """Final operations of both sides, and the bytes of files that went each way."""

    source: dict[str, Any]
    target: dict[str, Any]
    sent: int = 0
    answered: int = 0


@dataclass(frozen=True)
class Place:
    """Where on a server something is asked for: its socket, a path and a body."""

    socket: Path
    path: str
    body: dict[str, Any]


def relay(source: Place, target: Place, twist: Twist | None = None) -> Carried:
    """Begin both sides, carry what they say, and return how it ended. Raises: AssertionError if refused."""
    return asyncio.run(_relay(source, target, twist or Twist()))


async def _relay(source: Place, target: Place, twist: Twist) -> Carried:
    async with _session(source.socket) as there, _session(target.socket) as here:
        coming = await _ask(here, "POST", target.path, target.body)
        going = await _ask(there, "POST", source.path, source.body)
        ours = [await _channel(there, going, name) for name in _NAMES]
        its = [await _channel(here, coming, name) for name in _NAMES]
        carried = Carried({}, {})
        tasks = [
            asyncio.ensure_future(_control(ours[0], its[0], twist.header)),
            asyncio.ensure_future(_control(its[0], ours[0], twist.answer)),
            asyncio.ensure_future(_files(ours[1], its[1], twist, carried)),
            asyncio.ensure_future(_back(its[1], ours[1], carried)),
        ]
        try:
            async with asyncio.timeout(_WAIT_S):
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for socket in (*ours, *its):
                    with contextlib.suppress(Exception):
                        await asyncio.wait_for(socket.close(), 1)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        carried.source = await _ended(there, going)
        carried.target = await _ended(here, coming)
        return carried


def _session(socket: Path) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(socket)))


async def _ask(session: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> dict[str, Any]:
    async with session.request(method, f"http://podium{path}", json=body) as response:
        answer: dict[str, Any] = await response.json()
    assert not answer.get("error"), answer["error"]
    found: dict[str, Any] = answer["metadata"]
    return found


async def _ended(session: aiohttp.ClientSession, operation: dict[str, Any]) -> dict[str, Any]:
    return await _ask(session, "GET", f"/1.0/operations/{operation['id']}/wait?timeout={_WAIT_S}")


async def _channel(
    session: aiohttp.ClientSession, operation: dict[str, Any], name: str
) -> aiohttp.ClientWebSocketResponse:
    secret = operation["metadata"][name]
    url = f"http://podium/1.0/operations/{operation['id']}/websocket?secret={secret}"
    return await session.ws_connect(url, max_msg_size=64 << 20)


async def _control(read: Any, write: Any, twist: Callable[[bytes], bytes]) -> None:
    """Carry the header, twisted, and what follows; the end of it all is the sink's last word."""
    is_first = True
    async for message in read:
        await write.send_bytes(twist(message.data) if is_first else message.data)
        if not is_first:
            await asyncio.sleep(0.2)
            return
        is_first = False


async def _files(read: Any, write: Any, twist: Twist, carried: Carried) -> None:
    number = 0
    async for message in read:
        if message.type == aiohttp.WSMsgType.TEXT:
            await write.send_str("")
            continue
        carried.sent += len(message.data)
        data = twist.source_data(number, message.data)
        number += 1
        if data is None:
            return
        await write.send_bytes(data)
    await asyncio.sleep(_WAIT_S)


async def _back(read: Any, write: Any, carried: Carried) -> None:
    async for message in read:
        if message.type == aiohttp.WSMsgType.TEXT:
            await write.send_str("")
        else:
            carried.answered += len(message.data)
            await write.send_bytes(message.data)
    await asyncio.sleep(_WAIT_S)
