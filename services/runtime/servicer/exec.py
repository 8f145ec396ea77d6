"""The gRPC face of commands, consoles and logs: convert, call, convert."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from types import MappingProxyType
from typing import Any

from core.errors import Invalid, NotFound
from core.operations.runner import Runner
from core.operations.servicer import answer
from protos.podium.runtime.v1 import exec_pb2 as pb
from protos.podium.runtime.v1 import exec_pb2_grpc as rpc
from services.runtime.domain.target import Target
from services.runtime.usecases.inside.exec import Execs
from services.runtime.usecases.inside.session import Borrower, Command, Session

_CHUNK = 1 << 20
# What LXD's clients ask for by name: the engine's own files, and the recorded output of commands.
_LOG = "lxc.log"
_ENGINE_LOGS = ("lxc.conf", _LOG)
_RECORDED = "exec_"
_LONGEST_NAME = 255
Requests = AsyncIterator[pb.ConnectChannelRequest]
Settle = Callable[[str, str], Awaitable[None]]


class ExecServicer(rpc.ExecServiceServicer):
    def __init__(
        self,
        execs: Execs,
        find: Callable[[str, str], Target],
        runner: Runner,
        lines: Mapping[str, Borrower] = MappingProxyType({}),
        settle: Settle = lambda project, name: asyncio.sleep(0),
    ) -> None:
        """*lines*: who takes the ends of pipes, by name.

        *settle* returns when an outcome about an instance that a client may have read already is known here.
        """
        self._settle = settle
        self._execs = execs
        self._lines = lines
        self._find = find
        self._runner = runner

    async def StartExec(self, request: pb.StartExecRequest, context: Any) -> pb.StartExecResponse:
        command = Command(
            argv=list(request.command),
            environment=dict(request.environment),
            interactive=request.interactive and request.wait_for_channels,
            width=request.width,
            height=request.height,
            user=request.user,
            group=request.group,
            cwd=request.cwd,
            record=request.record_output and not request.wait_for_channels,
            channels=request.wait_for_channels,
        )
        borrower = self._lines.get(request.line)
        await self._settle(request.project, request.name)
        operation = await self._execs.start(request.project, request.name, command, borrower)
        return pb.StartExecResponse(operation=answer(self._runner, operation))

    async def StartConsole(self, request: pb.StartConsoleRequest, context: Any) -> pb.StartConsoleResponse:
        await self._settle(request.project, request.name)
        operation = await self._execs.console(request.project, request.name, request.width, request.height)
        return pb.StartConsoleResponse(operation=answer(self._runner, operation))

    async def ConnectChannel(
        self, request_iterator: Requests, context: Any
    ) -> AsyncIterator[pb.ConnectChannelResponse]:
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None or not first.HasField("open"):
            raise Invalid("NO_OPEN", "A channel begins with open")
        session = self._execs.session(first.open.operation_id)
        name = session.connect(first.open.secret)
        carry = _control if name == "control" else _data
        if first.open.acknowledges and name in session.readers and not session.command.interactive:
            carry = _acknowledged
        async with aclosing(carry(session, name, requests)) as messages:
            async for message in messages:
                yield message

    async def GetConsoleLog(
        self, request: pb.GetConsoleLogRequest, context: Any
    ) -> AsyncIterator[pb.GetConsoleLogResponse]:
        for path in self._console_logs(request.project, request.name):
            async for chunk in _chunks(path):
                yield pb.GetConsoleLogResponse(chunk=chunk)

    async def ClearConsoleLog(
        self, request: pb.ClearConsoleLogRequest, context: Any
    ) -> pb.ClearConsoleLogResponse:
        for path in self._console_logs(request.project, request.name):
            path.write_bytes(b"")
        return pb.ClearConsoleLogResponse()

    async def ListLogs(self, request: pb.ListLogsRequest, context: Any) -> pb.ListLogsResponse:
        target = self._find(request.project, request.name)
        recorded = target.logs.iterdir() if target.logs.is_dir() else ()
        found = [*recorded, *(target.folder / name for name in _ENGINE_LOGS)]
        return pb.ListLogsResponse(files=sorted({_LOG, *(p.name for p in found if p.is_file())}))

    async def ReadLog(self, request: pb.ReadLogRequest, context: Any) -> AsyncIterator[pb.ReadLogResponse]:
        path = self._log(request.project, request.name, request.file)
        if not path.exists():
            yield pb.ReadLogResponse()  # of one that has never run
            return
        async for chunk in _chunks(path):
            yield pb.ReadLogResponse(chunk=chunk)

    async def DeleteLog(self, request: pb.DeleteLogRequest, context: Any) -> pb.DeleteLogResponse:
        path = self._log(request.project, request.name, request.file)
        if not path.name.startswith(_RECORDED):
            raise Invalid("NOT_DELETABLE", "lxc.log and lxc.conf may not be deleted", about=path.name)
        path.unlink(missing_ok=True)
        return pb.DeleteLogResponse()

    def _console_logs(self, project: str, name: str) -> list[Path]:
        """Return what the engine kept of the console: the file it filled before, and the present one."""
        folder = self._find(project, name).folder
        return [path for path in (folder / "console.log.1", folder / "console.log") if path.exists()]

    def _log(self, project: str, name: str, file: str) -> Path:
        target = self._find(project, name)
        if (
            "/" in file
            or len(os.fsencode(file)) > _LONGEST_NAME
            or (not file.startswith(_RECORDED) and file not in _ENGINE_LOGS)
        ):
            raise Invalid("BAD_LOG", f"log file name {file[:64]} not valid", about=file[:64])
        path = (target.folder if file in _ENGINE_LOGS else target.logs) / file
        if not path.is_file() and file != _LOG:
            raise NotFound("NO_LOG", "Log file not found", about=file[:64])
        return path


async def _control(
    session: Session, name: str, requests: Requests
) -> AsyncGenerator[pb.ConnectChannelResponse, None]:
    """Obey until the command ends; a client that goes away takes its command along."""
    obey = asyncio.create_task(_obey(session, requests))
    ended = asyncio.create_task(session.ended.wait())
    try:
        yield _opened(name)
        await asyncio.wait([obey, ended], return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not session.ended.is_set():
            session.kill()
        for task in (obey, ended):
            task.cancel()


def _opened(name: str) -> pb.ConnectChannelResponse:
    return pb.ConnectChannelResponse(opened=pb.ChannelOpened(channel=name))


async def _obey(session: Session, requests: Requests) -> None:
    async for request in requests:
        await session.started.wait()
        if request.HasField("resize"):
            session.resize(request.resize.width, request.resize.height)
        elif request.HasField("signal"):
            session.signal(request.signal)


async def _data(
    session: Session, name: str, requests: Requests
) -> AsyncGenerator[pb.ConnectChannelResponse, None]:
    feed = asyncio.create_task(_feed(session, requests)) if name == "0" else None
    complete = False
    try:
        # Inside, since a client may be gone before it hears that it was connected.
        yield _opened(name)
        await session.started.wait()
        if name in session.readers:
            async for message in _output(session, name):
                # Set before it is sent: a client may be gone as soon as it has the end.
                complete = message.HasField("end")
                yield message
        else:
            await session.ended.wait()
            complete = True
    finally:
        session.lose(name, complete=complete)
        if feed:
            feed.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await feed


async def _acknowledged(
    session: Session, name: str, requests: Requests
) -> AsyncGenerator[pb.ConnectChannelResponse, None]:
    """Carry an output to a caller that passes it on: what was sent to it is not yet with the client."""
    complete = False
    try:
        yield _opened(name)
        await session.started.wait()
        async for message in _output(session, name):
            complete = message.HasField("end")
            yield message
        async for _ in requests:
            pass
    finally:
        session.lose(name, complete=complete)


async def _output(session: Session, name: str) -> AsyncIterator[pb.ConnectChannelResponse]:
    reader = session.readers[name]
    while data := await reader.read():
        yield pb.ConnectChannelResponse(data=data)
    yield pb.ConnectChannelResponse(end=pb.EndOfData())


async def _feed(session: Session, requests: Requests) -> None:
    await session.started.wait()
    async for request in requests:
        if request.HasField("end"):
            await session.end_input()
            return
        if request.HasField("data") and not await session.write(request.data):
            return
    session.hang_up()


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk
