"""The file API of instances."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from core.descriptors import Reader, write_all
from core.errors import Invalid
from gateway.lent import Ticket
from gateway.lxd import envelope, feed, streams
from gateway.lxd import request as req
from protos.podium.runtime.v1 import files_pb2 as pb

_CHUNK = 1 << 20
# Below it a pipe costs more than it saves.
_WORTHWHILE = 1 << 20
_TYPES = {
    "file": pb.FILE_TYPE_FILE,
    "directory": pb.FILE_TYPE_DIRECTORY,
    "symlink": pb.FILE_TYPE_SYMLINK,
}
_NAMES = {number: name for name, number in _TYPES.items()}


def _ref(request: web.Request) -> pb.FileRef:
    path = request.query.get("path", "")
    if not path:
        raise Invalid("NO_PATH", "Missing path argument")
    return pb.FileRef(project=req.project(request), name=req.name(request), path=path)


def _shown(path: str) -> str:
    """Return *path* as events tell it: clients may leave the slash before it out."""
    return path if path.startswith("/") else f"/{path}"


def _headers(info: Any) -> dict[str, str]:
    at = datetime.fromtimestamp(info.modified_at.ToSeconds(), UTC)
    return {
        "X-Lxd-Uid": str(info.uid),
        "X-Lxd-Gid": str(info.gid),
        "X-Lxd-Mode": f"0{info.mode:03o}",  # clients read what does not begin with 0 as decimal
        "X-Lxd-Type": _NAMES.get(info.type, "file"),
        "X-Lxd-Modified": at.strftime("%Y-%m-%d %H:%M:%S +0000 UTC"),
    }


async def head_file(request: web.Request) -> web.Response:
    reply = await req.backend(request).files.StatFile(pb.StatFileRequest(file=_ref(request)))
    return web.Response(headers=_headers(reply.info), content_type="application/json")


async def get_file(request: web.Request) -> web.StreamResponse:
    backend = req.backend(request)
    lender = await backend.lender_for(req.project(request), req.name(request))
    with lender.ticket() as ticket:
        asked = pb.ReadFileRequest(file=_ref(request), line=ticket.line, ticket=ticket.id)
        async with aclosing(backend.files.ReadFile(asked)) as stream:
            info = (await anext(stream)).info
            feed.announce(request, "instance-file-retrieved", path=_shown(request.query["path"]))
            return await _file_answer(request, info, _content(stream, ticket))


async def _content(stream: AsyncGenerator[Any, None], ticket: Ticket) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of a file, out of messages or the pipe that was lent."""
    async for message in stream:
        if not message.lent:
            yield message.chunk
            continue
        reader = Reader(await ticket.pipe)
        try:
            while data := await reader.read():
                yield data
        finally:
            reader.close()


async def _file_answer(
    request: web.Request, info: Any, content: AsyncGenerator[bytes, None]
) -> web.StreamResponse:
    headers = _headers(info)
    if info.type == pb.FILE_TYPE_DIRECTORY:
        response = envelope.sync(list(info.entries))
        response.headers.update(headers)
        return response
    if info.type == pb.FILE_TYPE_SYMLINK:
        return web.Response(body=info.target, headers=headers, content_type="application/octet-stream")
    leaf = re.sub(r"[^A-Za-z0-9._-]", "_", request.query["path"].rsplit("/", 1)[-1])
    headers["Content-Disposition"] = f"inline;filename={leaf}"
    return await streams.send(request, content, headers, size=info.size_bytes)


async def post_file(request: web.Request) -> web.Response:
    kind = req.header(request, "X-LXD-type", "file")
    how = req.header(request, "X-LXD-write", "overwrite")
    if kind not in _TYPES:
        raise Invalid("BAD_TYPE", f"Bad file type: {kind[:40]}")
    if how not in ("overwrite", "append"):
        raise Invalid("BAD_MODE", f"Bad file write mode: {how[:40]}")
    header = pb.WriteHeader(file=_ref(request), type=_TYPES[kind], append=how == "append")
    for field in ("uid", "gid"):
        if (value := _number(request.headers.get(f"X-LXD-{field}"), 10, field)) is not None:
            setattr(header, field, value)
    mode = request.headers.get("X-LXD-mode", "")
    if (bits := _number(mode or None, 8 if mode.startswith("0") else 10, "mode")) is not None:
        header.mode = bits & 0o7777
    if kind == "symlink":
        header.target = await request.read()
    await _write(request, header)
    feed.announce(request, "instance-file-pushed", path=_shown(header.file.path))
    return envelope.empty()


async def _write(request: web.Request, header: pb.WriteHeader) -> None:
    """Write a file; one that may be big goes through a pipe where there is a line to be lent one."""
    backend, size = req.backend(request), request.content_length
    is_big = header.type == pb.FILE_TYPE_FILE and not header.append and (size is None or size >= _WORTHWHILE)
    lender = await backend.lender_for(header.file.project, header.file.name)
    if not is_big or not lender.line():
        await backend.files.WriteFile(_writing(request, header))
        return
    with lender.ticket() as ticket:
        header.line, header.ticket = ticket.line, ticket.id
        call = asyncio.ensure_future(backend.files.WriteFile(_alone(header)))
        try:
            # Only one of both comes: a call that ends first was refused, or the line is lost.
            await asyncio.wait({call, ticket.pipe}, return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                await _fill(request, ticket.pipe.result())
            ticket.close()
            await call
        finally:
            call.cancel()


async def _alone(header: pb.WriteHeader) -> AsyncIterator[pb.WriteFileRequest]:
    yield pb.WriteFileRequest(header=header)


async def _fill(request: web.Request, pipe: int) -> None:
    async for chunk in req.chunks(request, _CHUNK):
        if not await write_all(pipe, chunk):
            return  # the file takes no more: the call says why


def _number(text: str | None, base: int, what: str) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-7]{1,12}" if base == 8 else r"[0-9]{1,12}", text):
        raise Invalid("BAD_NUMBER", f"X-LXD-{what} must be a number, not {text[:20]!r}")
    value = int(text, base)
    if not 0 <= value < 1 << 32:
        raise Invalid("BAD_NUMBER", f"X-LXD-{what} is out of range")
    return value


async def _writing(request: web.Request, header: pb.WriteHeader) -> AsyncIterator[pb.WriteFileRequest]:
    yield pb.WriteFileRequest(header=header)
    if header.type == pb.FILE_TYPE_FILE:
        async for chunk in req.chunks(request, _CHUNK):
            yield pb.WriteFileRequest(chunk=chunk)


async def delete_file(request: web.Request) -> web.Response:
    await req.backend(request).files.DeleteFile(pb.DeleteFileRequest(file=_ref(request)))
    feed.announce(request, "instance-file-deleted", path=_shown(request.query["path"]))
    return envelope.empty()
