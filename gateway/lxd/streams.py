"""Answers whose body is passed on as it comes, never held as a whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from aiohttp import web

_BYTES = "application/octet-stream"


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
) -> web.StreamResponse:
    """The same for bytes; *size* of them if that is known, and then not more, whatever grew meanwhile."""
    async with aclosing(chunks):
        first = await anext(chunks, None)
        response = web.StreamResponse(headers={"Content-Type": _BYTES, **(headers or {})})
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
