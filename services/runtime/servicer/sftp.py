"""The gRPC face of SFTP sessions: bytes to the process, bytes from it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from core.errors import Invalid
from protos.podium.runtime.v1 import sftp_pb2 as pb
from protos.podium.runtime.v1 import sftp_pb2_grpc as rpc
from services.runtime.domain.target import Target
from services.runtime.usecases.inside.sftp import Session, SftpSessions


class SftpServicer(rpc.SftpServiceServicer):
    def __init__(self, sessions: SftpSessions, find: Callable[[str, str], Awaitable[Target]]) -> None:
        self._sessions = sessions
        self._find = find

    async def OpenSftp(
        self, request_iterator: AsyncIterator[pb.OpenSftpRequest], context: Any
    ) -> AsyncIterator[pb.OpenSftpResponse]:
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None or not first.HasField("target"):
            raise Invalid("NO_TARGET", "A session begins with its target")
        target = await self._find(first.target.project, first.target.name)
        async with self._sessions.open(target) as session:
            yield pb.OpenSftpResponse(opened=pb.SftpOpened())
            feed = asyncio.create_task(_feed(session, requests))
            try:
                while data := await session.read():
                    yield pb.OpenSftpResponse(data=data)
            finally:
                feed.cancel()
                await asyncio.gather(feed, return_exceptions=True)


async def _feed(session: Session, requests: AsyncIterator[pb.OpenSftpRequest]) -> None:
    with contextlib.suppress(OSError):
        async for request in requests:
            await session.write(request.data)
    session.end_input()
