"""The bytes of images on their way in: through pipes that the image service lends.

Where there is no line to be lent on, they are carried by messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from core.descriptors import write_all
from gateway.backend import Backend
from protos.podium.image.v1 import image_pb2 as pb

Part = tuple[Any, AsyncIterator[bytes]]


async def upload(backend: Backend, header: pb.UploadHeader, parts: AsyncIterator[Part]) -> Any:
    """Have an image received; return the answer."""
    header.line = backend.image_lender.line()
    if not header.line:
        return await backend.images.UploadImage(_messages(header, parts))
    outbox: asyncio.Queue[pb.UploadImageRequest | None] = asyncio.Queue()
    outbox.put_nowait(pb.UploadImageRequest(header=header))
    call = asyncio.ensure_future(backend.images.UploadImage(_sent(outbox)))
    try:
        async for part, chunks in parts:
            with backend.image_lender.ticket() as ticket:
                outbox.put_nowait(pb.UploadImageRequest(part=part))
                outbox.put_nowait(pb.UploadImageRequest(ticket=ticket.id))
                # Only one of both comes: a call that ends first was refused, or the line is lost.
                await asyncio.wait({call, ticket.pipe}, return_when=asyncio.FIRST_COMPLETED)
                if call.done() or not await _fill(chunks, ticket.pipe.result()):
                    break
        outbox.put_nowait(None)
        return await call
    finally:
        call.cancel()


async def _sent(outbox: asyncio.Queue[pb.UploadImageRequest | None]) -> AsyncIterator[pb.UploadImageRequest]:
    while (message := await outbox.get()) is not None:
        yield message


async def _fill(chunks: AsyncIterator[bytes], pipe: int) -> bool:
    """Pass the chunks on; say whether all were taken. Where not, the call says why."""
    async for chunk in chunks:
        if not await write_all(pipe, chunk):
            return False
    return True


async def _messages(
    header: pb.UploadHeader, parts: AsyncIterator[Part]
) -> AsyncIterator[pb.UploadImageRequest]:
    yield pb.UploadImageRequest(header=header)
    async for part, chunks in parts:
        yield pb.UploadImageRequest(part=part)
        async for chunk in chunks:
            yield pb.UploadImageRequest(chunk=chunk)
