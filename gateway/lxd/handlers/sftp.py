"""The files of an instance by SFTP: the connection becomes one session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

from aiohttp import web

from core.errors import Invalid, PodiumError
from gateway.lxd import request as req
from gateway.raw import RawConnection, finished, upgraded
from protos.podium.runtime.v1 import sftp_pb2 as pb


async def get_sftp(request: web.Request) -> web.StreamResponse:
    if request.headers.get("Upgrade", "").lower() != "sftp":
        raise Invalid("NO_UPGRADE", "Missing or invalid upgrade header")
    target = pb.SftpTarget(project=req.project(request), name=req.name(request))
    begun: asyncio.Future[RawConnection | None] = asyncio.get_running_loop().create_future()
    stream = req.backend(request).sftp.OpenSftp(_requests(target, begun))
    try:
        async with aclosing(stream):
            await anext(stream)  # what is refused is refused in HTTP
            transport = request.transport
            with suppress(ConnectionError, PodiumError):
                connection = upgraded(request, "sftp")
                begun.set_result(connection)
                await _answer(stream, connection)
    finally:
        if not begun.done():
            begun.set_result(None)
    finished(request, transport)
    raise AssertionError


async def _requests(
    target: pb.SftpTarget, begun: asyncio.Future[RawConnection | None]
) -> AsyncIterator[pb.OpenSftpRequest]:
    yield pb.OpenSftpRequest(target=target)
    if connection := await begun:
        async for data in connection:
            yield pb.OpenSftpRequest(data=data)


async def _answer(stream: Any, connection: RawConnection) -> None:
    async for message in stream:
        await connection.write(message.data)
