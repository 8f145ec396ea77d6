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
Replies = AsyncGenerator[Any, None]
_WAITING, _PIECE = 4, 1 << 20
_LAST_WORDS_S, _END_S = 1.0, 10.0
_LOST = "The connection to the other server was lost"


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
        requests = _Requests()
        requests.put_now(first)
        try:
            async with aclosing(self._backend.transfers.RunTransfer(requests.drained())) as replies:
                operation = self._backend.accepted((await anext(replies)).operation)
                begun.set_result(operation)
                secrets = {name: str(operation.metadata.get(name, "")) for name in NAMES}
                with self.meetings.open(operation.id, {} if there else secrets) as meeting:
                    end = await self._carried(first, there or meeting, replies, requests)
                    requests.put_now(end)
                    async for _ in replies:
                        pass
        except Exception as exc:
            error = exc if isinstance(exc, PodiumError) else from_exception(exc)
            if not begun.done():
                begun.set_exception(error)
            else:
                log.warning("voyage_lost", error=str(error))
        finally:
            requests.put_now(None)

    async def _carried(
        self, first: pb.RunTransferRequest, way: Any, replies: Replies, requests: _Requests
    ) -> pb.RunTransferRequest:
        """Carry what is to go or to come, and return how that ended."""
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

    async def _sent(self, channels: Channels, replies: Replies, requests: _Requests) -> str:
        """Return why the other side, or this one, failed; "" for success. Raises: PodiumError."""
        wanted = await session.offer(channels, (await anext(replies)).header)
        requests.put_now(pb.RunTransferRequest(header=wanted))
        ending = asyncio.ensure_future(session.outcome(channels))
        try:
            error = await _carried_while(channels, replies, requests, ending)
            if error and not ending.done():
                await session.end(channels, error)
            return error
        finally:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)

    async def _received(
        self, channels: Channels, first: pb.RunTransferRequest, replies: Replies, requests: _Requests
    ) -> str:
        raw = await session.offered(channels)
        requests.put_now(pb.RunTransferRequest(header=raw))
        try:
            reply = await anext(replies)
            if not reply.header:
                error = str(reply.end.error)
            elif await session.answer(channels, reply.header):
                project = first.coming.instance.project or first.volume_coming.volume.volume.project
                uploaded = await self._backend.bases.UploadBackup(_upload(project, channels))
                requests.put_now(pb.RunTransferRequest(ticket=uploaded.ticket))
                error = str((await anext(replies)).end.error)
            else:
                error = await _carried_while(channels, replies, requests, None)
        except PodiumError as exc:
            error = exc.message
        await session.end(channels, error)
        return error


class _Requests:
    """What is said to the runtime: what the other side sends waits until that was taken."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[pb.RunTransferRequest | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(_WAITING)

    def put_now(self, request: pb.RunTransferRequest | None) -> None:
        self._queue.put_nowait(request)

    async def data(self, data: bytes) -> None:
        for at in range(0, len(data), _PIECE):
            await self._room.acquire()
            self._queue.put_nowait(pb.RunTransferRequest(data=data[at : at + _PIECE]))

    async def mark(self) -> None:
        await self._room.acquire()
        self._queue.put_nowait(pb.RunTransferRequest(mark=True))

    async def drained(self) -> AsyncIterator[pb.RunTransferRequest]:
        while (request := await self._queue.get()) is not None:
            yield request
            if request.WhichOneof("message") in ("data", "mark"):
                self._room.release()


async def _carried_while(
    channels: Channels, replies: Replies, requests: _Requests, ending: asyncio.Future[str] | None
) -> str:
    """Carry what both sides say of the files; return why that failed, "" once all is there.

    The runtime is told how it ended, and heard to its end. *ending*: what the sink says at its end, where
    this side is the source; that is waited for.
    """
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    down = asyncio.ensure_future(_down(channels, replies, told))
    up = asyncio.ensure_future(session.heard(channels, requests.data, requests.mark))
    error = "The transfer was broken off"
    try:
        error = await _first_end(told, up, ending)
        return error
    finally:
        up.cancel()
        if not told.done():
            told.set_result(error)
        requests.put_now(pb.RunTransferRequest(end=pb.TransferEnd(error=error)))
        await asyncio.wait({down}, timeout=_END_S)
        down.cancel()
        await asyncio.gather(up, down, return_exceptions=True)


async def _first_end(
    told: asyncio.Future[str], up: asyncio.Future[None], ending: asyncio.Future[str] | None
) -> str:
    tasks: set[asyncio.Future[Any]] = {told, up, *([ending] if ending else [])}
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    try:
        if up.done() and not told.done():
            # Whoever goes away may have said why on the other channel, and the runtime hears of its end.
            await asyncio.wait({ending or told}, timeout=_LAST_WORDS_S)
        if ending and (ending.done() or (told.done() and not told.result())):
            return await ending
        if told.done():
            return told.result()
        up.result()
    except PodiumError as exc:
        return exc.message
    return _LOST


async def _down(channels: Channels, replies: Replies, told: asyncio.Future[str]) -> None:
    """Send what the runtime says until it tells of its end; then hear it out."""
    try:
        async for reply in replies:
            if told.done():
                continue
            kind = reply.WhichOneof("message")
            if kind in ("data", "mark"):
                await session.send(channels, reply.data)
            else:
                told.set_result(str(reply.end.error))
    except PodiumError as exc:
        if not told.done():
            told.set_result(exc.message)
    finally:
        if not told.done():
            told.set_result(_LOST)


async def _upload(project: str, channels: Channels) -> AsyncIterator[base_pb2.UploadBackupRequest]:
    yield base_pb2.UploadBackupRequest(header=base_pb2.BackupHeader(project=project))
    async with aclosing(session.received(channels)) as chunks:
        async for chunk in chunks:
            yield base_pb2.UploadBackupRequest(chunk=chunk)
