"""Runs migrations: an operation of the runtime on one side, channels to another server on the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

from core.errors import PodiumError, from_exception
from core.logs import get_logger
from core.operations.operation import Operation
from gateway.backend import Backend
from gateway.migration import session
from gateway.migration.channels import NAMES, Channels, Meetings, There
from protos.podium.image.v1 import base_pb2
from protos.podium.runtime.v1 import transfer_pb2 as pb

log = get_logger(__name__)


class Voyages:
    """Each goes on by itself once its operation is there; it ends when either side does."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.meetings = Meetings()
        self._tasks: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def begin(self, first: pb.RunTransferRequest, there: There | None) -> Operation:
        """Begin what *first* says and return its operation; None: the other side comes here."""
        if there:
            there.check()
        begun: asyncio.Future[Operation] = asyncio.get_running_loop().create_future()
        # Owned by this object until stop().
        task = asyncio.create_task(self._run(first, there, begun))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(begun)

    async def _run(
        self, first: pb.RunTransferRequest, there: There | None, begun: asyncio.Future[Operation]
    ) -> None:
        requests: asyncio.Queue[pb.RunTransferRequest | None] = asyncio.Queue()
        requests.put_nowait(first)
        try:
            async with aclosing(self._backend.transfers.RunTransfer(_drained(requests))) as replies:
                operation = self._backend.accepted((await anext(replies)).operation)
                begun.set_result(operation)
                secrets = {name: str(operation.metadata.get(name, "")) for name in NAMES}
                with self.meetings.open(operation.id, {} if there else secrets) as meeting:
                    end = await self._carried(first, there or meeting, replies, requests)
                    requests.put_nowait(end)
                    async for _ in replies:
                        pass
        except Exception as exc:
            error = exc if isinstance(exc, PodiumError) else from_exception(exc)
            if not begun.done():
                begun.set_exception(error)
            else:
                log.warning("voyage_lost", error=str(error))
        finally:
            requests.put_nowait(None)

    async def _carried(
        self, first: pb.RunTransferRequest, way: Any, replies: AsyncGenerator[Any, None], requests: Any
    ) -> pb.RunTransferRequest:
        """Carry the archive, and return how that ended."""
        connecting: AbstractAsyncContextManager[Channels] = way.channels()
        try:
            async with connecting as channels:
                if first.WhichOneof("message") in ("going", "volume_going"):
                    error = await self._sent(channels, replies, requests)
                else:
                    error = await self._received(channels, first, replies, requests)
        except PodiumError as exc:
            error = exc.message
        return pb.RunTransferRequest(end=pb.TransferEnd(error=error))

    async def _sent(self, channels: Channels, replies: AsyncGenerator[Any, None], requests: Any) -> str:
        await session.offer(channels)
        requests.put_nowait(pb.RunTransferRequest(go=True))
        try:
            await session.send(channels, _chunks(replies))
        except PodiumError as exc:
            await session.end(channels, exc.message)
            raise
        return await session.outcome(channels)

    async def _received(
        self,
        channels: Channels,
        first: pb.RunTransferRequest,
        replies: AsyncGenerator[Any, None],
        requests: Any,
    ) -> str:
        await session.answer(channels)
        try:
            project = first.coming.instance.project or first.volume_coming.volume.volume.project
            uploaded = await self._backend.bases.UploadBackup(_upload(project, channels))
            requests.put_nowait(pb.RunTransferRequest(ticket=uploaded.ticket))
            error = str((await anext(replies)).end.error)
        except PodiumError as exc:
            error = exc.message
        await session.end(channels, error)
        return error


async def _drained(
    requests: asyncio.Queue[pb.RunTransferRequest | None],
) -> AsyncIterator[pb.RunTransferRequest]:
    while (request := await requests.get()) is not None:
        yield request


async def _chunks(replies: AsyncGenerator[Any, None]) -> AsyncIterator[bytes]:
    """Yield the archive up to its mark. Raises: PodiumError, when the runtime could not make it."""
    while chunk := (await anext(replies)).chunk:
        yield chunk


async def _upload(project: str, channels: Channels) -> AsyncIterator[base_pb2.UploadBackupRequest]:
    yield base_pb2.UploadBackupRequest(header=base_pb2.BackupHeader(project=project))
    async with aclosing(session.received(channels)) as chunks:
        async for chunk in chunks:
            yield base_pb2.UploadBackupRequest(chunk=chunk)
