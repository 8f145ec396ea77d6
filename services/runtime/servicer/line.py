"""The way to the other server as far as this service goes: messages to and from the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import Any

from core.errors import Unavailable
from protos.podium.runtime.v1 import transfer_pb2 as pb
from services.runtime.domain.offers import Answer
from services.runtime.servicer.headers import header_of_answer

_WAITING = 4


class Line:
    """Implements usecases.wire.Wire. Nothing is sent faster than it is taken."""

    def __init__(self, requests: AsyncIterator[pb.RunTransferRequest]) -> None:
        self._requests = requests
        self._out: asyncio.Queue[pb.RunTransferResponse] = asyncio.Queue(_WAITING)
        self.awaits_archive = False

    async def answer(self, answer: Answer) -> None:
        self.awaits_archive = answer.archive
        await self._out.put(pb.RunTransferResponse(header=header_of_answer(answer)))

    async def read(self) -> bytes | None:
        while True:
            request = await anext(aiter(self._requests), None)
            if request is None:
                raise Unavailable("LOST", "The connection to the other server was lost")
            if request.HasField("mark"):
                return None
            if request.HasField("end"):
                raise Unavailable("LOST", request.end.error or "The other server gave up")
            if request.data:
                return request.data

    async def write(self, data: bytes) -> None:
        await self._out.put(pb.RunTransferResponse(data=data))

    async def mark(self) -> None:
        await self._out.put(pb.RunTransferResponse(mark=True))

    async def worked(self, work: Awaitable[object]) -> AsyncGenerator[pb.RunTransferResponse, None]:
        """Yield what *work* sends until it has ended. Raises: what it raised."""
        task: asyncio.Future[Any] = asyncio.ensure_future(work)
        try:
            while response := await self._next(task):
                yield response
            await task
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _next(self, task: asyncio.Future[Any]) -> pb.RunTransferResponse | None:
        if self._out.empty() and not task.done():
            getting: asyncio.Future[Any] = asyncio.ensure_future(self._out.get())
            try:
                await asyncio.wait({getting, task}, return_when=asyncio.FIRST_COMPLETED)
                if getting.done():
                    response: pb.RunTransferResponse = getting.result()
                    return response
            finally:
                getting.cancel()
        return None if self._out.empty() else self._out.get_nowait()
