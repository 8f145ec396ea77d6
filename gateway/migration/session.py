"""What is said on the channels of a migration: an offer, an answer, the files, and how it ended.

Offer and answer are the runtime's, and so is what rsync says: that is only carried here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from aiohttp import WSMsgType
from google.protobuf.message import DecodeError

from core.errors import Invalid, Unavailable, WrongState
from gateway.migration.channels import Channels, Socket
from protos.podium.migration.v1 import migration_pb2 as pb

_FORM = "archive-1"
_ANSWER_S = 60.0
_END_S = 6 * 3600.0
_STALL_S = 60.0
_LOST = "The connection to the other server was lost"


async def offer(channels: Channels, header: bytes) -> bytes:
    """Begin as the source: return what the sink answers. Raises: WrongState in its words, Unavailable."""
    await channels.control.send_bytes(header)
    return await _agreed(channels)


async def offered(channels: Channels) -> bytes:
    """Begin as the sink: return what the source offers. Raises: WrongState in its words, Unavailable."""
    return await _agreed(channels)


async def answer(channels: Channels, header: bytes) -> bool:
    """Answer as the sink; say whether the archive is what comes."""
    await channels.control.send_bytes(header)
    return str(pb.MigrationHeader.FromString(header).podium) == _FORM


async def _agreed(channels: Channels) -> bytes:
    raw = await _heard(channels.control, _ANSWER_S)
    if why := _refusal(raw):
        raise WrongState("REFUSED", why)
    return raw


def _refusal(raw: bytes) -> str:
    """Return why the other side gave up, if it did: a header has no text as its second."""
    control = pb.MigrationControl()
    try:
        control.ParseFromString(raw)
    except DecodeError:
        return ""
    return control.message if control.HasField("success") and not control.success else ""


async def heard(
    channels: Channels, data: Callable[[bytes], Coroutine[Any, Any, None]], mark: Callable[[], Any]
) -> None:
    """Pass on what the other side says of the files until it is gone. Raises: Unavailable then."""
    while True:
        message = await channels.fs.receive()
        if message.type == WSMsgType.BINARY:
            await data(message.data)
        elif message.type == WSMsgType.TEXT:
            await mark()
        else:
            raise Unavailable("LOST", _LOST)


async def send(channels: Channels, data: bytes) -> None:
    """Send some of the files, or with none the mark after them. Raises: Unavailable."""
    try:
        await (channels.fs.send_bytes(data) if data else channels.fs.send_str(""))
    except (ConnectionError, RuntimeError) as exc:
        raise Unavailable("LOST", _LOST) from exc


async def received(channels: Channels) -> AsyncGenerator[bytes, None]:
    """Yield the archive. Raises: Unavailable when it does not come to its end."""
    while True:
        try:
            async with asyncio.timeout(_STALL_S):
                message = await channels.fs.receive()
        except TimeoutError:
            raise Unavailable("STALLED", f"The other server sent nothing for {_STALL_S:g} s") from None
        if message.type == WSMsgType.TEXT:
            return
        if message.type != WSMsgType.BINARY:
            raise Unavailable("LOST", await _last_words(channels))
        yield message.data


async def _last_words(channels: Channels) -> str:
    try:
        return _refusal(await _heard(channels.control, 1.0)) or _LOST
    except (Unavailable, Invalid):
        return _LOST


async def end(channels: Channels, error: str) -> None:
    """Tell how it ended; who is gone hears nothing."""
    try:
        await _say(channels, pb.MigrationControl(success=not error, message=error))
    except (ConnectionError, RuntimeError):
        return


async def outcome(channels: Channels) -> str:
    """Return why the sink failed; "" when all is well. Raises: Unavailable."""
    control = pb.MigrationControl()
    try:
        control.ParseFromString(await _heard(channels.control, _END_S))
    except DecodeError:
        return "The other server said what nobody understands"
    return "" if control.success else control.message or "The other server failed without a word"


async def _say(channels: Channels, message: Any) -> None:
    await channels.control.send_bytes(message.SerializeToString())


async def _heard(socket: Socket, limit_s: float) -> bytes:
    try:
        async with asyncio.timeout(limit_s):
            message = await socket.receive()
    except TimeoutError:
        raise Unavailable("SILENT", "The other server did not answer in time") from None
    if message.type != WSMsgType.BINARY:
        raise Unavailable("LOST", _LOST)
    return bytes(message.data)
