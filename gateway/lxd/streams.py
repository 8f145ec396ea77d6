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
    request: web.BaseRequest, chunks: AsyncGenerator[bytes, None], headers: dict[str, str] | None = None
) -> web.StreamResponse:
    """The same for bytes."""
    async with aclosing(chunks):
        first = await anext(chunks, None)
        response = web.StreamResponse(headers={"Content-Type": _BYTES, **(headers or {})})
        await response.prepare(request)
        if first is not None:
            await response.write(first)
        async for chunk in chunks:
            await response.write(chunk)
        await response.write_eof()
    return response
