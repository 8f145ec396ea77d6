"""Answers whose body is passed on as it comes, never held as a whole."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from core.descriptors import writable

_BYTES = "application/octet-stream"
_PIECE = 1 << 20
_AT_ONCE = 64 << 20
_IDLE_MS = 5
_STALL_S = 120.0


@dataclass(frozen=True)
class File:
    """*size* bytes of a file to be sent, from *offset* on; the descriptor is its owner's to close."""

    fd: int
    size: int
    offset: int = 0


async def answer(
    request: web.BaseRequest, messages: AsyncGenerator[Any, None], headers: dict[str, str] | None = None
) -> web.StreamResponse:
    """Send the chunks of *messages*. What fails before the first of them is still an error reply."""
    async with aclosing(messages):
        return await send(request, (message.chunk async for message in messages), headers)


async def send(
    request: web.BaseRequest,
    chunks: AsyncGenerator[bytes, None],
    headers: dict[str, str] | None = None,
    *,
    size: int = 0,
    status: int = 200,
) -> web.StreamResponse:
    """The same for bytes; *size* of them if that is known, and then not more, whatever grew meanwhile."""
    async with aclosing(chunks):
        first = await anext(chunks, None)
        response = web.StreamResponse(status=status, headers={"Content-Type": _BYTES, **(headers or {})})
        if size:
            response.content_length = size
        await response.prepare(request)
        left = size
        chunk = first
        while chunk is not None and (left or not size):
            await response.write(chunk[:left] if size else chunk)
            left -= min(left, len(chunk))
            chunk = await anext(chunks, None)
        if left:
            response.force_close()  # so that the client sees that something is missing
        await response.write_eof()
    return response


async def send_pieces(
    request: web.BaseRequest, pieces: Sequence[bytes | File], headers: dict[str, str], *, status: int = 200
) -> web.StreamResponse:
    """Send texts and files in order, the files by the kernel where no encryption lies between."""
    response = web.StreamResponse(status=status, headers={"Content-Type": _BYTES, **headers})
    response.content_length = sum(p.size if isinstance(p, File) else len(p) for p in pieces)
    await response.prepare(request)
    for piece in pieces:
        if isinstance(piece, bytes):
            await response.write(piece)
        else:
            await _send_file(request, response, piece)
    await response.write_eof()
    return response


async def _send_file(request: web.BaseRequest, response: web.StreamResponse, file: File) -> None:
    """Raises: ConnectionError when the client is gone, or the file is shorter than it was."""
    transport = request.transport
    sock = transport.get_extra_info("socket") if transport else None
    is_encrypted = transport is not None and transport.get_extra_info("sslcontext") is not None
    sent = 0
    if sock is None or is_encrypted or file.size < _PIECE:
        while sent < file.size:
            most = min(_PIECE, file.size - sent)
            data = await asyncio.to_thread(os.pread, file.fd, most, file.offset + sent)
            if not data:
                break
            await response.write(data)
            sent += len(data)
        if sent < file.size:
            raise ConnectionResetError("The file is shorter than it was")
        return
    await _flushed(transport)
    await _by_kernel(sock.fileno(), file)


async def _flushed(transport: Any) -> None:
    """What was written before goes first. Raises: ConnectionError."""
    for turn in range(int(_STALL_S * 100)):
        if not transport.get_write_buffer_size():
            return
        await asyncio.sleep(0 if turn < 10 else 0.01)
    raise ConnectionResetError("The client takes nothing any more")


async def _by_kernel(target: int, file: File) -> None:
    """Send with sendfile(2), in a thread that comes back whenever the client takes nothing."""
    # Of our own: the loop waits for no descriptor of a transport, and a thread may outlive this call.
    target, source = os.dup(target), os.dup(file.fd)
    moving: asyncio.Task[int] | None = None
    sent, end = file.offset, file.offset + file.size
    try:
        while sent < end:
            moving = asyncio.create_task(asyncio.to_thread(_move, target, source, sent, end))
            await asyncio.wait([moving])
            now = moving.result()
            if now == sent:
                async with asyncio.timeout(_STALL_S):
                    await writable(target)
            sent = now
    except TimeoutError:
        raise ConnectionResetError("The client takes nothing any more") from None
    finally:
        if moving and not moving.done():
            moving.add_done_callback(lambda _: _close(target, source))
        else:
            _close(target, source)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _move(target: int, source: int, sent: int, size: int) -> int:
    """Send on from *sent*; return how far that came."""
    until, waiting = min(size, sent + _AT_ONCE), select.poll()
    waiting.register(target, select.POLLOUT)
    while sent < until:
        try:
            step = os.sendfile(target, source, sent, until - sent)
        except BlockingIOError:
            if waiting.poll(_IDLE_MS):
                continue
            break
        if not step:
            raise ConnectionResetError("The file is shorter than it was")
        sent += step
    return sent
