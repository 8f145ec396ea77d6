"""The bytes of images on their way in and out: through pipes and files that the image service lends.

Where there is no line to be lent on, they are carried by messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, aclosing
from typing import Any

from aiohttp import web

from core.descriptors import write_all
from gateway.backend import Backend
from gateway.lent import Ticket
from gateway.lxd import streams
from protos.podium.image.v1 import image_pb2 as pb

Part = tuple[Any, AsyncIterator[bytes]]
_NAMES = {pb.IMAGE_PART_METADATA: "metadata", pb.IMAGE_PART_ROOTFS: "rootfs"}


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


async def send_image(
    request: web.BaseRequest, backend: Backend, project: str, image: Any
) -> web.StreamResponse:
    """Send the files of *image* as the body: one, or both parts of a split one."""
    message = pb.ExportImageRequest(project=project, fingerprint=image.fingerprint)
    with ExitStack() as stack:
        if line := backend.image_lender.line():
            count = 2 if image.split else 1
            tickets = [stack.enter_context(backend.image_lender.ticket()) for _ in range(count)]
            message.line = line
            message.tickets.extend(ticket.id for ticket in tickets)
        async with aclosing(backend.images.ExportImage(message)) as stream:
            header = (await anext(stream)).header
            if not line or not (second := await anext(stream)).lent:
                return await _send_chunks(request, stream, image, header, second if line else None)
            headers = [header] + [reply.header async for reply in stream if reply.HasField("header")]
        return await _send_lent(request, image, list(zip(headers, tickets, strict=True)))


async def _send_lent(
    request: web.BaseRequest, image: Any, files: list[tuple[Any, Ticket]]
) -> web.StreamResponse:
    if not image.split:
        header, ticket = files[0]
        piece = streams.File(await ticket.pipe, header.size_bytes)
        return await streams.send_pieces(request, [piece], _disposition(header))
    boundary, pieces, lead = _boundary(image), list[bytes | streams.File](), ""
    for header, ticket in files:
        pieces += [_part_head(header, boundary, lead), streams.File(await ticket.pipe, header.size_bytes)]
        lead = "\r\n"
    pieces.append(f"\r\n--{boundary}--\r\n".encode())
    return await streams.send_pieces(request, pieces, _form(boundary))


async def _send_chunks(
    request: web.BaseRequest, stream: Any, image: Any, header: Any, first: Any
) -> web.StreamResponse:
    if image.split:
        return await _send_form(request, stream, image, header, first)

    async def chunks() -> Any:
        if first:
            yield first.chunk
        async for message in stream:
            yield message.chunk

    headers = {**_disposition(header), "Content-Length": str(header.size_bytes)}
    return await streams.send(request, chunks(), headers)


async def _send_form(
    request: web.BaseRequest, stream: Any, image: Any, header: Any, first: Any
) -> web.StreamResponse:
    boundary = _boundary(image)
    response = web.StreamResponse(headers=_form(boundary))
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(_part_head(header, boundary, ""))
    if first:
        await response.write(first.chunk)
    async for message in stream:
        if message.HasField("header"):
            await response.write(_part_head(message.header, boundary, "\r\n"))
        else:
            await response.write(message.chunk)
    await response.write(f"\r\n--{boundary}--\r\n".encode())
    await response.write_eof()
    return response


def _boundary(image: Any) -> str:
    return f"podium-{image.fingerprint[:32]}"


def _form(boundary: str) -> dict[str, str]:
    return {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def _disposition(header: Any) -> dict[str, str]:
    return {"Content-Disposition": f"inline;filename={header.filename}"}


def _part_head(header: Any, boundary: str, lead: str) -> bytes:
    head = f'{lead}--{boundary}\r\nContent-Disposition: form-data; name="{_NAMES[header.part]}"; '
    return f'{head}filename="{header.filename}"\r\nContent-Type: application/octet-stream\r\n\r\n'.encode()
