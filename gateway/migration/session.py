"""What is said on the channels of a migration: an offer, an answer, the archive, and how it ended.

Podium sends archives of its own form to Podium only. To LXD it offers a way that LXD does not know and
refuses in its own words; what LXD offers is refused with the way that works.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from aiohttp import WSMsgType
from google.protobuf.message import DecodeError

from core.errors import Invalid, Unavailable, WrongState
from gateway.migration.channels import Channels, Socket
from protos.podium.migration.v1 import migration_pb2 as pb

_FORM = "archive-1"
# Far from the numbers that LXD gives its own ways.
_FS = 77
_ANSWER_S = 60.0
_END_S = 6 * 3600.0
_STALL_S = 60.0
_OTHER = (
    "The other server does not speak Podium's way of migration; "
    "move instances to and from LXD by lxc export and lxc import"
)


async def offer(channels: Channels) -> None:
    """Begin as the source. Raises: WrongState when the other side is no Podium."""
    await _say(channels, pb.MigrationHeader(fs=_FS, podium=_FORM))
    await _agreed(channels)


async def answer(channels: Channels) -> None:
    """Begin as the sink. Raises: WrongState when the other side is no Podium."""
    await _agreed(channels)
    await _say(channels, pb.MigrationHeader(fs=_FS, podium=_FORM))


async def _agreed(channels: Channels) -> None:
    header = pb.MigrationHeader()
    raw = await _heard(channels.control, _ANSWER_S)
    try:
        header.ParseFromString(raw)
    except DecodeError:
        header.Clear()
    if header.podium != _FORM:
        await end(channels, _refusal(raw) or _OTHER)
        raise WrongState("OTHER_WAY", _refusal(raw) or _OTHER)


def _refusal(raw: bytes) -> str:
    """Return why the other side gave up, if that is what it said."""
    control = pb.MigrationControl()
    try:
        control.ParseFromString(raw)
    except DecodeError:
        return ""
    return control.message if control.HasField("success") and not control.success else ""


async def send(channels: Channels, chunks: AsyncIterator[bytes]) -> None:
    """Send the archive and the mark after it. Raises: Unavailable when the other side is gone."""
    try:
        async for chunk in chunks:
            await channels.fs.send_bytes(chunk)
        await channels.fs.send_str("")
    except (ConnectionError, RuntimeError) as exc:
        raise Unavailable("LOST", "The connection to the other server was lost") from exc


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
        return _refusal(await _heard(channels.control, 1.0)) or "The connection to the other server was lost"
    except (Unavailable, Invalid):
        return "The connection to the other server was lost"


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
        raise Unavailable("LOST", "The connection to the other server was lost")
    return bytes(message.data)
